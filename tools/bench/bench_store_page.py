"""The page of bench_store.py: tables, and the exponent of each cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from machine import markdown_machine

MEANING = {
    "append": "rows made durable, shard by shard of 256; without making the numbers",
    "snapshot": "manifest.json brought up to date, every commit read and hashed again",
    "index": "first question after a run: every commit read and checked, the row index made and kept",
    "open": "store opened, set found, row index mapped and its sha256 checked",
    "plan": "open, known keys, failures, every key of the dataset looked up: a run that has nothing to do",
    "plan_videos": "the same through the pipeline, with records of videos whose files are looked for",
    "lookup": "features of one key from an open set: index searched, shard checked and read",
    "scan": "the mapped matrix of all rows into torch tensors, from the page cache",
    "verify": "every byte of the store read, its hashes, seals and snapshots checked (`store verify`, without `--content`)",
    "compact": "every shard merged into shards of 16,384 rows, digests computed again",
}


def exponents(results: Sequence[dict[str, Any]], steps: Sequence[str]) -> dict[str, dict[str, float]]:
    """Slope of log cost over log rows, between the two largest sizes and fitted over all; 1 is linear."""
    rows = np.log([result["rows"] for result in results])
    found = {}
    for step in steps:
        if len(results) < 2:
            continue
        seconds = np.log([result[step]["seconds"] for result in results])
        memory = np.log([result[step]["peak_mib"] for result in results])
        found[step] = {
            "time": float(np.polyfit(rows, seconds, 1)[0]),
            "time_last_decade": float((seconds[-1] - seconds[-2]) / (rows[-1] - rows[-2])),
            "memory": float(np.polyfit(rows, memory, 1)[0]),
        }
    return found


def seconds_text(seconds: float) -> str:
    """Seconds as people read them."""
    return (
        f"{seconds:.1f} s"
        if seconds >= 1
        else f"{1000 * seconds:.1f} ms"
        if seconds < 0.1
        else f"{1000 * seconds:.0f} ms"
    )


def markdown(report: dict[str, Any]) -> str:
    """The page for the docs."""
    results, slopes = report["results"], report["exponents"]
    sizes = [f"{result['rows']:,}" for result in results]
    lines = [
        "# Store: cost against rows",
        "",
        f"Rows of {report['dim']} float32 with the facts of a clip, {report['shard_rows']} to a shard. Each figure in a fresh Python",
        "process, imports not counted, page cache warm. The exponent is the slope of log time over log rows: 1 is linear;",
        "*last* is that between the two largest sizes, where fixed costs no longer hide it.",
        "",
        "## Time",
        "",
        f"| | {' | '.join(sizes)} rows | exponent | last |",
        "|---|" + "---:|" * (len(sizes) + 2),
    ]
    for step in slopes or MEANING:
        cells = [seconds_text(result[step]["seconds"]) for result in results]
        slope = slopes.get(step)
        last = f"{slope['time']:.2f} | {slope['time_last_decade']:.2f}" if slope else " | "
        lines.append(f"| {step.replace('_', ' ')} | {' | '.join(cells)} | {last} |")
    lines += ["", "## Peak memory of the process, MiB", "", f"| | {' | '.join(sizes)} rows | exponent |"]
    lines.append("|---|" + "---:|" * (len(sizes) + 1))
    for step in slopes or MEANING:
        cells = [f"{result[step]['peak_mib']:.0f}" for result in results]
        lines.append(
            f"| {step.replace('_', ' ')} | {' | '.join(cells)} | {slopes[step]['memory'] if step in slopes else 0:.2f} |"
        )
    largest = results[-1]
    lines += [
        "",
        *[f"- **{step.replace('_', ' ')}**: {meaning}." for step, meaning in MEANING.items() if step in largest],
        "",
    ]
    before = largest["plan"]["before_mib"], largest["plan_videos"]["before_mib"]
    lines += [
        f"At {largest['rows']:,} rows: appended {largest['rows'] / largest['append']['seconds']:,.0f} rows/s; the first lookup of a process",
        f"{seconds_text(largest['lookup']['first_s'])}, the slowest of twenty {seconds_text(largest['lookup']['p95_s'])}. Of the plan's memory {before[0]:.0f} MiB are the dataset's keys",
        f"and the interpreter ({before[1]:.0f} MiB with a record for each video).",
        f"{largest['compact']['shards_before']:,} shards became {largest['compact']['shards_after']:,}.",
        "",
    ]
    wide = report["wide"]
    if wide:
        scan, verify = wide["scan"], wide["verify"]
        lines += [
            f"## Wide rows: {wide['rows']:,} of {wide['dim']} float32",
            "",
            "| | |",
            "|---|---:|",
            f"| append, {wide['rows']:,} rows | {seconds_text(wide['wide']['seconds'])} |",
            f"| mapped matrix made, {scan['bytes'] / 1e9:.2f} GB | {seconds_text(scan['made_s'])} |",
            f"| scan to torch tensors from the page cache | {scan['gb_per_s']:.2f} GB/s |",
            f"| verify, {verify['bytes'] / 1e9:.2f} GB | {seconds_text(verify['seconds'])}, {verify['bytes'] / verify['seconds'] / 1e9:.2f} GB/s |",
            f"| `sha256sum` over the same files, one process | {seconds_text(verify['sha256sum_s'])}, {verify['bytes'] / verify['sha256sum_s'] / 1e9:.2f} GB/s |",
            f"| verify's speed against it | {verify['of_sha256sum']:.0%} |",
            "",
        ]
    load = f"Load average over the last 15 minutes when it ended: {report['load_average']}; 1 is this benchmark alone."
    lines += [markdown_machine(report["machine"]), "", load, "", "Made by `python tools/bench/bench_store.py`.", ""]
    return "\n".join(lines)
