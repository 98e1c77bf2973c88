"""The validation split: whole groups, by hash, about as many rows as asked for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqa_train.core.errors import ConfigError
from vqa_train.heads.split import hold_out

group_lists = st.lists(st.sampled_from([f"g{i}" for i in range(12)]), min_size=2, max_size=80).filter(
    lambda groups: len(set(groups)) > 1
)


@given(group_lists, st.floats(0.01, 0.99))
def test_no_group_straddles_and_neither_part_is_empty(groups, fraction):
    held = hold_out(groups, fraction)
    inside = {g for g, h in zip(groups, held, strict=True) if h}
    outside = {g for g, h in zip(groups, held, strict=True) if not h}
    assert inside
    assert outside
    assert not inside & outside


@given(group_lists, st.floats(0.01, 0.99), st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter(groups, fraction, random):
    shuffled = list(groups)
    random.shuffle(shuffled)
    held = {g for g, h in zip(groups, hold_out(groups, fraction), strict=True) if h}
    again = {g for g, h in zip(shuffled, hold_out(shuffled, fraction), strict=True) if h}
    assert held == again


@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.5])
def test_many_groups_give_the_fraction_asked_for(fraction):
    groups = [f"clip{i // 3}" for i in range(900)]
    assert hold_out(groups, fraction).mean() == pytest.approx(fraction, abs=0.01)


def test_one_huge_group_is_not_held_out_for_a_small_fraction():
    groups = ["huge"] * 100 + ["a", "b", "c"]
    held = hold_out(groups, 0.2)
    assert not held[:100].any()
    assert held.any()


def test_a_single_group_cannot_be_split_and_the_error_says_what_to_do():
    with pytest.raises(ConfigError, match=r"at least 2 groups.*validation.fraction: 0"):
        hold_out(["a"] * 10, 0.2)
