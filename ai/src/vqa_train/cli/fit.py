"""vqa-train fit: parse, call, print."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vqa_train.cli.common import EXIT_INTERRUPTED, JsonOption, emit_json, log, number, print_line, print_table
from vqa_train.cli.options import (
    DataRootOption,
    DatasetsOption,
    DeviceOption,
    InputsOption,
    ManifestsOption,
    StoreOption,
    ThreadsOption,
)

if TYPE_CHECKING:
    from vqa_train.core.progress import Advance
    from vqa_train.pipelines.fit.run import FitConfig, FitResult

_SHOWN = {"srocc": "SROCC", "plcc": "PLCC", "krocc": "KROCC", "rmse": "RMSE", "mae": "MAE", "vquala": "VQualA"}


def fit(
    config: Annotated[
        Path,
        typer.Option(
            "--config", metavar="YAML|NAME", help="Recipe: a file, or one that comes along (features, nss-mlp)."
        ),
    ],
    features: StoreOption,
    output: Annotated[Path, typer.Option("--output", metavar="DIR", help="Run folder to write.")],
    inputs: InputsOption = None,
    dataset: DatasetsOption = None,
    data_root: DataRootOption = None,
    manifests: ManifestsOption = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            metavar="KIND[:name=value,...]",
            help="splits, hash, kfold:k=5, repeated:repeats=100,test_fraction=0.2, leave_one_dataset_out, "
            "leave_one_group_out:source=COLUMN, cross_dataset or file:PATH, instead of the recipe's.",
        ),
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="Heads per member, which are averaged.")] = None,
    calibration: Annotated[
        str | None, typer.Option(metavar="cross|split|none", help="Prediction intervals, instead of the recipe's.")
    ] = None,
    missing_mos: Annotated[
        str | None, typer.Option(metavar="mask|drop|neutral", help="What a missing MOS does, instead of the recipe's.")
    ] = None,
    missing_features: Annotated[
        str | None, typer.Option(metavar="drop|mask", help="What a record without some features does.")
    ] = None,
    memory_limit: Annotated[
        float | None, typer.Option(metavar="GIB", help="Features above this stay in a file and are streamed.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of every member, instead of the recipe's.")] = None,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = 1,
    init_from: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Run folder whose weights the final model starts from.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted fit into --output.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier run in --output.")] = False,
    json: JsonOption = None,
) -> None:
    """Train small heads on cached features and measure them by a protocol."""
    from vqa_train.core.files import display_path
    from vqa_train.core.progress import progress
    from vqa_train.pipelines.fit import run as pipeline

    recipe = _recipe(config, inputs, protocol, seeds, calibration, missing_mos, missing_features, memory_limit, seed)
    try:
        with ExitStack() as stack:
            bar: list[Advance] = []
            result = pipeline.fit(
                recipe,
                features=features,
                output=output,
                dataset=dataset,
                data_root=data_root,
                manifests_dir=manifests,
                overwrite=overwrite,
                options=pipeline.FitOptions(
                    device=device,
                    threads=threads,
                    resume=resume,
                    init_from=init_from,
                    on_start=lambda epochs: bar.append(stack.enter_context(progress("fit", epochs))),
                    on_epoch=lambda _name, _entry: bar[0](),
                    warn=lambda text: log(f"warning: {text}"),
                ),
            )
    except KeyboardInterrupt:
        partial = pipeline.partial_folder(output)
        there = f"what was trained is in {display_path(partial)}; the same command with --resume goes on"
        log(f"interrupted: {there if partial.is_dir() else 'nothing had been trained'}")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    emit_json(_report(output, result), json)
    if json != "-":
        _print(output, result)


def _recipe(
    path: Path,
    inputs: list[str] | None,
    protocol: str | None,
    seeds: int | None,
    calibration: str | None,
    missing_mos: str | None,
    missing_features: str | None,
    memory_limit: float | None,
    seed: int | None,
) -> FitConfig:
    """The recipe with what the command line says instead."""
    from vqa_train.core.errors import UsageError
    from vqa_train.pipelines.fit import run as pipeline
    from vqa_train.pipelines.table import parse_inputs

    values: dict[str, Any] = pipeline.load_fit_config(path).model_dump(mode="json", by_alias=True)
    if inputs:
        values["features"] = {name: found.model_dump() for name, found in parse_inputs(inputs).items()}
    for name, value in (
        ("protocol", protocol),
        ("seeds", seeds),
        ("missing_mos", missing_mos),
        ("missing_features", missing_features),
        ("memory_limit", memory_limit),
    ):
        if value is not None:
            values[name] = value
    if calibration == "none":
        values["calibration"] = None
    elif calibration is not None:
        if calibration not in ("cross", "split"):
            raise UsageError(f"--calibration {calibration!r} must be cross, split or none")
        values["calibration"] = {**(values["calibration"] or {}), "method": calibration}
    if seed is not None:
        for member in values["members"] or [values]:
            member["train"]["seed"] = seed
    return pipeline.parse_fit_config(values, str(path))


def _report(output: Path, result: FitResult) -> dict[str, Any]:
    record = result.record
    return {
        "schema": "vqa-train/fit-report/1",
        "run": str(output),
        "rows": record.rows,
        "best_epoch": record.best_epoch,
        "metrics": {split: report.to_json() for split, report in result.metrics.items()},
        "protocol": result.protocol,
        "calibration": result.calibration,
        "warnings": record.warnings,
    }


def _print(output: Path, result: FitResult) -> None:
    if result.protocol is None:
        rows = [
            [split, m.target, m.dataset, m.n, *(number(m.metrics[name].value) for name in ("srocc", "plcc", "rmse"))]
            for split, report in result.metrics.items()
            for m in report.results
        ]
        columns = ["split", "target", "dataset", "n", "SROCC", "PLCC", "RMSE"]
        print_table(f"{output} (best epoch {result.record.best_epoch})", columns, rows)
    else:
        _print_protocol(output, result.protocol)
    if result.calibration is not None:
        level = result.calibration["level"]
        rows = [
            [target, number(entry["half_width"]), number(entry["coverage"]), entry["coverage_n"], entry["note"]]
            for target, entry in result.calibration["targets"].items()
        ]
        print_table(f"intervals of level {level:g}", ["target", "half width", "coverage", "n", "note"], rows)
    counts = result.record.rows
    held = f"test rows, not looked at: {counts['test']}; " if result.protocol is None or counts["test"] else ""
    print_line(f"{held}records without features: {counts['without_features']}")
    for place in result.logged_to:
        print_line(f"logged: {place}")


def _print_protocol(output: Path, report: dict[str, Any]) -> None:
    folds = report["folds"]

    def row(summary: dict[str, dict[str, Any]]) -> list[str]:
        # Error and linear correlation after the mapping, as the field reports them.
        found = [summary.get(f"{name}_mapped", summary.get(name)) for name in _SHOWN]
        return [f"{number(s['median'])} ± {number(s['std'])}" if s else "" for s in found]

    title = f"{output}: held-out rows of {len(folds)} folds, median ± std, logistic mapping"
    print_table(
        title, ["target", *_SHOWN.values()], [[target, *row(summary)] for target, summary in report["summary"].items()]
    )
    for target in report["summary"] if "cells" in report else ():
        cells = [
            [cell["train"], cell["test"], *row(cell["summary"][target])]
            for cell in report["cells"]
            if target in cell["summary"]
        ]
        print_table(f"{target}: trained on, tested on", ["trained on", "tested on", *_SHOWN.values()], cells)
