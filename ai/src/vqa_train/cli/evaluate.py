"""vqa-train eval: parse, call, print."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vqa_train.cli.common import JsonOption, emit_json, log, number, print_line, print_table
from vqa_train.core.locations import location

if TYPE_CHECKING:
    from vqa_train.evaluation.report import EvalReport
    from vqa_train.evaluation.results import Estimate, TargetResult
    from vqa_train.pipelines.evaluate.table import TableConfig

_MODEL, _TABLE = "Of a model on cached features", "Of stored predictions in a table"
_COLUMNS = {
    "srocc": "SROCC",
    "plcc": "PLCC",
    "plcc_mapped": "PLCC mapped",
    "krocc": "KROCC",
    "rmse": "RMSE",
    "rmse_mapped": "RMSE mapped",
}
_UNCERTAIN_COLUMNS = {
    "outlier_ratio_mapped": "outlier ratio mapped",
    "rmse_star_mapped": "RMSE* mapped",
    "auc_ds": "AUC diff/similar",
    "auc_bw": "AUC better/worse",
    "c0": "C0",
}


def evaluate(
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="ONNX|NAME", help="ONNX file, or a registered name.", rich_help_panel=_MODEL),
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option(
            "--features",
            metavar="STORE",
            parser=location,
            help="Feature store: a folder or a URL (s3://...).",
            rich_help_panel=_MODEL,
        ),
    ] = None,
    dataset: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|YAML", help="May be repeated. (default: the one trained on)", rich_help_panel=_MODEL
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="test, val, train or all.", rich_help_panel=_MODEL)] = "test",
    data_root: Annotated[
        Path | None,
        typer.Option(metavar="DIR", parser=location, help="Where the manifest's paths start.", rich_help_panel=_MODEL),
    ] = None,
    manifests: Annotated[
        Path | None, typer.Option(help="Folder of manifests. (default: manifests)", rich_help_panel=_MODEL)
    ] = None,
    registry: Annotated[Path, typer.Option(help="Folder of registered models.", rich_help_panel=_MODEL)] = Path(
        "model"
    ),
    predictions: Annotated[
        Path | None,
        typer.Option(metavar="CSV|PARQUET", help="Also write a table of the predictions.", rich_help_panel=_MODEL),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(metavar="CSV|PARQUET", help="Labels and predictions, a row per video.", rich_help_panel=_TABLE),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="Column of a label; once per target.", rich_help_panel=_TABLE),
    ] = None,
    prediction: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN",
            help="Column of predictions: one per label, or one or several (or one of vectors) to fuse. "
            "(default: predicted_LABEL)",
            rich_help_panel=_TABLE,
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(metavar="NAME,NAME,...", help="Names of a vector column's entries.", rich_help_panel=_TABLE),
    ] = None,
    fuse: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=WEIGHT", help="Predict the weighted sum; may be repeated.", rich_help_panel=_TABLE),
    ] = None,
    zscore: Annotated[
        bool,
        typer.Option("--zscore", help="Standardise each prediction column over the set first.", rich_help_panel=_TABLE),
    ] = False,
    group_column: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Content; intervals are over whole groups.", rich_help_panel=_TABLE),
    ] = None,
    dataset_column: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Each row's dataset.", rich_help_panel=_TABLE)
    ] = None,
    label_std: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LABEL=COLUMN", help="Standard deviation of votes. (default: LABEL_std)", rich_help_panel=_TABLE
        ),
    ] = None,
    lower_is_better: Annotated[
        bool,
        typer.Option("--lower-is-better", help="The labels are, as DMOS; so are predictions.", rich_help_panel=_TABLE),
    ] = False,
    opposed: Annotated[
        bool,
        typer.Option(
            "--opposed", help="Predictions run against the labels: VMAF against DMOS.", rich_help_panel=_TABLE
        ),
    ] = False,
    mapping: Annotated[
        str, typer.Option(help="Fitted before the mapped values: logistic4, logistic5, linear, none.")
    ] = "logistic4",
    per_group: Annotated[bool, typer.Option("--per-group", help="Also results for every group.")] = False,
    votes: Annotated[
        str | None,
        typer.Option(metavar="NUMBER|COLUMN", help="Votes per label: gives outlier ratio, RMSE* and pair AUCs."),
    ] = None,
    resamples: Annotated[int, typer.Option(min=0, help="Bootstrap resamples for the 95 % intervals.")] = 1000,
    json: JsonOption = None,
) -> None:
    """Measure a model, or stored predictions: SROCC, PLCC, KROCC and RMSE, raw and mapped; --json has every metric."""
    from vqa_train.core.errors import UsageError

    if (model is None) == (table is None):
        raise UsageError("name what to measure", hint="either --model with --features, or --table with --label")
    result: Any
    if table is not None:
        from vqa_train.pipelines.evaluate.table import TableConfig, evaluate_table

        model_options = {"--features": features, "--dataset": dataset, "--predictions": predictions}
        _refuse([name for name, value in model_options.items() if value], "--table")
        config: TableConfig = TableConfig(
            path=table,
            labels=tuple(label or ()),
            predictions=tuple(prediction or ()),
            columns=tuple(name.strip() for name in columns.split(",")) if columns else (),
            fuse={name: _weight(name, value) for name, value in _pairs("--fuse", fuse).items()},
            zscore=zscore,
            group_column=group_column,
            dataset_column=dataset_column,
            std_columns=_pairs("--label-std", label_std),
            votes=int(votes) if votes and votes.isdecimal() else votes,
            direction="lower_is_better" if lower_is_better else "higher_is_better",
            prediction_direction=_other(lower_is_better) if opposed else None,
        )
        result = evaluate_table(config, resamples=resamples, mapping=mapping, per_group=per_group)
        title = f"{table}"
    else:
        table_options = {
            "--label": label, "--prediction": prediction, "--columns": columns, "--fuse": fuse, "--zscore": zscore,
            "--group-column": group_column, "--dataset-column": dataset_column, "--label-std": label_std,
            "--lower-is-better": lower_is_better, "--opposed": opposed,
        }  # fmt: skip
        _refuse([name for name, value in table_options.items() if value], "--model")
        if features is None:
            raise UsageError("--model needs --features", hint="name the folder of the feature store")
        if votes is not None and not votes.isdecimal():
            raise UsageError(f"--votes must be a number with --model, got {votes!r}")
        # Here, not above: it loads torch, and wrong usage need not wait for that.
        from vqa_train.pipelines.evaluate.model import evaluate_model

        result = evaluate_model(
            str(model),
            features=features,
            datasets=dataset or [],
            split=split,
            data_root=data_root,
            manifests_dir=manifests,
            registry=registry,
            predictions=predictions,
            resamples=resamples,
            mapping=mapping,
            per_group=per_group,
            votes=int(votes) if votes else None,
        )
        title = f"{model}, split {split}"
        for warning in result.warnings:
            log(f"warning: {warning}")
    emit_json(result.to_json(), json)
    if json != "-":
        _print(title, result.report)


def _refuse(given: list[str], other: str) -> None:
    from vqa_train.core.errors import UsageError

    if given:
        raise UsageError(f"{', '.join(given)} cannot go with {other}")


def _pairs(option: str, values: list[str] | None) -> dict[str, str]:
    from vqa_train.core.errors import UsageError

    pairs: dict[str, str] = {}
    for value in values or ():
        name, equals, rest = value.rpartition("=")
        if not equals or not name or not rest:
            raise UsageError(f"{option} {value!r}: expected NAME=VALUE")
        if name in pairs:
            raise UsageError(f"{option} names {name!r} twice")
        pairs[name] = rest
    return pairs


def _weight(name: str, value: str) -> float:
    from vqa_train.core.errors import UsageError

    try:
        return float(value)
    except ValueError as error:
        raise UsageError(f"--fuse {name}={value}: expected a number after '='") from error


def _other(lower_is_better: bool) -> Any:
    return "higher_is_better" if lower_is_better else "lower_is_better"


def _print(title: str, report: EvalReport) -> None:
    names = {name: text for name, text in _COLUMNS.items() if any(name in m.metrics for m in report.results)}
    for name, text in _UNCERTAIN_COLUMNS.items():
        found = [m.metrics[name].value for m in report.results if name in m.metrics]
        if not all(map(math.isnan, found)):
            names[name] = text
    grouped = any(m.group is not None for m in report.results)
    covered = any(m.intervals is not None for m in report.results)
    rows = []
    for m in report.results:
        cells = [_estimate(m.metrics[name]) for name in names]
        where = [m.dataset, *([m.group or ""] if grouped else []), m.target, m.n]
        rows.append([*where, *cells, number(m.coverage * 100, 1) + "%", *([_held(m)] if covered else [])])
    columns = ["dataset", *(["group"] if grouped else []), "target", "n", *names.values(), "coverage"]
    mapped = "" if report.mapping == "none" else f", mapped by {report.mapping}"
    print_table(
        f"{title}, 95 % intervals over {report.resampled}{mapped}",
        [*columns, *(["labels in interval"] if covered else [])],
        rows,
    )
    for m in report.results:
        for note in m.notes:
            print_line(f"{m.dataset}{f'/{m.group}' if m.group is not None else ''}/{m.target}: {note}")


def _held(result: TargetResult) -> str:
    return "" if result.intervals is None else number(result.intervals.share * 100, 1) + "%"


def _estimate(estimate: Estimate) -> str:
    interval = estimate.interval
    if not interval.resamples:
        return number(estimate.value)
    return f"{number(estimate.value)} [{number(interval.low, 3)}, {number(interval.high, 3)}]"
