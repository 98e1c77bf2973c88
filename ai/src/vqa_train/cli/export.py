"""vqa-train export: parse, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vqa_train.cli.common import JsonOption, emit_json, print_line, print_table


def export(
    checkpoint: Annotated[Path, typer.Option("--checkpoint", metavar="DIR", help="Run folder that `fit` wrote.")],
    output: Annotated[Path, typer.Option("--output", metavar="ONNX", help="File to write, e.g. model/NAME.onnx.")],
    opset: Annotated[int, typer.Option(min=17, max=20, help="ONNX operator set.")] = 17,
    json: JsonOption = None,
) -> None:
    """Write a run's heads as one ONNX file with a JSON sidecar; fails unless torch and onnxruntime agree."""
    from vqa_train.pipelines.export.run import export_run

    result = export_run(checkpoint, output, opset=opset)
    emit_json(result.to_json(), json)
    if json == "-":
        return
    rows = [[check.output, check.name, check.rows, f"{check.max_abs_diff:.2e}"] for check in result.parity.sets]
    print_table(f"{output}: torch against onnxruntime", ["output", "rows from", "rows", "largest difference"], rows)
    print_line(f"{result.models} heads, {result.bytes / 1e3:.1f} kB, outputs {', '.join(result.outputs)}")
    print_line(f"sha256 {result.sha256}")
