"""A training recipe (ai/configs/*.yaml): which features and labels, which heads, measured how."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, SerializeAsAny, field_validator, model_validator

from vqa_train.core.config import StrictModel, load_yaml, parse
from vqa_train.core.hashing import seed_from
from vqa_train.core.packaged import config_file
from vqa_train.datasets.protocols import FixedSplits, Protocol, parse_protocol
from vqa_train.heads import HEADS
from vqa_train.heads.config import TrainConfig
from vqa_train.pipelines.loggers.config import LoggerConfig
from vqa_train.pipelines.table import FeatureInput, MissingFeatures

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]


class MemberConfig(StrictModel):
    """One recipe of several whose predictions are averaged.

    Attributes:
        name: for messages, loggers and the history.
        weight: share in the average, relative to the other members.
        train: head, loss, optimiser, schedule.
    """

    name: Name
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    train: TrainConfig


class CalibrationConfig(StrictModel):
    """Prediction intervals from residuals of rows that did not train.

    Attributes:
        method: `cross` trains `folds` more models, each without one part of the rows, and takes every row's residual
            from the model without it; `split` keeps `fraction` of the groups out of the final model.
        level: share of new labels that an interval is to hold.
    """

    method: Literal["cross", "split"] = "cross"
    level: float = Field(default=0.9, gt=0, lt=1)
    fraction: float = Field(default=0.2, gt=0, lt=1)
    folds: int = Field(default=5, ge=2)


class FitConfig(StrictModel):
    """A recipe, schema vqa-train/fit/1.

    Attributes:
        dataset: manifest name or path, or several; `--dataset` overrides it. Of several the first one's scale is the
            scale of the predictions.
        features: input name -> feature set and output.
        targets: which of the dataset's targets; all of them (of the first dataset) when empty.
        missing_mos: what a missing opinion score does: `mask` it out of the loss, `drop` the row, or fill in
            the `neutral` middle of the scale (recorded).
        missing_features: a record that lacks a feature set: `drop` leaves it out (counted), `mask` keeps it with NaN.
        protocol: which rows train and which test (docs/protocols.md); `kfold:k=5` and the like, or a mapping.
        seeds: heads per member, which are averaged; they differ in initial weights, order of rows and dropout. A member
            with a closed form has one.
        train: head, loss, optimiser, schedule; or
        members: several of them.
        calibration: prediction intervals; null for none.
        memory_limit: GiB of features above which they stay in a file; null for an eighth of this machine's memory.
        matrix_dtype: of that file.
        loggers: where training is logged while it runs (docs/loggers.md); they change no result.
    """

    schema_: Literal["vqa-train/fit/1"] = Field(alias="schema")
    dataset: str | list[str] | None = None
    features: dict[str, FeatureInput] = Field(min_length=1)
    targets: list[str] = Field(default_factory=list)
    missing_mos: Literal["mask", "drop", "neutral"] = "mask"
    missing_features: MissingFeatures = "drop"
    protocol: SerializeAsAny[Annotated[Protocol, BeforeValidator(parse_protocol)]] = FixedSplits()
    seeds: int = Field(default=1, ge=1, le=1000)
    train: TrainConfig | None = None
    members: list[MemberConfig] | None = Field(default=None, min_length=1)
    calibration: CalibrationConfig | None = None
    memory_limit: float | None = Field(default=None, gt=0)
    matrix_dtype: Literal["float32", "float16"] = "float32"
    loggers: list[LoggerConfig] = Field(default_factory=list)

    @field_validator("members")
    @classmethod
    def _distinct(cls, value: list[MemberConfig] | None) -> list[MemberConfig] | None:
        names = [member.name for member in value or ()]
        if len(set(names)) < len(names):
            raise ValueError(f"members has a name twice: {', '.join(names)}")
        return value

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.train is None) == (self.members is None):
            raise ValueError("a recipe has either `train` (one kind of head) or `members` (several)")
        return self

    @property
    def recipes(self) -> list[MemberConfig]:
        """The members; `train` alone is one."""
        if self.members is not None:
            return list(self.members)
        return [MemberConfig(name="head", train=train) for train in (self.train,) if train is not None]

    @property
    def datasets(self) -> list[str]:
        """Names or paths of manifests."""
        return [self.dataset] if isinstance(self.dataset, str) else list(self.dataset or ())


def seeds_of(config: TrainConfig, count: int) -> list[int]:
    """Seeds of a member's heads: the recipe's own, then ones derived from it; one for a closed form."""
    if HEADS.get(config.head.kind).closed_form:
        return [config.seed]
    return [config.seed, *(seed_from("head", config.seed, number) for number in range(1, count))]


def load_fit_config(path: Path) -> FitConfig:
    """The recipe in a YAML file, or the one of that name that comes with the package (`features`, `nss-mlp`, ...).

    Raises:
        ConfigError: missing file, unknown keys (with the nearest known one), wrong values.
    """
    path = config_file(path, "recipe")
    return parse_fit_config(load_yaml(path, "recipe"), str(path))


def parse_fit_config(value: Any, source: str) -> FitConfig:
    """The recipe that YAML or JSON values describe.

    Raises:
        ConfigError: as `load_fit_config`.
    """
    return parse(FitConfig, value, source)
