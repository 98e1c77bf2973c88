"""What every kind of feature file must do, run over each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vqa_train.datasets.external import base
from vqa_train.datasets.external.base import FeatureFileError, rechunk
from vqa_train.datasets.external.open import open_feature_file


def features_of(path: Path) -> list[str]:
    return ["f_0", "f_1", "f_2"] if path.suffix == ".csv" else ["features"]


def test_ids_and_scores_come_as_text_and_numbers(any_file, made):
    columns = open_feature_file(any_file).columns(["video_id"], ["mos"])
    assert columns.rows == 20
    assert columns.texts == {"video_id": made.ids}
    np.testing.assert_array_equal(columns.numbers["mos"], made.mos)
    assert columns.numbers["mos"].dtype == np.float64


def test_features_are_float32_in_the_files_order_with_nan_and_infinity(any_file, made):
    file = open_feature_file(any_file)
    blocks = list(file.blocks(features_of(any_file)))
    values = np.concatenate([block.values for block in blocks])
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, made.features.astype(np.float32))
    assert all(block.given.all() and not block.beyond for block in blocks)


def test_blocks_are_rechunked_to_a_size_that_does_not_depend_on_the_file(any_file, made, monkeypatch):
    monkeypatch.setattr(base, "BLOCK_BYTES", 7 * 3 * 4)
    monkeypatch.setattr(base, "MIN_ROWS", 1)
    blocks = list(rechunk(open_feature_file(any_file).blocks(features_of(any_file))))
    assert [len(block.values) for block in blocks] == [7, 7, 6]
    np.testing.assert_array_equal(np.concatenate([b.values for b in blocks]), made.features.astype(np.float32))


def test_a_single_column_of_numbers_is_a_feature_of_one_dimension(any_file, made):
    values = np.concatenate([block.values for block in open_feature_file(any_file).blocks(["mos"])])
    np.testing.assert_array_equal(values, made.mos.astype(np.float32)[:, None])


def test_it_says_what_it_is_and_what_read_it(any_file):
    file = open_feature_file(any_file)
    assert file.format == any_file.suffix[1:]
    assert file.versions()
    assert not file.is_vector("mos")
    assert file.is_vector("features" if file.format != "csv" else "f_0") == (file.format != "csv")


def test_a_column_that_is_not_there_is_an_error_with_the_nearest(any_file):
    file = open_feature_file(any_file)
    with pytest.raises(FeatureFileError, match=r"no column 'MOS' - did you mean 'mos'\?"):
        file.columns([], ["MOS"])
    with pytest.raises(FeatureFileError, match=r"no column 'video' - did you mean 'video_id'\?"):
        file.columns(["video"], [])
    with pytest.raises(FeatureFileError, match="no column 'zzz' - it has"):
        list(file.blocks(["zzz"]))


def test_text_is_no_number(any_file):
    file = open_feature_file(any_file)
    with pytest.raises(FeatureFileError, match=r"video_id.*('v0' is not a number|expected numbers)"):
        file.columns([], ["video_id"])
    with pytest.raises(FeatureFileError, match=r"video_id.*('v0' is not a number|expected numbers)"):
        list(file.blocks(["video_id"]))


def test_a_cut_file_is_an_error_and_never_fewer_rows(any_file):
    """A CSV that is cut in the middle of a line lacks cells; the others lack their end."""
    data = any_file.read_bytes()
    for size in (1, len(data) // 3, len(data) // 2, 2 * len(data) // 3):
        cut = data[:size]
        if any_file.suffix == ".csv":
            cut = cut[: cut.rfind(b",") if b"\n" in cut else 1]
        any_file.write_bytes(cut)
        with pytest.raises(FeatureFileError):
            file = open_feature_file(any_file)
            file.columns(["video_id"], ["mos"])
            list(file.blocks(features_of(any_file)))


def test_values_beyond_float32_become_infinite_and_are_counted(table, made, monkeypatch):
    made.features[0, :2] = [1e300, -1e39]
    for kind in ("parquet", "csv", "npz", "mat"):
        path = table(kind)
        (block,) = open_feature_file(path).blocks(features_of(path))
        assert (kind, block.beyond) == (kind, 2)
        monkeypatch.setattr(base, "MAX_ROWS", 3)
        monkeypatch.setattr(base, "MIN_ROWS", 1)
        assert sum(part.beyond for part in rechunk(iter([block]))) == 2
        monkeypatch.undo()
        assert (block.values[0, 0], block.values[0, 1]) == (np.inf, -np.inf)
