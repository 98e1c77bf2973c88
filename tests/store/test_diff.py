"""diff tells exactly which rows two states of a feature set do not share, whatever shards they are in."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqa_train.core.hashcache import HashCache
from vqa_train.store.diff import Side, diff_sets, relative_difference
from vqa_train.store.store import FeatureStore


@pytest.fixture
def sides(tmp_path, spec, make_row):
    """`sides(a, b)`: two stores whose shards hold the rows (number, variant) given as lists of lists."""

    def make(*stores):
        made = []
        for name, shards in zip("ab", stores, strict=True):
            features = FeatureStore(tmp_path / name).create_set(spec, license="MIT")
            for shard in shards:
                features.append([make_row(spec, n, 0, variant) for n, variant in shard], profile={}, run_id="r")
            made.append(Side(features.folder, features.commits()))
        return diff_sets(spec, *made, HashCache())

    return make


def test_the_same_rows_in_other_shards_are_the_same(sides):
    found = sides([[(1, 0), (2, 0)], [(3, 0)]], [[(3, 0)], [(2, 0)], [(1, 0), (2, 0)]])
    assert (found.same, found.equal, found.largest) == (True, 3, {})


def test_every_row_is_counted_once(sides, spec, make_row):
    found = sides([[(1, 0), (2, 0), (3, 0)]], [[(2, 0), (3, 1), (4, 0)]])
    keys = {n: make_row(spec, n).key for n in range(5)}
    assert found.only_a == [(keys[1], 0)]
    assert found.only_b == [(keys[4], 0)]
    assert found.differing == [(keys[3], 0)]
    assert (found.equal, found.same, found.facts) == (1, False, 0)
    for output in spec.outputs:
        a, b = (make_row(spec, 3, 0, variant).outputs[output.name].astype(np.float64) for variant in (0, 1))
        assert found.largest[output.name] == pytest.approx(np.abs(a - b).max() / max(np.abs(a).max(), np.abs(b).max()))


def test_a_row_that_differs_in_its_facts_alone_is_told_apart(tmp_path, spec, make_row):
    made = []
    for name, codec in (("a", "h264"), ("b", "hevc")):
        features = FeatureStore(tmp_path / name).create_set(spec, license="MIT")
        row = make_row(spec, 1)
        features.append(
            [type(row)(key=row.key, outputs=row.outputs, facts={**row.facts, "codec": codec})], profile={}, run_id="r"
        )
        made.append(Side(features.folder, features.commits()))
    found = diff_sets(spec, *made, HashCache())
    assert (len(found.differing), found.facts, set(found.largest.values())) == (1, 1, {0.0})


FLOATS = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=5)


@given(FLOATS)
def test_nothing_differs_from_itself(values):
    array = np.array(values, np.float32)
    assert relative_difference(array, array.copy()) == 0


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([0, 0], [0, 0], 0),
        ([1, 0], [1, 0.5], 0.5),
        ([2, 0], [1, 0], 0.5),
        ([np.nan, 1], [np.nan, 1], 0),
        ([np.nan, 1], [0, 1], np.inf),
        ([np.inf, 1], [np.inf, 1], 0),
        ([np.inf, 1], [-np.inf, 1], np.inf),
        ([3e38, 0], [-3e38, 0], 2),
    ],
)
def test_the_difference_is_a_part_of_the_size(a, b, expected):
    found = relative_difference(np.array(a, np.float32), np.array(b, np.float32))
    assert found == pytest.approx(expected)
