"""The order of rows: every row once per epoch, decided by the seed alone, dealt as NumPy deals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqa_train.heads import order

MANY = 3 * order.WINDOW + 777


@given(st.integers(1, 500), st.integers(1, 40))
def test_rows_are_dealt_as_numpys_array_split(rows, count):
    values = np.random.default_rng(rows).permutation(rows)
    batch, place = order.deal(values, count)
    for number, expected in enumerate(np.array_split(values, count)):
        got = values[batch == number]
        np.testing.assert_array_equal(got, expected)
        np.testing.assert_array_equal(place[batch == number], np.arange(len(got)))


@given(st.integers(1, 100_000), st.integers(2, 1000))
def test_batches_have_about_the_size_asked_for_and_differ_by_one_row(rows, size):
    sizes = [len(part) for part in np.array_split(np.arange(rows), order.steps(rows, size))]
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= min(rows, size / 2)
    assert max(sizes) <= 1.5 * size + 1


def test_no_rows_take_no_step():
    assert order.steps(0, 64) == 0


@pytest.mark.parametrize("rows", [1, 1000, order.WINDOW])
def test_a_table_of_one_window_is_read_in_one_piece(rows):
    assert order.windows(5, 1, rows) == [[(0, rows)]]


@pytest.mark.parametrize("rows", [order.WINDOW + 1, MANY])
def test_every_row_is_in_exactly_one_window_of_shuffled_blocks(rows):
    windows = order.windows(5, 1, rows)
    numbers = [order.row_numbers(ranges) for ranges in windows]
    assert [len(part) for part in numbers[:-1]] == pytest.approx([order.WINDOW] * (len(windows) - 1), abs=order.BLOCK)
    np.testing.assert_array_equal(np.sort(np.concatenate(numbers)), np.arange(rows))
    starts = np.array([start for ranges in windows for start, _ in ranges])
    assert not np.array_equal(starts, np.sort(starts))


def test_windows_and_orders_change_with_the_seed_and_the_epoch_and_with_nothing_else():
    def of(seed, epoch):
        return order.windows(seed, epoch, MANY)

    assert of(5, 1) == of(5, 1)
    assert of(5, 1) != of(5, 2)
    assert of(5, 1) != of(6, 1)
    seen = {
        order.shuffled(seed, epoch, window, 50).tobytes()
        for seed in (1, 2**63 - 1)
        for epoch in (1, 2, 70_000)
        for window in (0, 1, 2)
    }
    assert len(seen) == 18
    np.testing.assert_array_equal(order.shuffled(1, 2, 3, 50), order.shuffled(1, 2, 3, 50))


def test_every_place_of_the_order_is_as_likely_for_every_row():
    # 400 orders of 20 rows: how often each row comes first has mean 20; chi-square with 19 degrees, p = 1e-4: 50.8.
    first = np.bincount([order.shuffled(9, epoch, 0, 20)[0] for epoch in range(400)], minlength=20)
    assert ((first - 20) ** 2 / 20).sum() < 50.8


@pytest.mark.parametrize(
    ("columns", "rows"), [(1, 65_536), (2048, 65_536), (2049, 64_512), (16 * 1024, 8_192), (10**9, 1_024)]
)
def test_windows_of_wide_rows_are_shorter(columns, rows):
    assert order.window_rows(columns) == rows
    assert rows % order.BLOCK == 0


def test_windows_of_another_size_hold_every_row_once():
    windows = order.windows(5, 1, 10_000, 2 * order.BLOCK)
    assert len(windows) == 5
    numbers = np.concatenate([order.row_numbers(ranges) for ranges in windows])
    np.testing.assert_array_equal(np.sort(numbers), np.arange(10_000))
