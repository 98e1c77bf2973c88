"""vqa-train check ops: parse, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vqa_train.cli.common import JsonOption, emit_json, print_line, print_table
from vqa_train.cli.gates import GatesOption, finish
from vqa_train.cli.options import ModelArgument, RegistryOption


def check_ops(
    model: ModelArgument,
    allow: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Operators that the runtime has: `domain;opset;Op1,Op2` lines.")
    ] = None,
    write: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write the list that the model needs; alone, only that.")
    ] = None,
    backbones: Annotated[
        bool | None, typer.Option("--backbones", help="Also the graphs of the backbones.", show_default=False)
    ] = None,
    ignore_types: Annotated[
        bool | None,
        typer.Option("--ignore-types", help="Pass although the list restricts types too.", show_default=False),
    ] = None,
    registry: RegistryOption = Path("model"),
    gates: GatesOption = None,
    json: JsonOption = None,
) -> None:
    """Does a model need only operators that a constrained runtime has? Exit code 3 where it needs another.

    The list has the format of ONNX Runtime's reduced-operator configuration. Operators inside subgraphs and functions
    count, and an operator must be listed under the opset that the file imports.
    """
    from vqa_train.pipelines.gates.config import resolve
    from vqa_train.pipelines.gates.ops import OpsLimits
    from vqa_train.pipelines.gates.ops import check_ops as run

    flags = {"allow": allow, "backbones": backbones, "ignore_types": ignore_types}
    limits = resolve(OpsLimits, "ops", gates, flags)
    report = run(model, limits, registry=registry, write=write)
    if write is not None and not report.checks:
        emit_json(report.to_json(), json)
        if json != "-":
            rows = [[graph, op, n] for graph, counts in report.details["operators"].items() for op, n in counts.items()]
            print_table(f"operators of {report.model}", ["graph", "operator", "nodes"], rows)
            print_line(f"written to {write}; nothing was checked: no --allow")
        return
    finish(report, json)
