"""Predictions of one model as `compare` takes them: out of a run folder, or out of a table of any tool."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.config import load_json
from vqa_train.core.errors import UsageError
from vqa_train.evaluation.pairs import Floats
from vqa_train.pipelines import runs
from vqa_train.pipelines.evaluate.table import numbers, read_table, texts

if TYPE_CHECKING:
    import polars as pl

_PREFIX = "predicted_"
_ONE_FOLD = ""


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """One model's predictions, N rows.

    Attributes:
        name: of the model.
        path: the table.
        keys: (N,) what row each is: its fold, its dataset, its id. Unique.
        folds: (N,) "" where there are none.
        groups: (N,) or None.
        predicted, labels: target -> (N,), NaN where missing.
        test_share: n_test / n_train of the splits, where the run says so.
        what: in words, for the report: "held-out rows of 100 folds".
    """

    name: str
    path: Path
    keys: tuple[tuple[str, str, str], ...]
    folds: NDArray[np.str_]
    groups: tuple[str, ...] | None
    predicted: Mapping[str, Floats]
    labels: Mapping[str, Floats]
    test_share: float | None
    what: str

    @property
    def has_folds(self) -> bool:
        """More than one fold."""
        return len(np.unique(self.folds)) > 1


def read_predictions(name: str, path: Path, split: str) -> Predictions:
    """Read a run folder (held-out rows of its folds, else the rows of `split`), or a table.

    Folds of a cross-dataset matrix that are tested on the dataset they are trained on are left out.

    A table has a column `id`, and per target its label and `predicted_<target>`; `fold`, `dataset`, `group` and `split`
    are used where they are there.

    Args:
        name: of the model.
        path: run folder, .parquet or .csv.
        split: rows of a table with a column `split`: "train", "val", "test" or "all".

    Raises:
        UsageError: no such file or columns, an id twice, no row of the split.
        RunError: a run folder that is unfinished or changed.
    """
    share: float | None = None
    own: list[str] = []
    table = path
    if path.is_dir():
        record = runs.open_run(path)
        held_out = runs.HELD_OUT_FILE in record.files
        table = path / (runs.HELD_OUT_FILE if held_out else runs.PREDICTIONS_FILE)
        if held_out and runs.PROTOCOL_FILE in record.files:
            share, own = _protocol(path / runs.PROTOCOL_FILE)
    frame = read_table(table)
    if own:
        import polars as pl

        frame = frame.filter(~pl.col("fold").is_in(own))
        if not len(frame):
            raise UsageError(
                f"run {str(path)!r} has no held-out rows: each fold is tested on the dataset it is trained on",
                hint="fit with a protocol that holds rows out",
            )
    targets = [column for column in frame.columns if f"{_PREFIX}{column}" in frame.columns]
    if not targets:
        raise UsageError(
            f"table {str(table)!r} has no target: a column and one of the same name after {_PREFIX!r}",
            hint=f"columns: {', '.join(frame.columns)}",
        )
    folds = texts(frame, "fold", table) if "fold" in frame.columns else [_ONE_FOLD] * len(frame)
    what = f"held-out rows of {len(set(folds))} folds"
    if "fold" not in frame.columns:
        what = "rows"
        if "split" in frame.columns and split != "all":
            import polars as pl

            frame = frame.filter(pl.col("split") == split)
            what = f"rows of split {split!r}"
            if not len(frame):
                raise UsageError(f"table {str(table)!r} has no rows of split {split!r}", hint="choose another --split")
        folds = [_ONE_FOLD] * len(frame)
    if len(set(folds)) == 1:
        # A single split is no repetition: rows are what can be compared, and its name need not match.
        folds = [_ONE_FOLD] * len(folds)
    return Predictions(
        name=name,
        path=table,
        keys=_keys(frame, folds, table),
        folds=np.asarray(folds, dtype=np.str_),
        groups=_groups(frame, table),
        predicted={target: numbers(frame, f"{_PREFIX}{target}", table) for target in targets},
        labels={target: numbers(frame, target, table) for target in targets},
        test_share=share,
        what=what,
    )


def _keys(frame: pl.DataFrame, folds: list[str], table: Path) -> tuple[tuple[str, str, str], ...]:
    datasets = texts(frame, "dataset", table) if "dataset" in frame.columns else [""] * len(frame)
    keys = tuple(zip(folds, datasets, texts(frame, "id", table), strict=True))
    if len(set(keys)) < len(keys):
        twice = Counter(keys).most_common(1)[0][0]
        where = f" of fold {twice[0]!r}" if twice[0] else ""
        raise UsageError(f"table {str(table)!r} has id {twice[2]!r}{where} twice")
    return keys


def _groups(frame: pl.DataFrame, table: Path) -> tuple[str, ...] | None:
    if "group" not in frame.columns or frame["group"].null_count() == len(frame):
        return None
    return tuple(texts(frame, "group", table))


def _protocol(path: Path) -> tuple[float | None, list[str]]:
    """Mean n_test / n_train over the folds that hold rows out, and the names of those that do not."""
    folds = load_json(path, "protocol report").get("folds", [])
    own = [fold["name"] for fold in folds if fold.get("cell") and fold["cell"][0] == fold["cell"][1]]
    shares = [
        _size(fold.get("test")) / _size(fold.get("train"))
        for fold in folds
        if fold.get("name") not in own and _size(fold.get("train"))
    ]
    return (float(np.mean(shares)) if shares else None), own


def _size(rows: object) -> int:
    return len(rows) if isinstance(rows, list) else rows if isinstance(rows, int) else 0
