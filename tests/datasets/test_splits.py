"""Splits and folds: whole groups, decided by content, balanced as promised."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqa_train.core.errors import UsageError
from vqa_train.core.types import Video
from vqa_train.datasets.splits import (
    bytes_across_splits,
    groups_across_splits,
    split_by_group,
)


def video(name: str, group: str | None = None, split: str | None = None, sha256: str = "") -> Video:
    return Video(id=name, path=f"{name}.mp4", sha256=sha256 or name, bytes=1, group=group, split=split)


def videos(groups: list[int]) -> list[Video]:
    return [video(f"v{i}", f"g{group}") for i, group in enumerate(groups)]


THIRDS = {"train": 0.6, "val": 0.2, "test": 0.2}


@given(groups=st.lists(st.integers(0, 8), max_size=30), salt=st.text(max_size=5), seed=st.integers(0, 99))
def test_no_group_straddles_and_order_does_not_matter(groups: list[int], salt: str, seed: int) -> None:
    made = videos(groups)
    split = split_by_group(made, THIRDS, salt)
    assert groups_across_splits(split) == []
    assert [v.id for v in split] == [v.id for v in made]
    shuffled = random.Random(seed).sample(made, len(made))
    assert {v.id: v.split for v in split_by_group(shuffled, THIRDS, salt)} == {v.id: v.split for v in split}


def test_a_new_video_moves_no_other() -> None:
    before = {v.id: v.split for v in split_by_group(videos(list(range(50))), THIRDS)}
    after = {v.id: v.split for v in split_by_group(videos(list(range(60))), THIRDS)}
    assert after.items() >= before.items()


def test_shares_are_those_asked_for() -> None:
    # 5,000 draws: three standard deviations of a share of 0.6 are 0.021.
    counts = Counter(v.split for v in split_by_group([video(f"v{i}") for i in range(5000)], THIRDS, "shares"))
    assert {name: counts[name] / 5000 for name in THIRDS} == pytest.approx(THIRDS, abs=0.021)


def test_the_salt_changes_the_draw() -> None:
    made = videos(list(range(50)))
    assert split_by_group(made, THIRDS, "a") != split_by_group(made, THIRDS, "b")


def test_fractions_may_leave_a_split_out_in_any_order() -> None:
    made = videos(list(range(50)))
    assert split_by_group(made, {"test": 0.5, "train": 0.5}) == split_by_group(made, {"train": 0.5, "test": 0.5})
    assert {v.split for v in split_by_group(made, {"val": 1.0})} == {"val"}


def test_given_splits_are_kept_and_pull_their_group_along() -> None:
    made = [
        video("a", "g", "test"),
        video("b", "g"),
        video("c", "h", "train"),
        video("d", "h", "test"),
        video("e", "h"),
    ]
    split = split_by_group(made, {"val": 1.0})
    assert [v.split for v in split] == ["test", "test", "train", "test", "val"]
    assert groups_across_splits(split) == [{"group": "h", "splits": ["test", "train", "val"]}]


@pytest.mark.parametrize(
    "fractions", [{"train": 0.5}, {"train": 1.5, "test": -0.5}, {"train": 0.5, "dev": 0.5}, {"train": float("nan")}, {}]
)
def test_fractions_that_are_none_are_refused(fractions: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="fractions must be shares of train, val, test that sum to 1"):
        split_by_group([video("a")], fractions)


def test_the_same_bytes_in_two_splits() -> None:
    made = [video("a", split="train", sha256="x"), video("b", split="test", sha256="x"), video("c", sha256="x")]
    again = [video("d", split="train", sha256="y"), video("e", split="train", sha256="y")]
    assert bytes_across_splits(made + again) == [{"sha256": "x", "ids": ["a", "b"], "splits": ["test", "train"]}]
