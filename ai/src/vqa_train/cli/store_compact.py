"""vqa-train store compact: parse, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vqa_train.cli.common import JsonOption, emit_json, print_line, print_table
from vqa_train.core.locations import location


def compact(
    store: Annotated[
        Path, typer.Argument(metavar="STORE", parser=location, help="Folder or URL of the feature store.")
    ],
    selector: Annotated[
        str | None, typer.Argument(metavar="[SET]", help="One feature set; without it all of them.")
    ] = None,
    target_rows: Annotated[int, typer.Option(min=1, metavar="N", help="Rows of a large shard.")] = 16_384,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing; say what would be done.")] = False,
    json: JsonOption = None,
) -> None:
    """Merge small shards into larger ones, while others read and write.

    Only shards of one numerics profile and run are merged, so every row still tells both. The small ones stay on the
    disk until vqa-train store gc --delete, for who reads them now.
    """
    from vqa_train.pipelines.store import compact as pipeline

    report = pipeline.compact(store, selector, target_rows=target_rows, dry_run=dry_run)
    emit_json(report, json)
    if json != "-":
        title = "would become" if dry_run else "became"
        print_table(title, ("feature set", "shards", "after", "MB", "after"), [_row(each) for each in report["sets"]])
        for each in report["sets"]:
            if each["skipped"]:
                print_line(f"{each['name']}: {each['skipped']} merges left to another compaction that is at work")


def _row(each: dict[str, Any]) -> tuple[str, str, str, str, str]:
    size = [f"{each[name] / 1e6:,.1f}" for name in ("bytes_before", "bytes_after")]
    return each["name"], f"{each['shards_before']:,}", f"{each['shards_after']:,}", *size
