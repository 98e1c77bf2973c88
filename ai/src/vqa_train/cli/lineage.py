"""vqa-train lineage: a model back to its run, feature sets, shards, videos and weights."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vqa_train.cli.common import JsonOption, emit_json, log, print_line
from vqa_train.core.errors import ExitCode, UsageError
from vqa_train.core.locations import location

if TYPE_CHECKING:
    from vqa_train.pipelines.lineage.graph import Lineage

_STYLES = {"verified": "green", "differs": "bold red", "not_found": "bold red", "not_looked_for": "dim"}


def lineage(
    model: Annotated[str, typer.Argument(help="NAME[:VERSION|@ALIAS] of the registry, a bundle, or an exported ONNX.")],
    registry: Annotated[Path, typer.Option(help="Folder of registry.json.")] = Path("model"),
    features: Annotated[
        Path | None, typer.Option(parser=location, metavar="STORE", help="Feature store to look for its rows in.")
    ] = None,
    run: Annotated[Path | None, typer.Option(metavar="DIR", help="Run folder that `fit` wrote.")] = None,
    manifests: Annotated[Path, typer.Option(metavar="DIR", help="Folder of dataset manifests.")] = Path("manifests"),
    data_root: Annotated[
        Path | None, typer.Option(parser=location, help="Where the data is; default: as the manifests say.")
    ] = None,
    content: Annotated[
        bool, typer.Option("--content", help="Also read the bytes of weights and videos on this machine.")
    ] = False,
    full: Annotated[bool, typer.Option("--full", help="List every node instead of counting long lists.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit code 3 if anything differs or is not found; needs store and run.")
    ] = False,
    json_path: JsonOption = None,
) -> None:
    """Show where a model comes from, and check as much of it as is at hand.

    Each node is verified (its bytes were read now and are those that were recorded), differs, not found, or not looked
    for (nothing was given to look in).
    """
    if strict and (features is None or run is None):
        raise UsageError("--strict needs --features and --run", hint="without them nothing much could fail")
    from vqa_train.pipelines.lineage.trace import LineageConfig, trace

    found = trace(
        LineageConfig(
            model=model, registry=registry, features=features, run=run, manifests=manifests, data_root=data_root,
            content=content,
        )
    )  # fmt: skip
    emit_json(found.to_json(), json_path)
    if json_path != "-":
        _print(found, full=full)
    if found.broken:
        log(f"{len(found.broken)} of {len(found.nodes)} nodes differ or were not found")
        if strict:
            raise typer.Exit(ExitCode.GATE_FAILED)


def _print(found: Lineage, *, full: bool) -> None:
    from vqa_train.pipelines.lineage.tree import WORDS, tree_lines

    lines = list(tree_lines(found, full=full))
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.text import Text
        from rich.tree import Tree

        tree = Tree(Text(lines[0].text, style=_STYLES[lines[0].status or "verified"]))
        stack = [tree]
        for line in lines[1:]:
            del stack[line.depth :]
            stack.append(stack[-1].add(Text(line.text, style=_STYLES[line.status] if line.status else "")))
        Console().print(tree)
    else:
        for line in lines:
            print_line("  " * line.depth + line.text)
    counts = ", ".join(f"{count} {WORDS[status]}" for status, count in found.counts.items() if count)
    print_line(f"{len(found.nodes)} nodes: {counts}")
