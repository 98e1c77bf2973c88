"""vqa-train compare-models: parse, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vqa_train.cli.common import JsonOption, emit_json, number, print_line, print_table
from vqa_train.cli.gates import GatesOption, leave, show
from vqa_train.cli.options import DataRootOption, DatasetsOption, ManifestsOption, StoreOption


def compare_models(
    first: Annotated[str, typer.Argument(metavar="A", help="NAME[:VERSION|@ALIAS] or an exported X.onnx.")],
    second: Annotated[str, typer.Argument(metavar="B", help="What it is compared with, named likewise.")],
    features: StoreOption,
    dataset: DatasetsOption = None,
    split: Annotated[str, typer.Option(help="test, val, train or all.")] = "test",
    target: Annotated[list[str] | None, typer.Option(help="May be repeated. (default: all that both have)")] = None,
    metric: Annotated[
        list[str] | None, typer.Option(help="May be repeated; NAME_mapped too. (default: srocc, plcc, rmse)")
    ] = None,
    require: Annotated[
        str | None, typer.Option(metavar="better|not-worse", help="Of A, in each target and metric; else exit code 3.")
    ] = None,
    margin: Annotated[
        list[str] | None,
        typer.Option(metavar="[METRIC=]VALUE", help="In units of the metric; may be repeated. (default: 0)"),
    ] = None,
    alpha: Annotated[
        float | None, typer.Option(help="Of better; intervals have level 1 - alpha. (default: 0.05)")
    ] = None,
    min_coverage: Annotated[
        float | None, typer.Option(help="Share of the labelled rows that each model must score. (default: 0.99)")
    ] = None,
    resamples: Annotated[int | None, typer.Option(help="Of the paired bootstrap. (default: 2000)")] = None,
    gates: GatesOption = None,
    registry: Annotated[Path, typer.Option(help="Folder of registered models.")] = Path("model"),
    data_root: DataRootOption = None,
    manifests: ManifestsOption = None,
    json: JsonOption = None,
) -> None:
    """Is model A better than model B, or at least not worse? Both score the same rows of the store."""
    from vqa_train.pipelines.gates.compare_models import CompareModelsLimits, MeasuredOn
    from vqa_train.pipelines.gates.compare_models import compare_models as gate
    from vqa_train.pipelines.gates.config import resolve

    flags = {
        "require": require,
        "targets": target,
        "metrics": metric,
        "margin": _margin(margin),
        "alpha": alpha,
        "min_coverage": min_coverage,
        "resamples": resamples,
    }
    limits = resolve(CompareModelsLimits, "compare_models", gates, flags)
    result = gate(
        first,
        second,
        limits,
        MeasuredOn(
            features=features, datasets=dataset or (), split=split, data_root=data_root, manifests_dir=manifests
        ),
        registry=registry,
    )
    report = result.report
    emit_json(report.to_json(), json)
    if json != "-":
        rows = []
        for lead in result.leads:
            c, d = lead.comparison, lead.comparison.difference
            ahead = {"A": first, "B": second}.get(c.better or "", "")
            interval = f"{d.value:+.4f} [{d.low:+.4f}, {d.high:+.4f}]"
            rows.append([c.target, c.metric, *map(number, c.values), interval, number(d.p), number(lead.p), ahead])
        details = report.details
        print_table(
            f"A = {first}, B = {second}: {details['rows']} rows, paired bootstrap over {details['resampled']}",
            ["target", "metric", "A", "B", f"A - B ({details['level']:.0%} interval)", "p", "p Holm", "ahead"],
            rows,
        )
        for note in result.notes:
            print_line(note)
        if limits.require is not None:
            show(report)
    leave(report)


def _margin(values: list[str] | None) -> dict[str, float] | float | None:
    """One number for all metrics, or one per metric."""
    from vqa_train.core.errors import UsageError

    if not values:
        return None
    found: dict[str, float] = {}
    for value in values:
        metric, equals, text = value.rpartition("=")
        try:
            found[metric if equals else ""] = float(text)
        except ValueError:
            raise UsageError(f"--margin {value!r} is not a number", hint="0.01, or srocc=0.01 rmse=0.1") from None
    if "" in found and len(found) > 1:
        raise UsageError("--margin names one number for all and others beside it", hint="name each metric")
    return found.get("", found) if "" in found else found
