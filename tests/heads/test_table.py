"""Rows before training: checks, canonical order, and statistics of the training rows alone."""

import numpy as np
import pytest

from vqa_train.core.errors import ConfigError, LabelError
from vqa_train.heads import table as table_module
from vqa_train.heads.table import build_table, scaling_statistics


def build(features, targets, keys=None):
    features = {name: np.asarray(matrix, dtype=np.float32) for name, matrix in features.items()}
    targets = np.asarray(targets, dtype=np.float32)
    names = [f"t{k}" for k in range(targets.shape[1])]
    return build_table(features, targets, names, [f"g{i}" for i in range(len(targets))], keys)


def test_statistics_are_numpys_over_the_finite_values_of_the_training_rows():
    rng = np.random.default_rng(0)
    wide, narrow = rng.normal(3, 2, (50, 300)), rng.normal(-1, 5, (50, 2))
    wide[4, 7], wide[9, 7], wide[3, 299] = np.nan, np.inf, -np.inf
    labels = rng.uniform(1, 5, (50, 2))
    labels[5, 0] = np.nan
    rows = np.arange(40)
    statistics = scaling_statistics(build({"a": wide, "b": narrow}, labels), rows)
    both = np.concatenate([wide, narrow], axis=1)[:40].astype(np.float32).astype(np.float64)
    both[~np.isfinite(both)] = np.nan
    np.testing.assert_allclose(statistics.input_mean, np.nanmean(both, axis=0), rtol=1e-6)
    np.testing.assert_allclose(statistics.input_std, np.nanstd(both, axis=0), rtol=1e-6)
    assert statistics.input_varies.all()
    np.testing.assert_allclose(statistics.target_mean, np.nanmean(labels[:40], axis=0), rtol=1e-6)
    np.testing.assert_allclose(statistics.target_std, np.nanstd(labels[:40], axis=0), rtol=1e-6)
    np.testing.assert_allclose(statistics.target_max, np.nanmax(labels[:40], axis=0), rtol=1e-6)


@pytest.mark.parametrize("value", [0.0, 1e-30, 0.1, 12345.678, 3e38, np.nan, np.inf])
def test_a_column_that_does_not_vary_is_marked_with_deviation_one(value):
    statistics = scaling_statistics(build({"a": [[value]] * 6}, np.arange(6)[:, None]), np.arange(6))
    assert not statistics.input_varies.any()
    assert statistics.input_std == [1.0]
    assert np.isfinite(statistics.input_mean).all()


def test_a_column_that_varies_in_its_last_bits_is_constant_but_a_small_one_is_not():
    jitter = np.where(np.arange(6) % 2, np.float32(1000), np.nextafter(np.float32(1000), np.float32(2000)))
    small = np.arange(6) * 1e-20
    statistics = scaling_statistics(build({"a": np.stack([jitter, small], 1)}, np.arange(6)[:, None]), np.arange(6))
    assert statistics.input_varies.tolist() == [False, True]


def test_statistics_do_not_depend_on_the_block_of_columns(monkeypatch):
    table = build({"a": np.random.default_rng(0).normal(size=(9, 20))}, np.arange(9)[:, None])
    whole = scaling_statistics(table, np.arange(9))
    monkeypatch.setattr(table_module, "_TILE_COLUMNS", 3)
    blocks = scaling_statistics(table, np.arange(9))
    np.testing.assert_array_equal(whole.input_mean, blocks.input_mean)
    np.testing.assert_array_equal(whole.input_std, blocks.input_std)


def test_rows_are_sorted_by_key():
    table = build({"a": [[1.0], [2.0], [3.0]]}, [[10.0], [20.0], [30.0]], keys=["c", "a", "b"])
    assert table.features["a"][:, 0].tolist() == [2.0, 3.0, 1.0]
    assert table.targets[:, 0].tolist() == [20.0, 30.0, 10.0]
    assert table.groups == ("g1", "g2", "g0")
    assert table.order.tolist() == [1, 2, 0]


def test_the_identity_follows_the_keys_and_without_keys_the_labels():
    features, labels = {"a": [[1.0], [2.0]]}, [[1.0], [2.0]]
    assert build(features, labels, ["x", "y"]).identity == build(features, labels, ["y", "x"]).identity
    assert build(features, labels, ["x", "y"]).identity != build(features, labels, ["x", "z"]).identity
    assert build(features, labels).identity != build(features, [[1.0], [3.0]]).identity
    assert build(features, labels).identity != build({"b": [[1.0], [2.0]]}, labels).identity


def test_the_callers_arrays_are_copied():
    matrix = np.zeros((3, 2), dtype=np.float32)
    table = build_table({"a": matrix}, np.arange(3, dtype=np.float32)[:, None], ["mos"], ["a", "b", "c"], None)
    matrix[:] = 7
    assert not table.features["a"].any()


@pytest.mark.parametrize(
    ("features", "targets", "keys", "message"),
    [
        ({"a": [[1.0]]}, np.zeros((0, 1)), None, "targets have shape"),
        ({"a": [[1.0], [2.0]]}, [[1.0]], None, r"features 'a' have shape \(2, 1\), expected \(1, D\)"),
        ({"a": [1.0]}, [[1.0]], None, "features 'a'"),
        ({"a": np.zeros((1, 0))}, [[1.0]], None, "D above 0"),
        ({}, [[1.0]], None, "no features"),
        ({"a": [[1.0], [2.0]]}, [[1.0], [2.0]], ["x"], "1 keys for 2 rows"),
        ({"a": [[1.0], [2.0]]}, [[1.0], [2.0]], ["x", "x"], "key 'x' names 2 rows"),
    ],
)
def test_arrays_that_disagree_are_an_error(features, targets, keys, message):
    with pytest.raises(ConfigError, match=message):
        build(features, targets, keys)


def test_an_infinite_label_is_an_error_that_names_row_and_target():
    with pytest.raises(LabelError, match="label 't0' of row 1 is infinite"):
        build({"a": [[1.0], [2.0]]}, [[1.0], [np.inf]])
