"""vqa-train fit: parse, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vqa_train.cli.common import JsonOption, emit_json, number, print_line, print_table


def fit(
    config: Annotated[Path, typer.Option("--config", metavar="YAML", help="Recipe, e.g. ai/configs/nss-mlp.yaml.")],
    features: Annotated[Path, typer.Option("--features", metavar="STORE", help="Folder of the feature store.")],
    output: Annotated[Path, typer.Option("--output", metavar="DIR", help="Run folder to write.")],
    dataset: Annotated[
        str | None, typer.Option(metavar="NAME|YAML", help="Dataset, instead of the one in the recipe.")
    ] = None,
    data_root: Annotated[Path | None, typer.Option(help="Folder that the manifest's paths start from.")] = None,
    manifests: Annotated[Path | None, typer.Option(help="Folder of manifests. [default: manifests]")] = None,
    missing_mos: Annotated[
        str | None, typer.Option(metavar="mask|drop|neutral", help="What a missing MOS does, instead of the recipe's.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed, instead of the recipe's.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier run in --output.")] = False,
    json: JsonOption = None,
) -> None:
    """Train a small head on cached features; the best weights on held-out groups are kept."""
    from vqa_train.core.config import parse
    from vqa_train.core.progress import progress
    from vqa_train.pipelines import fit as pipeline

    recipe = pipeline.load_fit_config(config)
    values = recipe.model_dump(mode="json", by_alias=True)
    if missing_mos is not None:
        values["missing_mos"] = missing_mos
    if seed is not None:
        values["train"]["seed"] = seed
    recipe = parse(pipeline.FitConfig, values, str(config))
    with progress("fit", recipe.train.epochs) as advance:

        def on_epoch(_: dict[str, Any]) -> None:
            advance()

        result = pipeline.fit(
            recipe,
            features=features,
            output=output,
            dataset=dataset,
            data_root=data_root,
            manifests_dir=manifests,
            overwrite=overwrite,
            on_epoch=on_epoch,
        )
    value = {
        "schema": "vqa-train/fit-report/1",
        "run": str(output),
        "rows": result.record.rows,
        "best_epoch": result.record.best_epoch,
        "metrics": {split: report.to_json() for split, report in result.metrics.items()},
    }
    emit_json(value, json)
    if json == "-":
        return
    rows = [
        [split, m.target, m.n, *(number(m.metrics[name].value) for name in ("srocc", "plcc", "rmse"))]
        for split, report in result.metrics.items()
        for m in report.results
    ]
    print_table(
        f"{output} (best epoch {result.record.best_epoch})", ["split", "target", "n", "SROCC", "PLCC", "RMSE"], rows
    )
    counts = result.record.rows
    print_line(f"test rows, not looked at: {counts['test']}; records without features: {counts['without_features']}")
