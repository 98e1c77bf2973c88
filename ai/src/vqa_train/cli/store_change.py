"""vqa-train store repair|diff|merge|tag|tags|untag: parse, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vqa_train.cli.common import JsonOption, emit_json, print_line, print_table
from vqa_train.core.errors import GateFailedError
from vqa_train.core.locations import location

StoreArgument = Annotated[
    Path, typer.Argument(metavar="STORE", parser=location, help="Folder or URL of the feature store.")
]
SetArgument = Annotated[str | None, typer.Argument(metavar="[SET]", help="One feature set; without it all of them.")]
_SHOWN = 10


def add_to(app: typer.Typer) -> None:
    """Mount the verbs of this file."""
    for verb in (repair, diff, merge, tag, tags, untag):
        app.command()(verb)


def repair(
    store: StoreArgument,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing; say what would be done.")] = False,
    json: JsonOption = None,
) -> None:
    """Move damaged files aside, so that the rest is whole and the next extraction brings back what is missing.

    What is moved lies in the feature set's quarantine/, with a log of why. Exit code 3 when something stays damaged.
    """
    from vqa_train.pipelines.store import change as pipeline

    report = pipeline.repair(store, dry_run=dry_run)
    emit_json(report, json)
    if json != "-":
        verb = "would be moved aside" if dry_run else "moved aside"
        for moved in report["moved"]:
            lost = f" ({len(moved['keys'])} keys to extract again)" if moved["keys"] else ""
            print_line(f"{moved['set']}: {', '.join(moved['files'])} {verb}{lost}: {moved['why']}")
        for line in [*report["mended"], *report["left"]]:
            print_line(line)
        print_line(
            f"{len(report['moved'])} {verb}, {len(report['mended'])} files mended, {len(report['left'])} problems left"
        )
    if report["left"]:
        raise GateFailedError(f"{len(report['left'])} problems stay in {str(store)!r}")


def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="A store, or STORE#TAG: the store as it was when tagged.")],
    b: Annotated[str, typer.Argument(metavar="B", help="What to compare it with, likewise.")],
    selector: Annotated[
        str | None, typer.Option("--set", metavar="SET", help="Compare this feature set alone.")
    ] = None,
    json: JsonOption = None,
) -> None:
    """Feature sets and keys that only one of two stores has, and rows that differ; exit code 3 when there are any."""
    from vqa_train.pipelines.store import change as pipeline

    report = pipeline.diff(a, b, selector)
    emit_json(report, json)
    if json != "-":
        for side in ("a", "b"):
            for name in report[f"only_{side}"]:
                print_line(f"only {report[side]} has feature set {name}")
        for each in report["sets"]:
            _print_set(report, each)
        print_line("same" if report["same"] else "DIFFERENT")
    if not report["same"]:
        raise GateFailedError(f"{a!r} and {b!r} differ")


def _print_set(report: dict[str, Any], each: dict[str, Any]) -> None:
    counts = each["counts"]
    print_line(
        f"{each['name']}: {each['equal_rows']:,} rows equal, {counts['only_a']:,} only in {report['a']}, "
        f"{counts['only_b']:,} only in {report['b']}, {counts['differing']:,} differ"
    )
    if len(set(each["licenses"])) > 1:
        print_line(f"  licences differ: {each['licenses'][0]!r} and {each['licenses'][1]!r}")
    for name, gap in each["largest"].items():
        shown = "without bound (NaN or infinity)" if gap is None else f"up to {gap:.2g} of its size"
        print_line(f"  output {name}: differs {shown}")
    for what in ("only_a", "only_b", "differing"):
        for key, view in each[what][:_SHOWN]:
            print_line(f"  {what.replace('_', ' ')}: {key} view {view}")
        if counts[what] > _SHOWN:
            print_line(f"  {what.replace('_', ' ')}: and {counts[what] - _SHOWN:,} more")


def merge(
    sources: Annotated[
        list[Path], typer.Argument(metavar="STORE...", parser=location, help="Stores whose features are copied.")
    ],
    output: Annotated[
        Path, typer.Option("--output", metavar="STORE", parser=location, help="Store that they are copied into.")
    ],
    json: JsonOption = None,
) -> None:
    """Copy the shards, failures and runs of stores into one, byte for byte; what is there already is left out.

    Refused before anything is written: two licences of one feature set, two specs under one name.
    """
    from vqa_train.pipelines.store import change as pipeline

    report = pipeline.merge(sources, output)
    emit_json(report, json)
    if json == "-":
        return
    for each in report["sets"]:
        print_line(
            f"{each['name']}: {each['shards']:,} shards with {each['rows']:,} rows copied, "
            f"{each['there']:,} were there, {each['failures']:,} failures files, {each['runs']:,} runs"
        )
        for run in each["runs_kept"]:
            print_line(f"  run {run} is described otherwise in the target, whose description stays")


def tag(
    store: StoreArgument,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Letters, digits and . _ -")],
    selector: SetArgument = None,
    move: Annotated[bool, typer.Option("--move", help="Move the tag, where it names an older snapshot.")] = False,
    json: JsonOption = None,
) -> None:
    """Name the store as it is now: a snapshot that gc and compaction leave whole."""
    from vqa_train.pipelines.store import change as pipeline

    _print_tags(pipeline.tag(store, name, selector, move=move), json)


def tags(store: StoreArgument, selector: SetArgument = None, json: JsonOption = None) -> None:
    """List the tags."""
    from vqa_train.pipelines.store import change as pipeline

    _print_tags(pipeline.tags(store, selector), json)


def untag(
    store: StoreArgument,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The tag to remove.")],
    selector: SetArgument = None,
    json: JsonOption = None,
) -> None:
    """Remove a tag; shards that only it kept may go with the next gc."""
    from vqa_train.pipelines.store import change as pipeline

    _print_tags(pipeline.untag(store, name, selector), json)


def _print_tags(report: dict[str, Any], json: str | None) -> None:
    emit_json(report, json)
    if json == "-":
        return
    rows = [
        (each["tag"], each["set"], each["snapshot"][:12], f"{each['rows']:,}", each["shards"], each["created"])
        for each in report["tags"]
    ]
    print_table(f"{len(rows)} tags", ("tag", "feature set", "snapshot", "rows", "shards", "created"), rows)
