"""The run's prediction intervals as the report needs them: half width, level and what they rest on, per target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class TargetInterval:
    """The prediction interval of one target.

    Attributes:
        level: share of new labels that it is to hold, 0..1.
        half_width: in units of the label; None where there is none, or where it is a multiple of each spread.
        n: residuals that it rests on.
        coverage: share of held-out labels inside, 0..1; None where it was not measured.
        coverage_n: of how many labels.
        note: what limits it.
        method: `split` or `cross`.
    """

    level: float
    half_width: float | None
    n: int
    coverage: float | None
    coverage_n: int
    note: str | None
    method: str


def read_intervals(document: Mapping[str, Any] | None) -> dict[str, TargetInterval]:
    """Target -> interval of a calibration document or of a sidecar's; empty for None."""
    if not document:
        return {}
    normalised = bool(document.get("normalised", False))
    return {
        target: TargetInterval(
            level=float(document["level"]),
            half_width=None if normalised else value["half_width"],
            n=int(value["n"]),
            coverage=value.get("coverage"),
            coverage_n=int(value.get("coverage_n") or 0),
            note=value.get("note"),
            method=str(document.get("method", "")),
        )
        for target, value in document["targets"].items()
    }
