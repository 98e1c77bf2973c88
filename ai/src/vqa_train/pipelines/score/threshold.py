"""Thresholds on scores for CI: `overall<3.2` trips for a video whose score is below 3.2."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from vqa_train.core.errors import UsageError
from vqa_train.core.plugins import did_you_mean
from vqa_train.pipelines.score.types import Score
from vqa_train.registry.sidecar import ModelSidecar

_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_FORM = re.compile(r"\s*(?P<what>[^<>=\s]+)\s*(?P<sign><=|>=|<|>)\s*(?P<limit>[^<>=\s]+)\s*")
_ENDS = ("low", "high")


@dataclass(frozen=True)
class Threshold:
    """A condition that a video must not meet.

    Attributes:
        text: as it was given, without spaces.
        target: of the model.
        end: "low" or "high" end of the interval; None for the score.
        sign: one of < <= > >=.
        limit: on the scale of the score.
    """

    text: str
    target: str
    end: Literal["low", "high"] | None
    sign: str
    limit: float

    def trips(self, score: Score) -> str | None:
        """What holds of `score` in words, None where the condition does not.

        A score without the interval that is asked for trips: what was not tested did not pass.
        """
        if self.end is None:
            value, name = score.scores[self.target], self.target
        else:
            name, interval = f"{self.target}.{self.end}", score.interval[self.target]
            if interval is None:
                return f"{name} is not known (wanted not {self.sign} {self.limit:g})"
            value = interval[_ENDS.index(self.end)]
        return f"{name} {value:.3f} {self.sign} {self.limit:g}" if _OPERATORS[self.sign](value, self.limit) else None


def parse(texts: Sequence[str], sidecar: ModelSidecar) -> list[Threshold]:
    """The thresholds that `texts` write for a model.

    Raises:
        UsageError: another form, an unknown target, or an end of an interval that the model does not state.
    """
    return [_one(text, sidecar) for text in texts]


def _one(text: str, sidecar: ModelSidecar) -> Threshold:
    found = _FORM.fullmatch(text)
    limit = _number(found["limit"]) if found else math.nan
    if found is None or not math.isfinite(limit):
        raise UsageError(
            f"threshold {text!r} is not of the form TARGET<NUMBER",
            hint="operators are < <= > >=, for example 'overall<3.2' or 'overall.low<3'",
        )
    what, end = found["what"], None
    if what not in sidecar.targets:
        what, _, last = what.rpartition(".")
        end = next((known for known in _ENDS if known == last), None)
    if what not in sidecar.targets or (end is None and what != found["what"]):
        raise UsageError(
            f"threshold {text!r}: model {sidecar.name!r} has no target {found['what']!r}",
            hint=did_you_mean(what or found["what"], sidecar.targets),
        )
    calibration = sidecar.calibration
    if end is not None and (calibration is None or what not in calibration.half_widths):
        raise UsageError(f"threshold {text!r}: model {sidecar.name!r} states no interval of {what!r}")
    return Threshold("".join(text.split()), what, end, found["sign"], limit)  # type: ignore[arg-type]  # one of _ENDS


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
