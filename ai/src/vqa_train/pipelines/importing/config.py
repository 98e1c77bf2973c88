"""What an import of features was asked for, and what it did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vqa_train.core.errors import ExitCode
from vqa_train.core.files import display_path
from vqa_train.core.locations import is_place

REPORT_SCHEMA = "vqa-train/import-report/1"


@dataclass(frozen=True, kw_only=True)
class ImportConfig:
    """A feature file, what its columns mean, and where its rows go.

    Attributes:
        file: Parquet, CSV, npz or .mat.
        name: of the feature set; stands where a backbone's name would.
        output: the feature store.
        id_column: the video's id; None for `video_id`.
        number_rows: the file has no ids; its row numbers, from 1, are.
        features_column: one vector (or one number) per row; None for `features`, unless `dim_columns` are given.
        dim_columns: names, globs (`f_*`) and ranges (`f_0..f_59`) of columns of numbers.
        feature_names: names of the dimensions; empty for the columns' own, where there are several.
        labels: target -> column; None for `mos`, where the file has it.
        std: target -> column of the standard deviation of its opinions; None for `mos_std`, where the file has it.
        group_column: content that must not straddle a split; None for `content_id`, where the file has it; "" for none.
        split_column, prompt_column: as in a dataset manifest.
        dataset: whose ids these are; None for `name`.
        videos: manifest (name or path) of the dataset whose videos these are; their own sha256 are then the keys.
        data_root, manifests_dir: where that dataset is looked for.
        lower_is_better: for DMOS.
        mos_range: target -> lowest and highest possible score ("" for every target); else what was observed.
        license: of the features; label_license: of the labels and videos; None for "unknown".
        overwrite_labels: replace other labels that the store holds for the dataset.
        append: the features mean the same as those of the one imported set `name` that is there: they go into it.
    """

    file: Path
    name: str
    output: Path
    id_column: str | None = None
    number_rows: bool = False
    features_column: str | None = None
    dim_columns: tuple[str, ...] = ()
    feature_names: tuple[str, ...] = ()
    labels: Mapping[str, str] | None = None
    std: Mapping[str, str] | None = None
    group_column: str | None = None
    split_column: str | None = None
    prompt_column: str | None = None
    dataset: str | None = None
    videos: str | None = None
    data_root: Path | None = None
    manifests_dir: Path | None = None
    lower_is_better: bool = False
    mos_range: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    license: str | None = None
    label_license: str | None = None
    overwrite_labels: bool = False
    append: bool = False

    @property
    def dataset_name(self) -> str:
        """Whose ids these are."""
        return self.dataset or self.name.partition("@")[0]

    def to_json(self) -> dict[str, Any]:
        """JSON form, for provenance."""
        paths = {name: display_path(path) for name, path in vars(self).items() if is_place(path)}
        ranges = {name: list(bounds) for name, bounds in self.mos_range.items()}
        return {**asdict(self), **paths, "mos_range": ranges}


@dataclass(kw_only=True)
class ImportReport:
    """What an import did.

    Attributes:
        file: path, format, sha256 and bytes.
        set: the feature set's name.
        fingerprint: its whole fingerprint.
        dims: D.
        columns: what was read as what: id, features, labels, std, group, split, prompt.
        rows: rows of the file; `added` to the set, `known` to it already.
        without_features: ids whose vector is null.
        not_in_videos: ids that the dataset of `videos` does not have.
        same_video: ids of a video that an earlier row of the file has given features of.
        nonfinite_rows, nonfinite_values: rows with NaN or infinity, and how many values.
        beyond_float32: finite values that float32 cannot hold; they became infinite.
        constant: dimensions that have one value throughout.
        dataset: what is known of the labels; None without labels.
        notes: what a user should know, one line each.
        run_id: of the provenance.
        license: of the features.
    """

    file: dict[str, Any]
    set: str
    fingerprint: str
    dims: int
    columns: dict[str, Any]
    rows: int
    added: int = 0
    known: int = 0
    without_features: list[str] = field(default_factory=list)
    not_in_videos: list[str] = field(default_factory=list)
    same_video: list[str] = field(default_factory=list)
    nonfinite_rows: int = 0
    nonfinite_values: int = 0
    beyond_float32: int = 0
    constant: int = 0
    dataset: dict[str, Any] | None = None
    notes: list[str] = field(default_factory=list)
    run_id: str | None = None
    license: str = "unknown"

    @property
    def no_op(self) -> bool:
        """Whether everything was there already."""
        return not self.added and (self.dataset is None or self.dataset["state"] == "unchanged")

    @property
    def exit_code(self) -> ExitCode:
        """`SOME_INPUTS_FAILED` where a row of the file has no features in the store."""
        left = self.without_features or self.not_in_videos or self.same_video
        return ExitCode.SOME_INPUTS_FAILED if left else ExitCode.DONE

    def to_json(self) -> dict[str, Any]:
        """JSON form, with its schema."""
        return {"schema": REPORT_SCHEMA, **asdict(self), "no_op": self.no_op}
