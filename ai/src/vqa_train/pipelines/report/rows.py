"""Which predictions a report is drawn from: rows that the model behind each prediction was not fitted on, if any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.errors import UsageError
from vqa_train.core.hashing import sha256_bytes
from vqa_train.pipelines import runs

if TYPE_CHECKING:
    import polars as pl

Floats = NDArray[np.float64]
HELD_OUT = "held-out"
CHOICES = (HELD_OUT, "test", "val", "train", "all")
_SOURCES = {
    HELD_OUT: "predictions of videos while they were held out, by models that never saw them",
    "test": "videos of the test split, which took no part in training",
    "val": "videos of the validation split, which chose when training stopped: the numbers are a little too good",
    "train": "videos that the model was fitted on: the numbers say nothing about new videos",
    "all": "all videos, those that the model was fitted on too: the numbers are too good for new videos",
}
_SEEN = "which the model was fitted on, wholly or in part: the numbers are too good for new videos"
Fitted = Literal["rows", "dataset", "others"]
_OPTIMISTIC = ("val", "train", "all")


@dataclass(frozen=True, kw_only=True)
class ScoredRows:
    """N predictions with what they are compared with.

    Attributes:
        choice: one of CHOICES.
        what: the rows in words, for a caption.
        optimistic: whether the numbers are better than those of new videos will be.
        file: of the run folder, that they come from.
        targets: K names.
        ids, datasets, sha256, groups: (N,) text.
        folds: (N,) name of the fold that held the row out; empty where there are none.
        label, predicted: float64 (N, K); NaN where there is none.
        spread: float64 (N, K), or None.
    """

    choice: str
    what: str
    optimistic: bool
    file: str
    targets: tuple[str, ...]
    ids: NDArray[np.str_]
    datasets: NDArray[np.str_]
    sha256: NDArray[np.str_]
    groups: NDArray[np.str_]
    folds: NDArray[np.str_]
    label: Floats
    predicted: Floats
    spread: Floats | None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def fold_names(self) -> list[str]:
        """Folds in the order of the file."""
        return list(dict.fromkeys(self.folds.tolist()))

    @property
    def keys(self) -> list[str]:
        """(N,) dataset and id of each row, unique per video of a dataset."""
        return [f"{dataset}\x1f{name}" for dataset, name in zip(self.datasets, self.ids, strict=True)]

    def key_of(self, row: int) -> str:
        """`keys` of one row."""
        return f"{self.datasets[row]}\x1f{self.ids[row]}"

    def take(self, rows: NDArray[Any]) -> ScoredRows:
        """Only these rows, in this order."""
        return replace(
            self,
            ids=self.ids[rows],
            datasets=self.datasets[rows],
            sha256=self.sha256[rows],
            groups=self.groups[rows],
            folds=self.folds[rows] if len(self.folds) else self.folds,
            label=self.label[rows],
            predicted=self.predicted[rows],
            spread=None if self.spread is None else self.spread[rows],
        )

    def once(self) -> ScoredRows:
        """One prediction per video: that of the first fold that held it out. No average over folds, which would look
        better than any of the models is."""
        _, first = np.unique(np.asarray(self.keys, dtype=np.str_), return_index=True)
        return self.take(np.sort(first)) if len(first) < len(self) else self

    def known(self, target: int) -> NDArray[np.bool_]:
        """(N,) rows with a label and a prediction."""
        return np.isfinite(self.label[:, target]) & np.isfinite(self.predicted[:, target])


def load_rows(folder: Path, record: runs.RunRecord, choice: str | None = None) -> ScoredRows:
    """The rows of a run.

    Args:
        folder: of the run, whose hashes have been checked.
        record: of the run.
        choice: which; None takes the first that there is of held-out rows, test, validation, training rows.

    Raises:
        UsageError: an unknown choice, or one that the run has no rows of.
    """
    import polars as pl

    if choice is not None and choice not in CHOICES:
        raise UsageError(f"unknown rows {choice!r}", hint=f"one of: {', '.join(CHOICES)}")
    if choice in (None, HELD_OUT) and runs.HELD_OUT_FILE in record.files:
        frame = pl.read_parquet(folder / runs.HELD_OUT_FILE)
        return _scored(_off_diagonal(folder, record, frame), record.targets, HELD_OUT, runs.HELD_OUT_FILE)
    frame = pl.read_parquet(folder / runs.PREDICTIONS_FILE)
    there = _splits(frame, record.targets)
    if choice is None:
        choice = next((split for split in ("test", "val", "train") if split in there), "all")
    elif choice != "all" and choice not in there:
        raise UsageError(f"run {str(folder)!r} has no {choice} rows", hint=f"it has: {', '.join([*there, 'all'])}")
    if choice != "all":
        frame = frame.filter(pl.col("split") == choice)
    return _scored(frame, record.targets, choice, runs.PREDICTIONS_FILE)


def from_frame(frame: pl.DataFrame, targets: Sequence[str], choice: str, fitted_on: Fitted) -> ScoredRows:
    """Rows of a table that `eval` wrote: the columns of predictions.parquet.

    Args:
        frame: of the rows of one split.
        targets: K names.
        choice: the split.
        fitted_on: `rows` where the model was fitted on these very rows or on some of them, `dataset` where on other
            rows of their dataset, `others` where on other datasets.
    """
    scored = _scored(frame, targets, choice, "this evaluation")
    if fitted_on == "others":
        return replace(scored, what="videos of a dataset that the model was not fitted on", optimistic=False)
    if fitted_on == "rows" and not scored.optimistic:
        return replace(scored, what=f"rows of the {choice} split, {_SEEN}", optimistic=True)
    return scored


def spread_out(keys: Sequence[str], most: int) -> NDArray[np.int64]:
    """Up to `most` row numbers, ascending, drawn by hash of their keys: the same rows whatever their order."""
    if len(keys) <= most:
        return np.arange(len(keys))
    order = sorted(range(len(keys)), key=lambda i: sha256_bytes(keys[i].encode("utf-8", "replace")))
    return np.sort(np.asarray(order[:most], dtype=np.int64))


def _off_diagonal(folder: Path, record: runs.RunRecord, frame: pl.DataFrame) -> pl.DataFrame:
    """Without the folds of a cross-dataset matrix that are trained on the dataset they are tested on."""
    import polars as pl

    from vqa_train.core.config import load_json

    if runs.PROTOCOL_FILE not in record.files:
        return frame
    folds = load_json(folder / runs.PROTOCOL_FILE, "protocol report").get("folds", [])
    own = [fold["name"] for fold in folds if fold.get("cell") and fold["cell"][0] == fold["cell"][1]]
    rest = frame.filter(~pl.col("fold").is_in(own))
    return rest if len(rest) else frame


def _splits(frame: pl.DataFrame, targets: Sequence[str]) -> list[str]:
    """Splits that have a label."""
    import polars as pl

    labelled = frame.filter(pl.any_horizontal(*(pl.col(t).is_not_null() & pl.col(t).is_not_nan() for t in targets)))
    found = set(labelled["split"].drop_nulls().to_list())
    return [split for split in ("train", "val", "test") if split in found]


def _scored(frame: pl.DataFrame, targets: Sequence[str], choice: str, file: str) -> ScoredRows:
    def text(name: str) -> NDArray[np.str_]:
        if name not in frame.columns:
            return np.full(len(frame), "", dtype="<U1")
        return np.asarray(["" if value is None else str(value) for value in frame[name].to_list()], dtype=np.str_)

    def numbers(prefix: str) -> Floats:
        columns = [frame[f"{prefix}{target}"].to_numpy().astype(np.float64) for target in targets]
        return np.stack(columns, axis=1) if columns else np.zeros((len(frame), 0))

    spread = numbers("spread_") if all(f"spread_{target}" in frame.columns for target in targets) else None
    groups, sha256 = text("group"), text("video_sha256")
    return ScoredRows(
        choice=choice,
        what=_SOURCES[choice],
        optimistic=choice in _OPTIMISTIC,
        file=file,
        targets=tuple(targets),
        ids=text("id"),
        datasets=text("dataset"),
        sha256=sha256,
        groups=np.where(groups == "", sha256, groups) if len(frame) else groups,
        folds=text("fold") if "fold" in frame.columns else np.zeros(0, dtype=np.str_),
        label=numbers(""),
        predicted=numbers("predicted_"),
        spread=spread,
    )
