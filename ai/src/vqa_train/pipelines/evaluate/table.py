"""eval --table: stored predictions of any tool against labels in the same table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vqa_train.core.errors import UsageError
from vqa_train.core.plugins import did_you_mean
from vqa_train.core.provenance import RunProvenance, file_entry
from vqa_train.evaluation.pairs import Floats
from vqa_train.evaluation.report import EvalReport, evaluate
from vqa_train.evaluation.uncertainty import LabelUncertainty

if TYPE_CHECKING:
    import polars as pl

Direction = Literal["higher_is_better", "lower_is_better"]


@dataclass(frozen=True, kw_only=True)
class TableConfig:
    """Which columns of a table (.parquet or .csv) are labels, and how its predictions are made up.

    Attributes:
        path: the table, one row per video.
        labels: columns of the labels, one per target.
        predictions: columns of the predictions: one per label (`predicted_<label>` where empty), or with one label
            several that are fused. One column may hold a vector.
        columns: names of the entries of the vector column.
        fuse: prediction column, or entry of the vector -> weight; the prediction is their weighted sum.
        zscore: first shift and scale each of them to mean 0 and population standard deviation 1 over the set.
        group_column: content that hangs together; intervals are over whole groups.
        dataset_column: name of each row's dataset, where there are several.
        std_columns: label -> column of the standard deviation of its votes; `<label>_std` where there is such.
        votes: number of votes per label, or the column that has it, for the metrics that need confidence intervals.
        direction: which end of the labels is better.
        prediction_direction: the same of the predictions; None: that of the labels.
    """

    path: Path
    labels: tuple[str, ...]
    predictions: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    fuse: Mapping[str, float] = field(default_factory=dict)
    zscore: bool = False
    group_column: str | None = None
    dataset_column: str | None = None
    std_columns: Mapping[str, str] = field(default_factory=dict)
    votes: int | str | None = None
    direction: Direction = "higher_is_better"
    prediction_direction: Direction | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON values only, the path as the table's name."""
        return {**asdict(self), "path": self.path.name}


@dataclass(frozen=True)
class TableResult:
    """The report, what was compared, and the provenance."""

    report: EvalReport
    config: TableConfig
    provenance: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The report's document with the table's settings and the provenance beside it."""
        return {**self.report.to_json(), "table": self.config.to_json(), "run_provenance": self.provenance}


def evaluate_table(
    config: TableConfig, *, resamples: int = 1000, mapping: str = "logistic4", per_group: bool = False
) -> TableResult:
    """Measure stored predictions. Empty cells are missing predictions or labels and are counted.

    Raises:
        UsageError: no such file, not a table, no such column, or settings that do not go together.
    """
    frame = read_table(config.path)
    if not config.labels:
        raise UsageError("no label column named", hint=f"--label; columns: {', '.join(frame.columns)}")
    target = np.stack([numbers(frame, name, config.path) for name in config.labels], axis=1)
    predicted = _predictions(frame, config)
    if per_group and config.group_column is None:
        raise UsageError("--per-group needs a group column", hint="--group-column NAME")
    provenance = RunProvenance(
        entrypoint="eval",
        config={**config.to_json(), "resamples": resamples, "mapping": mapping, "per_group": per_group},
    )
    provenance.inputs["table"] = file_entry(config.path, "prediction-table")
    predictions = dict.fromkeys(config.labels, config.prediction_direction or config.direction)
    report = evaluate(
        predicted,
        target,
        config.labels,
        groups=texts(frame, config.group_column, config.path) if config.group_column else None,
        datasets=texts(frame, config.dataset_column, config.path) if config.dataset_column else None,
        resamples=resamples,
        mapping=mapping,
        uncertainty=_uncertainty(frame, config),
        directions=dict.fromkeys(config.labels, config.direction),
        prediction_directions=predictions,
        per_group=per_group,
    )
    provenance.counts = {"in": len(frame), "predicted": int(np.isfinite(predicted).all(axis=1).sum())}
    return TableResult(report, config, provenance.to_json())


def read_table(path: Path) -> pl.DataFrame:
    """A .parquet or .csv file.

    Raises:
        UsageError: no such file, another suffix, not readable, or no row.
    """
    import polars as pl

    if path.suffix not in (".parquet", ".csv"):
        raise UsageError(f"table {str(path)!r} must end in .parquet or .csv")
    if not path.is_file():
        raise UsageError(f"table {str(path)!r} does not exist")
    try:
        frame = pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_csv(path, infer_schema_length=None)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UsageError(f"table {str(path)!r} cannot be read: {str(error).splitlines()[0]}") from error
    if not len(frame):
        raise UsageError(f"table {str(path)!r} has no rows")
    return frame


def numbers(frame: pl.DataFrame, column: str, path: Path) -> Floats:
    """A numeric column as float64 (N,); empty cells are NaN.

    Raises:
        UsageError: no such column, or one that does not hold numbers.
    """
    import polars as pl

    found = _column(frame, column, path)
    if found.dtype == pl.Null:
        return np.full(len(found), np.nan)
    if not found.dtype.is_numeric():
        raise UsageError(f"column {column!r} of {path.name!r} holds {found.dtype}, expected numbers")
    return np.asarray(found.cast(pl.Float64).fill_null(float("nan")).to_numpy(), dtype=np.float64)


def texts(frame: pl.DataFrame, column: str, path: Path) -> list[str]:
    """A column of names, N; an empty cell is a name of its own, "(row 7)".

    Raises:
        UsageError: no such column, or one of vectors.
    """
    found = _column(frame, column, path)
    if found.dtype.is_nested():
        raise UsageError(f"column {column!r} of {path.name!r} holds {found.dtype}, expected names")
    return [f"(row {i})" if value is None else str(value) for i, value in enumerate(found.to_list())]


def _column(frame: pl.DataFrame, column: str, path: Path) -> pl.Series:
    if column not in frame.columns:
        hint = did_you_mean(column, frame.columns)
        raise UsageError(f"table {path.name!r} has no column {column!r}", hint=hint)
    return frame[column]


def _predictions(frame: pl.DataFrame, config: TableConfig) -> Floats:
    """(N, K)."""
    if config.fuse or len(config.predictions) > len(config.labels) or config.columns:
        if len(config.labels) != 1:
            raise UsageError(f"fused predictions are for one label, got {len(config.labels)}: {config.labels}")
        return _fused(frame, config)[:, None]
    names = config.predictions or tuple(f"predicted_{label}" for label in config.labels)
    if len(names) != len(config.labels):
        raise UsageError(f"got {len(names)} prediction columns for {len(config.labels)} labels", hint="one per label")
    branches = {name: branch for name in names for branch in _branches(frame, name, (), config.path).values()}
    return np.stack([_standardised(branches[name], config.zscore, name) for name in names], axis=1)


def _fused(frame: pl.DataFrame, config: TableConfig) -> Floats:
    """(N,) the weighted sum; NaN where any part is missing."""
    if not config.predictions:
        raise UsageError("--fuse needs the columns to fuse", hint="--prediction COLUMN, once or more")
    if config.columns and len(config.predictions) != 1:
        raise UsageError("--columns names the entries of one vector column", hint="give one --prediction")
    branches: dict[str, Floats] = {}
    for name in config.predictions:
        branches |= _branches(frame, name, config.columns, config.path)
    if not config.fuse:
        raise UsageError(
            f"{len(branches)} prediction columns and no weights", hint=f"--fuse {next(iter(branches))}=WEIGHT, ..."
        )
    total = np.zeros(len(frame))
    for name, weight in config.fuse.items():
        if name not in branches:
            raise UsageError(f"--fuse names {name!r}, no prediction column", hint=did_you_mean(name, list(branches)))
        if not np.isfinite(weight):
            raise UsageError(f"--fuse {name}={weight}: expected a finite weight")
        total += weight * _standardised(branches[name], config.zscore, name)
    return total


def _branches(frame: pl.DataFrame, column: str, names: tuple[str, ...], path: Path) -> dict[str, Floats]:
    """A prediction column, or the entries of a vector column, by name."""
    import polars as pl

    found = _column(frame, column, path)
    if not isinstance(found.dtype, pl.List | pl.Array):
        if names:
            raise UsageError(f"--columns names entries, and column {column!r} of {path.name!r} is no vector")
        return {column: numbers(frame, column, path)}
    listed = found.cast(pl.List(pl.Float64)) if isinstance(found.dtype, pl.Array) else found
    widths = listed.list.len().drop_nulls().unique().to_list()
    if len(widths) != 1:
        raise UsageError(
            f"column {column!r} of {path.name!r} holds vectors of {sorted(widths)} entries, expected one size"
        )
    width = widths[0]
    if not names and width == 1:
        names = (column,)
    if len(names) != width or len(set(names)) != width:
        raise UsageError(
            f"column {column!r} of {path.name!r} holds vectors of {width}, --columns names {len(set(names))} entries",
            hint="--columns first,second,...",
        )
    flat = pl.DataFrame({name: listed.list.get(i) for i, name in enumerate(names)})
    return {name: numbers(flat, name, path) for name in names}


def _standardised(values: Floats, zscore: bool, name: str) -> Floats:
    """Less their mean, over their population standard deviation, both of the finite values."""
    if not zscore:
        return values
    finite = values[np.isfinite(values)]
    if len(finite) == 0 or finite.std() == 0:
        raise UsageError(f"--zscore: prediction {name!r} is constant or empty")
    return np.asarray((values - finite.mean()) / finite.std(), dtype=np.float64)


def _uncertainty(frame: pl.DataFrame, config: TableConfig) -> dict[str, LabelUncertainty] | None:
    if config.votes is None:
        if config.std_columns:
            raise UsageError("--label-std needs the number of votes", hint="--votes NUMBER|COLUMN")
        return None
    if isinstance(config.votes, int):
        if config.votes < 2:
            raise UsageError(f"--votes must be at least 2, got {config.votes}")
        votes = np.full(len(frame), float(config.votes))
    else:
        votes = numbers(frame, config.votes, config.path)
    unknown = [label for label in config.std_columns if label not in config.labels]
    if unknown:
        raise UsageError(
            f"--label-std names {unknown[0]!r}, no label", hint=did_you_mean(unknown[0], list(config.labels))
        )
    columns = {label: config.std_columns.get(label, f"{label}_std") for label in config.labels}
    known = {label: name for label, name in columns.items() if label in config.std_columns or name in frame.columns}
    if not known:
        raise UsageError(
            f"--votes needs the standard deviation of the labels, and {config.path.name!r} has no column "
            f"{next(iter(columns.values()))!r}",
            hint="--label-std LABEL=COLUMN",
        )
    return {
        label: LabelUncertainty.from_votes(numbers(frame, name, config.path), votes) for label, name in known.items()
    }
