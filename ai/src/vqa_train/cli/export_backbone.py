"""vqa-train export-backbone: parse, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vqa_train.cli.common import JsonOption, emit_json, log, print_line, print_table


def export_backbone(
    name: Annotated[str, typer.Argument(metavar="NAME[:SETTING=VALUE,...]", help="Backbone or text encoder.")],
    output: Annotated[
        Path | None, typer.Option("--output", metavar="ONNX", help="File to write; its folder gets the rest.")
    ] = None,
    check: Annotated[
        list[Path] | None,
        typer.Option("--check", metavar="VIDEO", help="Compare on this video too; may be repeated."),
    ] = None,
    ready: Annotated[
        bool,
        typer.Option("--ready", help="Make the ready-made scorer NAME for vqa-score, for a backbone that has scores."),
    ] = False,
    weights: Annotated[
        Path | None, typer.Option(help="File or folder of the weights. (default: as `weights list` says)")
    ] = None,
    random_weights: Annotated[
        int | None, typer.Option(metavar="SEED", help="Random weights, for tests and benchmarks.")
    ] = None,
    opset: Annotated[int, typer.Option(min=17, max=20, help="ONNX operator set.")] = 17,
    json: JsonOption = None,
) -> None:
    """Write a frozen backbone as ONNX, from raw frames or tokens to features, with a manifest that names every hash.

    Fails unless torch and onnxruntime agree within 1e-4 of each feature's size. Weights over 2 GiB go into a file
    beside the graph, whose hash stands in the graph.
    """
    import os

    from vqa_train.core.errors import UsageError

    # Before torch is loaded: idle OpenMP threads that spin slow down the others.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if output is not None and not ready:
        _export(name, output, check or [], weights, random_weights, opset, json)
    elif ready and output is None:
        _make_ready(name, weights, random_weights, opset, json)
    else:
        raise UsageError("give either --output ONNX or --ready", hint="--ready keeps the scorer in the cache")


def _export(
    name: str,
    output: Path,
    videos: list[Path],
    weights: Path | None,
    random_weights: int | None,
    opset: int,
    json: str | None,
) -> None:
    from vqa_train.pipelines.export.files import ExportOptions, export_to_folder

    options = ExportOptions(weights=weights, random_weights=random_weights, opset=opset)
    result = export_to_folder(name, output, options, videos=videos)
    emit_json(result, json)
    if json != "-":
        rows = [[file, f"{entry['bytes'] / 1e6:.1f} MB", entry["sha256"]] for file, entry in result["files"].items()]
        print_table(f"{name} ({result['license']})", ["file", "size", "sha256"], rows)


def _make_ready(name: str, weights: Path | None, random_weights: int | None, opset: int, json: str | None) -> None:
    from vqa_train.pipelines.models.ready import make_ready

    sidecar = make_ready(name, weights=weights, random_weights=random_weights, opset=opset, log=log)
    emit_json({"model": sidecar.name, "onnx_sha256": sidecar.onnx.sha256}, json)
    if json != "-":
        print_line(f"{sidecar.name}: ready; `vqa-score VIDEO --model {sidecar.name}` scores with it")
