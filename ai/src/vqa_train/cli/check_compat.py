"""vqa-train check compat: parse, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vqa_train.cli.common import JsonOption
from vqa_train.cli.gates import GatesOption, finish
from vqa_train.cli.options import ModelArgument, RegistryOption
from vqa_train.core.locations import location


def check_compat(
    model: ModelArgument,
    features: Annotated[
        Path | None,
        typer.Option(metavar="STORE", parser=location, help="Store that must have the features that the model takes."),
    ] = None,
    max_opset: Annotated[
        int | None, typer.Option(min=1, help="Newest operator set of a graph (default: what onnxruntime loads).")
    ] = None,
    max_ir_version: Annotated[
        int | None, typer.Option(min=1, help="Newest file format of a graph (default: what onnxruntime loads).")
    ] = None,
    require_signature: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY", help="Public key, or its file, that must have signed; again for others."),
    ] = None,
    registry: RegistryOption = Path("model"),
    gates: GatesOption = None,
    json: JsonOption = None,
) -> None:
    """Do sidecar, graphs, files and feature store fit together? Lists every difference; exit code 3 where there is one.

    Nothing whose bytes differ from their hash is run; it is only read, to say what else differs.
    """
    from vqa_train.pipelines.gates.compat import CompatLimits
    from vqa_train.pipelines.gates.compat import check_compat as run
    from vqa_train.pipelines.gates.config import resolve

    flags = {
        "max_opset": max_opset,
        "max_ir_version": max_ir_version,
        "require_signature": tuple(require_signature) if require_signature else None,
    }
    finish(run(model, resolve(CompatLimits, "compat", gates, flags), features=features, registry=registry), json)
