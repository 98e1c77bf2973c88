"""What a sidecar says of how a model came about: members, calibration, held-out results, training statistics."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from vqa_train.core.config import StrictModel


class MemberFacts(StrictModel):
    """Heads of one recipe, which are averaged with those of the other members.

    Attributes:
        name: as the recipe has it.
        kind: registry name of the head.
        output: what its last layer means, see `heads.outputs`.
        models: heads that differ by their seed; they share the weight equally.
        weight: share in the average, 0..1; all members' shares sum to 1.
    """

    name: str
    kind: str
    output: str = "point"
    models: int = Field(ge=1)
    weight: float = Field(gt=0, le=1)


class TargetInterval(StrictModel):
    """The prediction interval of one target.

    Attributes:
        half_width: in units of the label, or with `Calibration.normalised` of the spread; None where there is none,
            which `note` explains.
        n: residuals that it rests on.
        coverage: share of held-out labels inside, 0..1; None where it could not be measured.
        coverage_n: of how many labels.
        note: what limits it.
    """

    half_width: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None
    n: int = Field(ge=0)
    coverage: float | None
    coverage_n: int = Field(ge=0)
    note: str | None = None


class Calibration(StrictModel):
    """Split-conformal intervals.

    Attributes:
        level: share of new labels that an interval is to hold.
        method: `split` (residuals of rows kept out of the model) or `cross` (of models fitted without each row).
        normalised: half widths are multiples of each score's own spread.
        targets: target -> its interval.
    """

    level: float = Field(gt=0, lt=1)
    method: Literal["split", "cross"]
    normalised: bool = False
    targets: dict[str, TargetInterval]

    @property
    def bounded(self) -> bool:
        """Whether any target has an interval."""
        return any(interval.half_width is not None for interval in self.targets.values())

    @property
    def half_widths(self) -> dict[str, float]:
        """Target -> half width, of the targets that have one."""
        return {t: found.half_width for t, found in self.targets.items() if found.half_width is not None}

    def in_graph(self) -> dict[str, Any]:
        """What the graph was built with, as its metadata repeats it."""
        return {"level": self.level, "normalised": self.normalised, "half_width": self.half_widths}


class MetricSummary(StrictModel):
    """One metric over the folds: None where it is undefined; `n` folds have it."""

    median: float | None
    std: float | None
    n: int


class ProtocolSummary(StrictModel):
    """How the recipe did on the held-out rows of its protocol; the model itself was then fitted on all rows.

    Attributes:
        protocol: as it was resolved.
        splits_sha256: identity of the splits.
        folds: how many.
        metrics: target -> metric -> its median and standard deviation over the folds.
        warnings: what whoever reports the numbers must know.
    """

    protocol: dict[str, Any]
    splits_sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    folds: int = Field(ge=1)
    metrics: dict[str, dict[str, MetricSummary]]
    warnings: list[str] = Field(default_factory=list)


Finite = Annotated[float, Field(allow_inf_nan=False)]


class InputStatistics(StrictModel):
    """Finite values of one input over the training rows, per column of its last axis; a column without any has zeros.

    Attributes:
        rows: training rows that have the input.
        missing: share of values that are NaN or infinite, rows without the input among them; 0..1.
        mean, std: of the values; the deviation is that of the population.
        low, high: smallest and largest value.
    """

    rows: int = Field(ge=0)
    missing: float = Field(default=0.0, ge=0, le=1)
    mean: list[Finite]
    std: list[Annotated[float, Field(ge=0, allow_inf_nan=False)]]
    low: list[Finite]
    high: list[Finite]

    @model_validator(mode="after")
    def _same_length(self) -> InputStatistics:
        if len({len(self.mean), len(self.std), len(self.low), len(self.high)}) != 1:
            raise ValueError("mean, std, low and high have different lengths")
        return self


class ScoreStatistics(StrictModel):
    """The model's own scores of one target on its training rows.

    Attributes:
        rows: how many.
        effective: independent rows that would know their mean as well: fewer where scores of one content are alike.
        mean, std, low, high: of the scores.
        deciles: the nine inner edges of ten bins, rising.
        counts: scores per bin, each with its upper edge; a tenth of `rows` each, unless scores are alike.
    """

    rows: int = Field(ge=1)
    effective: float = Field(gt=0, allow_inf_nan=False)
    mean: Finite
    std: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    low: Finite
    high: Finite
    deciles: list[Finite] = Field(min_length=9, max_length=9)
    counts: list[Annotated[int, Field(ge=0)]] = Field(min_length=10, max_length=10)


class TrainingStatistics(StrictModel):
    """What drift is measured against.

    Attributes:
        rows: rows that took part in the fit, training and validation.
        groups: different contents among them; rows of one group are not independent.
        inputs: input name -> its columns.
        scores: target -> the model's scores.
    """

    rows: int = Field(ge=1)
    groups: int = Field(ge=1)
    inputs: dict[str, InputStatistics]
    scores: dict[str, ScoreStatistics]
