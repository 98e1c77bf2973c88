"""Forward selection over scores that are known, and the rule of one standard error."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest

from vqa_train.core.errors import ConfigError
from vqa_train.pipelines.select_features.forward import Step, fewest, forward_selection
from vqa_train.pipelines.tune.evaluate import Scored


def scored(*folds: float) -> Scored:
    return Scored(value=sum(folds) / len(folds), folds={str(i): value for i, value in enumerate(folds)})


class Known:
    """Scores by name of sets, joined without a sign between."""

    def __init__(self, scores: Mapping[str, Scored]) -> None:
        self.scores, self.asked = scores, list[str]()

    def __call__(self, chosen: tuple[str, ...]) -> Scored:
        self.asked.append("".join(chosen))
        return self.scores[self.asked[-1]]


SCORES = {
    "a": scored(0.7, 0.9), "b": scored(0.7, 0.8), "c": scored(0.4, 0.5),
    "ab": scored(0.7, 0.9), "ac": scored(0.8, 1.0), "abc": scored(0.75, 0.95),
}  # fmt: skip


def test_each_step_adds_what_helps_most() -> None:
    score = Known(SCORES)
    steps, alone = forward_selection("abc", score, higher=True)
    assert [step.sets for step in steps] == [("a",), ("a", "c"), ("a", "c", "b")]
    # Sets are asked in the order in which they are named.
    assert score.asked == ["a", "b", "c", "ab", "ac", "abc"]
    assert {name: found.value for name, found in alone.items()} == pytest.approx({"a": 0.8, "b": 0.75, "c": 0.45})
    second = steps[1].to_json()
    assert second["candidates"] == pytest.approx({"b": 0.8, "c": 0.9})
    assert (second["gain"], second["gain_std"]) == pytest.approx((0.1, 0))
    assert second["std"] == pytest.approx(math.sqrt(0.02))
    assert steps[0].to_json()["gain"] is None


def test_an_error_is_made_small_and_the_limit_is_kept() -> None:
    steps, _ = forward_selection("abc", Known(SCORES), higher=False, limit=1)
    assert [step.added for step in steps] == ["c"]


def test_of_equal_sets_the_first_named_is_taken() -> None:
    same = {name: scored(0.5) for name in ("a", "b")}
    assert forward_selection("ba", Known(same), higher=True, limit=1)[0][0].added == "b"


def test_sets_without_a_value_are_never_taken() -> None:
    bad = Scored(value=math.nan, folds={}, reason="its predictions are constant")
    steps, alone = forward_selection("ab", Known({"a": bad, "b": scored(0.5), "ab": bad}), higher=True)
    assert [step.sets for step in steps] == [("b",)]
    assert steps[0].candidates == {"a": None, "b": 0.5}
    assert alone["a"].reason is not None
    with pytest.raises(ConfigError, match="no feature set has a value: its predictions are constant"):
        forward_selection("a", Known({"a": bad}), higher=True)


def step(*folds: float) -> Step:
    named = {str(i): value for i, value in enumerate(folds)}
    return Step(added="", sets=(), value=sum(folds) / len(folds), folds=named, gain={}, candidates={})


def test_the_fewest_within_one_standard_error_of_the_best() -> None:
    best = step(0.80, 0.84, 0.86)
    # The differences are 0, 0.01 and 0.03: 0.0133 on average, with a standard error of 0.0153 / sqrt(3). Too much.
    assert fewest([step(0.80, 0.83, 0.83), best], higher=True) == 1
    # The difference is 0.01 on average, its standard error 0.02 / sqrt(3).
    assert fewest([step(0.81, 0.83, 0.83), best], higher=True) == 0
    # An error is better when it is lower.
    assert fewest([step(0.81, 0.83, 0.83), step(0.80, 0.84, 0.80)], higher=False) == 0
    assert fewest([step(0.95, 0.99, 1.01), best], higher=False) == 1
    assert fewest([step(0.5), step(0.6)], higher=True) == 1
