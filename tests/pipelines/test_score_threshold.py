"""Thresholds say which videos trip them, and refuse what they could not test."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from vqa_train.core.errors import UsageError
from vqa_train.pipelines.score.threshold import parse

SIDECAR: Any = SimpleNamespace(
    name="m", targets=["overall", "a.low", "motion"], calibration=SimpleNamespace(half_widths={"overall": 0.5})
)


def score(overall: float, interval: tuple[float, float] | None = (2.5, 3.5)) -> Any:
    return SimpleNamespace(
        scores={"overall": overall, "a.low": 1.0, "motion": 2.0}, interval={"overall": interval, "motion": None}
    )


@pytest.mark.parametrize(
    ("text", "value", "words"),
    [
        ("overall<3.2", 3.0, "overall 3.000 < 3.2"),
        ("overall<3.2", 3.2, None),
        ("overall <= 3.2", 3.2, "overall 3.200 <= 3.2"),
        ("overall>3.2", 3.2, None),
        ("overall>=3.2", 3.2, "overall 3.200 >= 3.2"),
        ("overall>-1e1", 3.2, "overall 3.200 > -10"),
        ("overall.low<2.6", 3.0, "overall.low 2.500 < 2.6"),
        ("overall.low<2.5", 3.0, None),
        ("overall.high>3.4", 3.0, "overall.high 3.500 > 3.4"),
        ("a.low<2", 3.0, "a.low 1.000 < 2"),
    ],
)
def test_it_trips_where_it_holds(text: str, value: float, words: str | None) -> None:
    (threshold,) = parse([text], SIDECAR)
    assert threshold.trips(score(value)) == words
    assert threshold.text == text.replace(" ", "")


def test_an_interval_that_is_not_known_trips() -> None:
    (threshold,) = parse(["overall.low<0"], SIDECAR)
    assert threshold.trips(score(3.0)) is None
    assert threshold.trips(score(3.0, None)) == "overall.low is not known (wanted not < 0)"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("overal<3", "no target 'overal'.*did you mean 'overall'"),
        ("overall", "not of the form"),
        ("overall=3", "not of the form"),
        ("overall==3", "not of the form"),
        ("overall<x", "not of the form"),
        ("overall<nan", "not of the form"),
        ("overall<1<2", "not of the form"),
        ("<3", "not of the form"),
        ("overall.mid<3", "no target 'overall.mid'"),
        ("motion.low<3", "states no interval of 'motion'"),
    ],
)
def test_what_cannot_be_tested_is_wrong_usage(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse([text], SIDECAR)
