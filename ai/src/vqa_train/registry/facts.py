"""What a sidecar says of how a model came about: members, calibration of its intervals, results on held-out rows."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

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
