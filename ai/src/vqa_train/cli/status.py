"""vqa-train status: parse, call, print."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from vqa_train.cli.common import JsonOption, emit_json, print_line, print_table
from vqa_train.core.locations import location


def status(
    store: Annotated[
        Path, typer.Argument(metavar="STORE", parser=location, help="Feature store: a folder or a URL (s3://...).")
    ],
    watch: Annotated[bool, typer.Option("--watch", help="Again and again, until no run is under way.")] = False,
    interval: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="Time between two looks.")] = 3.0,
    everything: Annotated[bool, typer.Option("--all", help="Runs that ended more than a day ago too.")] = False,
    json: JsonOption = None,
) -> None:
    """What the extractions that write to a store are at: done, left, rate, time left, failures by reason, per run.

    Reads what running extractions on any machine write under STORE/status every few seconds; asks no process anything.
    """
    from vqa_train.pipelines.extract import status as pipeline

    while True:
        report = pipeline.status(store, everything=everything)
        emit_json(report, json)
        if json != "-":
            _print(report, clear=watch and sys.stdout.isatty())
        sys.stdout.flush()
        if not watch or not report["total"]["running"]:
            return
        time.sleep(interval)


def _print(report: dict[str, Any], *, clear: bool) -> None:
    from vqa_train.pipelines.extract.compute import in_words

    if clear:
        sys.stdout.write("\x1b[H\x1b[2J")
    total = report["total"]
    columns = ["run", "state", "host:pid", "shard", "finished", "left", "videos/s", "time left", "last said"]
    rows = [
        [
            run["run_id"],
            run["state"],
            f"{run['host']}:{run['pid']}",
            run["shard"],
            run["finished"],
            _or_unknown(run["left"]),
            _rate(run["rate"]),
            in_words(run["eta_s"]) if run["eta_s"] is not None else "",
            f"{in_words(run['age_s'])} ago",
        ]
        for run in report["runs"]
    ]
    if not rows:
        print_line(f"{report['store']}: no run in the last day")
    else:
        print_table(report["store"], columns, rows)
    for run in report["runs"]:
        for worker, counts in sorted(run["workers"].items()):
            print_line(f"  {run['run_id']} {worker}: {counts.get('done', 0)} done, {counts.get('failed', 0)} failed")
    for name, counts in total["sets"].items():
        print_line(f"{name}: {counts['done']} committed, {counts['failed']} failed")
    for reason, count in total["failures"].items():
        print_line(f"failed: {count} x {reason}")
    if total["running"]:
        left = in_words(total["eta_s"]) if total["eta_s"] is not None else "time unknown"
        print_line(
            f"{total['running']} running: {total['finished']} finished, {_or_unknown(total['left'])} left, "
            f"{_rate(total['rate'])} videos/s, {left}"
        )
    for problem in report["unreadable"]:
        print_line(f"unreadable: {problem}")


def _or_unknown(count: int | None) -> str:
    return "?" if count is None else str(count)


def _rate(rate: float | None) -> str:
    return f"{rate:.2f}" if rate else ""
