"""vqa-train bisect: parse, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vqa_train.cli.common import JsonOption, emit_json, log, print_line
from vqa_train.cli.gates import GatesOption, leave, show
from vqa_train.cli.options import DataRootOption, DatasetsOption, ManifestsOption, StoreOption

if TYPE_CHECKING:
    from vqa_train.pipelines.gates.bisect import Evaluated


def bisect(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL...|NAME", help="Models, oldest first; or a NAME, for all its versions in order."),
    ],
    features: StoreOption,
    dataset: DatasetsOption = None,
    split: Annotated[str, typer.Option(help="test, val, train or all.")] = "test",
    metric: Annotated[str | None, typer.Option(help="srocc, plcc_mapped, rmse, ... (default: srocc)")] = None,
    minimum: Annotated[float | None, typer.Option("--min", help="A model below it is bad.")] = None,
    maximum: Annotated[float | None, typer.Option("--max", help="A model above it is bad; for errors.")] = None,
    target: Annotated[list[str] | None, typer.Option(help="May be repeated. (default: all)")] = None,
    every: Annotated[bool, typer.Option("--all", help="Evaluate every model; is the series monotone?")] = False,
    gates: GatesOption = None,
    registry: Annotated[Path, typer.Option(help="Folder of registered models.")] = Path("model"),
    data_root: DataRootOption = None,
    manifests: ManifestsOption = None,
    json: JsonOption = None,
) -> None:
    """Find the first bad model of a series by binary search; exit code 3 where there is one."""
    from vqa_train.pipelines.gates.bisect import BisectLimits
    from vqa_train.pipelines.gates.bisect import bisect as gate
    from vqa_train.pipelines.gates.compare_models import MeasuredOn
    from vqa_train.pipelines.gates.config import resolve

    flags = {"metric": metric, "min": minimum, "max": maximum, "targets": target}
    report = gate(
        models,
        resolve(BisectLimits, "bisect", gates, flags),
        MeasuredOn(
            features=features, datasets=dataset or (), split=split, data_root=data_root, manifests_dir=manifests
        ),
        registry=registry,
        every=every,
        progress=_say,
    )
    emit_json(report.to_json(), json)
    if json != "-":
        show(report)
        print_line(f"{report.details['conclusion']} ({len(report.details['evaluations'])} evaluations)")
    leave(report)


def _say(one: Evaluated) -> None:
    values = ", ".join(
        check.message if check.value is None else f"{check.name.removeprefix(one.label + '.')} {check.value:.4f}"
        for check in one.checks
    )
    log(f"{one.label}: {one.state} ({values})")
