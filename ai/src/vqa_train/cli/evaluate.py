"""vqa-train eval: parse, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vqa_train.cli.common import JsonOption, emit_json, number, print_line, print_table

if TYPE_CHECKING:
    from vqa_train.evaluation.results import Estimate


def evaluate(
    model: Annotated[str, typer.Option("--model", metavar="ONNX|NAME", help="ONNX file, or a registered name.")],
    features: Annotated[Path, typer.Option("--features", metavar="STORE", help="Folder of the feature store.")],
    dataset: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME|YAML", help="Dataset; may be repeated. [default: the one trained on]"),
    ] = None,
    split: Annotated[str, typer.Option(help="test, val, train or all.")] = "test",
    data_root: Annotated[Path | None, typer.Option(help="Folder that the manifest's paths start from.")] = None,
    manifests: Annotated[Path | None, typer.Option(help="Folder of manifests. [default: manifests]")] = None,
    registry: Annotated[Path, typer.Option(help="Folder of registered models.")] = Path("model"),
    predictions: Annotated[
        Path | None, typer.Option(metavar="CSV|PARQUET", help="Also write a table of the predictions.")
    ] = None,
    resamples: Annotated[int, typer.Option(min=0, help="Bootstrap resamples for the 95 % intervals.")] = 1000,
    json: JsonOption = None,
) -> None:
    """Measure a model on cached features: SROCC, PLCC, KROCC, RMSE, raw and after the VQEG 4-parameter logistic."""
    from vqa_train.pipelines.evaluate import evaluate_model

    result = evaluate_model(
        model,
        features=features,
        datasets=dataset or [],
        split=split,
        data_root=data_root,
        manifests_dir=manifests,
        registry=registry,
        predictions=predictions,
        resamples=resamples,
    )
    emit_json(result.to_json(), json)
    if json == "-":
        return
    rows = []
    for m in result.report.results:
        cells = [
            _estimate(m.metrics[name]) for name in ("srocc", "plcc", "plcc_mapped", "krocc", "rmse", "rmse_mapped")
        ]
        rows.append([m.dataset, m.target, m.n, *cells, f"{m.coverage:.1%}"])
    columns = ["dataset", "target", "n", "SROCC", "PLCC", "PLCC mapped", "KROCC", "RMSE", "RMSE mapped", "coverage"]
    print_table(f"{model}, split {split}, 95 % intervals over {result.report.resampled}", columns, rows)
    for m in result.report.results:
        for note in m.notes:
            print_line(f"{m.dataset}/{m.target}: {note}")


def _estimate(estimate: Estimate) -> str:
    interval = estimate.interval
    if not interval.resamples:
        return number(estimate.value)
    return f"{number(estimate.value)} [{number(interval.low, 3)}, {number(interval.high, 3)}]"
