"""vqa-train check parity: parse, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vqa_train.cli.common import JsonOption
from vqa_train.cli.gates import GatesOption, finish
from vqa_train.cli.options import ModelArgument, RegistryOption
from vqa_train.core.locations import location


def check_parity(
    model: ModelArgument,
    checkpoint: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Run folder that the model was exported from, for torch.")
    ] = None,
    provider: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="cpu, cuda, tensorrt or openvino; again for more. (default: the installed)"),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="PART", help="torch, providers, backbones or golden; again for more. (default: all)"),
    ] = None,
    tolerance: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=NUMBER",
            help="Largest difference for torch or a provider, in standard deviations of the labels; again for more. "
            "(default: torch and cpu 1e-5, others 1e-3, an int8 head 0.02)",
        ),
    ] = None,
    backbone_tolerance: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=NUMBER",
            help="Largest difference of a feature for a provider, as a share of its size. "
            "(default: cpu 1e-4, others 1e-2)",
        ),
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option(metavar="STORE", parser=location, help="Store for real rows. (default: the run's, or golden)"),
    ] = None,
    registry: RegistryOption = Path("model"),
    gates: GatesOption = None,
    json: JsonOption = None,
) -> None:
    """Does a model compute the same everywhere? Torch against onnxruntime, provider against provider, golden rows.

    The reference of the providers is the CPU without graph optimisations. Exit code 3 where anything differs, a
    requested provider is missing, or a part could not be run.
    """
    from vqa_train.pipelines.gates.config import resolve
    from vqa_train.pipelines.gates.parity import ParityLimits
    from vqa_train.pipelines.gates.parity import check_parity as run

    flags = {**_numbers("tolerance", tolerance), **_numbers("backbone_tolerance", backbone_tolerance)}
    report = run(
        model,
        resolve(ParityLimits, "parity", gates, flags),
        registry=registry,
        checkpoint=checkpoint,
        providers=provider or (),
        parts=only or (),
        features=features,
    )
    finish(report, json)


def _numbers(prefix: str, pairs: list[str] | None) -> dict[str, float]:
    from vqa_train.core.errors import UsageError

    found = {}
    for pair in pairs or ():
        name, _, value = pair.partition("=")
        try:
            found[f"{prefix}_{name}"] = float(value)
        except ValueError as error:
            flag = prefix.replace("_", "-")
            raise UsageError(f"--{flag} {pair!r} is not NAME=NUMBER", hint=f"such as --{flag} cuda=1e-3") from error
    return found
