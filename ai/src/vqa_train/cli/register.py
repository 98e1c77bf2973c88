"""vqa-train register: an exported head becomes a model that is found by name and scores without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from vqa_train.cli.common import JsonOption, emit_json, log, print_line, print_table


def register(
    model: Annotated[Path, typer.Option(help="NAME.onnx as `export` wrote it, with NAME.json beside it.")],
    dataset: Annotated[str, typer.Option(help="What it was fitted on: a dataset's name or its manifest.")],
    license: Annotated[str, typer.Option(help="Licence of the model, an SPDX id.")],
    train_commit: Annotated[str, typer.Option(help="Git commit of the code that fitted it.")],
    kind: Annotated[
        Literal["nr", "fr"] | None,
        typer.Option(help="No-reference or full-reference. (default: as its inputs are)"),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name in the registry; default: the exported one.")] = None,
    version: Annotated[str | None, typer.Option(help="Version of the model. (default: the next number)")] = None,
    registry: Annotated[Path, typer.Option(help="Folder of registry.json.")] = Path("model"),
    metrics: Annotated[Path | None, typer.Option(help="JSON that `eval` wrote; goes into sidecar and card.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace another model of that version.")] = False,
    json_path: JsonOption = None,
) -> None:
    """Verify an exported head, export its backbones, and publish both under a name."""
    from vqa_train.pipelines.models.register import RegisterConfig
    from vqa_train.pipelines.models.register import register as run

    sidecar = run(
        RegisterConfig(
            model=model,
            kind=kind,
            dataset=dataset,
            license=license,
            train_commit=train_commit,
            registry=registry,
            name=name,
            version=version,
            metrics=metrics,
            overwrite=overwrite,
        ),
        log=log,
    )
    emit_json(sidecar.to_json(), json_path)
    if json_path == "-":
        return
    rows = []
    for item in sidecar.inputs:
        onnx = item.backbone_onnx
        size = f"{onnx.bytes / 1e6:.1f} MB{' (in the cache)' if onnx.cached else ''}" if onnx else ""
        dims = "x".join(map(str, item.dims))
        feature = f"{item.backbone}/{item.output}{' of the reference' if item.of == 'reference' else ''}"
        rows.append([item.name, feature, dims, item.fingerprint[:12], item.license, size])
    columns = ["input", "feature", "dim", "fingerprint", "licence", "backbone ONNX"]
    place = registry / sidecar.name / sidecar.version
    print_table(f"{sidecar.name}:{sidecar.version} -> {place} (head sha256 {sidecar.onnx.sha256[:12]})", columns, rows)
    prompt = ""
    if sidecar.takes_prompt:
        prompt = ' --prompt "TEXT"' if sidecar.needs_prompt else ' [--prompt "TEXT"]'
    reference = " --reference REFERENCE" if sidecar.takes_reference else ""
    print_line(f"score with: vqa-score VIDEO --model {sidecar.name} --registry {registry}{reference}{prompt}")
