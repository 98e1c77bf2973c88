"""The dataset manifest: the YAML file that says what a dataset is, where its labels are and which files it has.

The format is specified in docs/formats/dataset.md, with the procedure for a new version. A change that an older reader
would misread gets a new number in SCHEMA; the old class stays and is converted on reading.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import ConfigDict, Field, field_validator, model_validator

from vqa_train.core.config import StrictModel, load_yaml, parse
from vqa_train.core.errors import ManifestError
from vqa_train.core.files import atomic_write_bytes
from vqa_train.core.hashing import sha256_bytes

SCHEMA = "vqa-train/dataset/1"
SCHEMA_PREFIX = "vqa-train/dataset/"

Direction = Literal["higher_is_better", "lower_is_better"]
SplitName = Literal["train", "val", "test"]
SPLITS: tuple[SplitName, ...] = get_args(SplitName)

_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
_Text = Annotated[str, Field(min_length=1)]
_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Count = Annotated[int, Field(ge=0)]


class MosRange(StrictModel):
    """The scale of the scores: `min` and `max` inclusive, and which end is the better one."""

    min: _Finite
    max: _Finite
    direction: Direction = "higher_is_better"

    @model_validator(mode="after")
    def _ordered(self) -> MosRange:
        if not self.min < self.max:
            raise ValueError(f"min {self.min:g} must be below max {self.max:g}")
        return self

    @property
    def middle(self) -> float:
        """The score half way between `min` and `max`."""
        return (self.min + self.max) / 2


class Target(StrictModel):
    """One thing that was scored. In YAML a bare name stands for a target on the dataset's own scale."""

    name: _Name
    mos: MosRange | None = None


class Columns(StrictModel):
    """Which column of the label tables holds what.

    Attributes:
        id: the video's id.
        path: the video's file; None when the id names it.
        prompt, split, group, reference: optional columns with those meanings (see core.types.Video).
        targets: target -> column of its MOS; a target that is not listed has a column of its own name.
        std: target -> column of the standard deviation of its opinions.
        attributes: further columns, kept as text.
    """

    id: _Text
    path: _Text | None = None
    prompt: _Text | None = None
    split: _Text | None = None
    group: _Text | None = None
    reference: _Text | None = None
    targets: dict[str, _Text] = Field(default_factory=dict)
    std: dict[str, _Text] = Field(default_factory=dict)
    attributes: tuple[_Text, ...] = ()


class LabelTable(StrictModel):
    """One label table.

    Attributes:
        path: relative to the data root, POSIX separators.
        sha256, bytes: of the file; written by `datasets scan`.
        split: the split of all its rows; None when a column or a hash decides.
        labelled: False for a table that may lack the MOS columns (the hidden test part of a challenge).
    """

    path: _Text
    sha256: _Sha256 | None = None
    bytes: _Count | None = None
    split: SplitName | None = None
    labelled: bool = True


class FilesRef(StrictModel):
    """The per-file list: a CSV (path, sha256, bytes) beside the manifest, and its own identity."""

    table: Annotated[str, Field(pattern=r"^[^/\\\x00]+$")]
    sha256: _Sha256
    rows: _Count
    bytes_total: _Count


class HashSplit(StrictModel):
    """Splits decided by the hash of a video's group: the same for every row order, machine and run.

    Attributes:
        by: always "hash"; rows whose table or split column names a split keep that.
        fractions: split -> expected share of the groups; they sum to 1.
        salt: changes the draw; part of the dataset's identity.
    """

    by: Literal["hash"] = "hash"
    fractions: dict[SplitName, Annotated[float, Field(ge=0, le=1)]]
    salt: str = ""

    @field_validator("fractions")
    @classmethod
    def _sums_to_one(cls, value: dict[SplitName, float]) -> dict[SplitName, float]:
        if abs(sum(value.values()) - 1) > 1e-6:
            raise ValueError(f"fractions must sum to 1, they sum to {sum(value.values()):g}")
        return value


class DatasetManifest(StrictModel):
    """A dataset: identity, licence, scale, columns, label tables, files, splits. See docs/formats/dataset.md."""

    model_config = ConfigDict(populate_by_name=True)

    schema_: Literal["vqa-train/dataset/1"] = Field(alias="schema", default="vqa-train/dataset/1")
    name: _Name
    version: _Text = "1"
    license: _Text
    source: str = ""
    citation: str = ""
    adapter: _Text = "csv"
    root: str | None = None
    mos: MosRange
    targets: Annotated[tuple[Target, ...], Field(min_length=1)]
    columns: Columns
    labels: Annotated[tuple[LabelTable, ...], Field(min_length=1)]
    splits: HashSplit | None = None
    files: FilesRef | None = None

    @field_validator("targets", mode="before")
    @classmethod
    def _bare_names(cls, value: Any) -> Any:
        return [{"name": item} if isinstance(item, str) else item for item in value] if _is_list(value) else value

    @field_validator("root")
    @classmethod
    def _relative_root(cls, value: str | None) -> str | None:
        if value is not None and (Path(value).is_absolute() or "\x00" in value):
            raise ValueError("must be relative to the manifest's folder; for another place use --data-root")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> DatasetManifest:
        names = [target.name for target in self.targets]
        if len(set(names)) != len(names):
            raise ValueError(f"targets has a name twice: {', '.join(names)}")
        for field in ("targets", "std"):
            unknown = [name for name in getattr(self.columns, field) if name not in names]
            if unknown:
                raise ValueError(f"columns.{field} names {unknown[0]!r}, which is not one of the targets {names}")
        paths = [table.path for table in self.labels]
        if len(set(paths)) != len(paths):
            raise ValueError("labels has a path twice")
        if self.columns.split is not None and any(table.split is not None for table in self.labels):
            raise ValueError("columns.split and the split of a label table both decide; keep one")
        if self.files is not None and any(table.sha256 is None or table.bytes is None for table in self.labels):
            raise ValueError("labels need sha256 and bytes once there is a files table; `datasets scan` writes both")
        return self

    @property
    def target_names(self) -> tuple[str, ...]:
        """Names of the targets, in order."""
        return tuple(target.name for target in self.targets)

    def range_of(self, target: str) -> MosRange:
        """The scale of `target`: its own, else the dataset's."""
        return next((t.mos for t in self.targets if t.name == target and t.mos is not None), self.mos)

    def column_of(self, target: str) -> str:
        """The column that holds the MOS of `target`."""
        return self.columns.targets.get(target, target)

    def to_yaml(self) -> str:
        """The manifest as YAML, without what is at its default."""
        value = self.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        value["targets"] = [item["name"] if list(item) == ["name"] else item for item in value["targets"]]
        ordered = {"schema": self.schema_, **value}
        text: str = yaml.safe_dump(ordered, sort_keys=False, allow_unicode=True, width=110)
        return text


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def read_manifest(path: Path) -> tuple[DatasetManifest, str]:
    """The manifest in `path` and the sha256 of the file's bytes.

    Raises:
        ConfigError: missing, not YAML, or not of the schema (names the key, with the nearest known one).
        ManifestError: of another schema version.
    """
    value = load_yaml(path, "dataset manifest")
    schema = value.get("schema") if isinstance(value, dict) else None
    if schema != SCHEMA:
        known = isinstance(schema, str) and schema.startswith(SCHEMA_PREFIX)
        raise ManifestError(
            f"dataset manifest {str(path)!r} has schema {schema!r}, expected {SCHEMA!r}",
            hint="install the version of vqa-train that wrote it" if known else "is it a dataset manifest?",
        )
    return parse(DatasetManifest, value, f"dataset manifest {str(path)!r}"), sha256_bytes(path.read_bytes())


def write_manifest(manifest: DatasetManifest, path: Path) -> None:
    """Write `manifest` to `path`, atomically."""
    atomic_write_bytes(path, manifest.to_yaml().encode("utf-8"))
