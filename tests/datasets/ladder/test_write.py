from __future__ import annotations

from collections import Counter

import pytest

from vqa_train.datasets.ladder.write import split_groups


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        (1, {"train": 1}),
        (2, {"train": 1, "test": 1}),
        (3, {"train": 1, "val": 1, "test": 1}),
        (6, {"train": 4, "val": 1, "test": 1}),
        (10, {"train": 6, "val": 2, "test": 2}),
    ],
)
def test_every_part_has_its_share_of_the_groups(groups: int, expected: dict[str, int]) -> None:
    names = [f"scene-{i}" for i in range(groups)]
    assert Counter(split_groups(names).values()) == expected


def test_the_order_of_the_groups_does_not_matter() -> None:
    names = [f"scene-{i}" for i in range(9)]
    assert split_groups(reversed(names)) == split_groups(names)
