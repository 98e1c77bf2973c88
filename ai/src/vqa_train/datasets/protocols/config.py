"""The protocols of a recipe: one class per kind, and the short form of the command line (`kfold:k=5`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from vqa_train.core.config import StrictModel, parse
from vqa_train.core.errors import ConfigError
from vqa_train.core.plugins import did_you_mean

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
By = Literal["group", "row"]


class Protocol(StrictModel):
    """Base of all kinds.

    Attributes:
        kind: name in `KINDS`.
        refit: whether the folds measure the recipe and the final model is then trained on every row; False where
            the final model is trained on the training part and its test rows are never looked at.
    """

    refit: ClassVar[bool] = True

    kind: str

    def text(self) -> str:
        """The short form, with every setting that is not the default's."""
        values = self.model_dump(mode="json", exclude={"kind"}, exclude_defaults=True)
        settings = ",".join(f"{name}={value}" for name, value in values.items())
        return f"{self.kind}:{settings}" if settings else self.kind


class FixedSplits(Protocol):
    """The dataset's own splits; the hash of its group decides for a row without one."""

    refit: ClassVar[bool] = False

    kind: Literal["splits"] = "splits"


class HashSplits(Protocol):
    """Train, val and test drawn by the hash of the group, whatever splits the dataset has.

    Attributes:
        train, val, test: expected shares of the groups, which sum to 1.
        by: what never straddles two parts: the `group`, or only the `row` (files of equal bytes stay together).
        salt: changes the draw.
    """

    refit: ClassVar[bool] = False

    kind: Literal["hash"] = "hash"
    train: Share = 0.8
    val: Share = 0.0
    test: Share = 0.2
    by: By = "group"
    salt: str = ""

    @model_validator(mode="after")
    def _sums_to_one(self) -> Self:
        total = self.train + self.val + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train, val and test must sum to 1, they sum to {total:g}")
        return self


class _Folds(Protocol):
    """What every protocol of several folds has.

    Attributes:
        by: what never straddles training and test rows: the `group`, or only the `row`.
        rows: `all` labelled rows, or those that the dataset does not keep as its test part (`train`).
    """

    by: By = "group"
    rows: Literal["all", "train"] = "all"


class KFold(_Folds):
    """`k` folds with test parts of nearly equal size, `repeats` times with another draw."""

    kind: Literal["kfold"] = "kfold"
    k: int = Field(default=5, ge=2)
    repeats: int = Field(default=1, ge=1, le=10_000)
    salt: str = ""


class RepeatedRandom(_Folds):
    """`repeats` random splits; round(test_fraction * groups) groups test, the others train."""

    kind: Literal["repeated"] = "repeated"
    repeats: int = Field(default=100, ge=1, le=10_000)
    test_fraction: float = Field(default=0.2, gt=0, lt=1)
    salt: str = ""


class LeaveOneDatasetOut(_Folds):
    """Every dataset tests once, the others train."""

    kind: Literal["leave_one_dataset_out"] = "leave_one_dataset_out"


class LeaveOneGroupOut(_Folds):
    """Every source tests once, the others train (LOSO).

    Attributes:
        source: `group`, or the name of a column that the manifest lists under `columns.attributes`.
    """

    kind: Literal["leave_one_group_out"] = "leave_one_group_out"
    source: str = Field(default="group", min_length=1)


class CrossDataset(_Folds):
    """Every dataset trains: tested on every other one whole, and on itself by `k` folds."""

    kind: Literal["cross_dataset"] = "cross_dataset"
    k: int = Field(default=5, ge=2)
    salt: str = ""


class SplitsFile(Protocol):
    """A splits file that was written before (docs/protocols.md)."""

    kind: Literal["file"] = "file"
    path: str = Field(default="", max_length=4096)

    def text(self) -> str:
        """`file:PATH`."""
        return f"file:{self.path}"


KINDS: dict[str, type[Protocol]] = {
    "splits": FixedSplits,
    "hash": HashSplits,
    "kfold": KFold,
    "repeated": RepeatedRandom,
    "leave_one_dataset_out": LeaveOneDatasetOut,
    "leave_one_group_out": LeaveOneGroupOut,
    "cross_dataset": CrossDataset,
    "file": SplitsFile,
}
"""Name -> class of the protocol."""


def parse_protocol(value: Any, source: str = "protocol") -> Protocol:
    """A protocol from its short form (`KIND`, `KIND:name=value,name=value`, `file:PATH`) or from a mapping.

    Raises:
        ConfigError: an unknown kind or setting (with the nearest known one), or a wrong value.
    """
    if isinstance(value, Protocol):
        return value
    settings = _settings(value, source) if isinstance(value, str) else value
    if not isinstance(settings, Mapping):
        raise ConfigError(f"{source}: expected a protocol such as 'kfold:k=5', got {value!r}")
    kind = str(settings.get("kind", FixedSplits().kind))
    if kind not in KINDS:
        raise ConfigError(f"{source}: unknown kind {kind!r}", hint=did_you_mean(kind, list(KINDS)))
    return parse(KINDS[kind], dict(settings), source)


def _settings(text: str, source: str) -> dict[str, str]:
    kind, _, rest = text.partition(":")
    kind = kind.strip().replace("-", "_")
    if kind == "file":
        return {"kind": kind, "path": rest}
    found = {"kind": kind}
    for part in filter(None, (item.strip() for item in rest.split(","))):
        name, equals, setting = (item.strip() for item in part.partition("="))
        if not equals or name in found:
            raise ConfigError(f"{source} {text!r}: expected name=value once for each name, got {part!r}")
        found[name] = setting
    return found
