"""A file's kind is told by its first bytes; what cannot be read says what can."""

from __future__ import annotations

import pytest

from vqa_train.core.errors import Reason
from vqa_train.datasets.external.base import FeatureFileError
from vqa_train.datasets.external.open import open_feature_file


@pytest.mark.parametrize("kind", ["parquet", "csv", "npz", "mat"])
def test_the_name_need_not_say_the_kind(table, kind):
    path = table(kind)
    other = path.rename(path.with_name("table.txt" if kind == "csv" else "table.bin"))
    assert open_feature_file(other).format == kind


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("x.csv", b"", "is empty"),
        ("x.pkl", b"\x80\x04abc", "is of a kind that is not read - Parquet, CSV, npz and .mat"),
        ("x.parquet", b"hello", "is not what its name says"),
        ("x.parquet", b"PAR1 and no more", "cannot be read"),
        ("x.npz", b"PK\x03\x04 and no more", "cannot be read"),
        ("x.mat", b"MATLAB 5.0 MAT-file, and no more", "cannot be read"),
        ("x.mat", b"MATLAB 7.3 MAT-file, Platform", r"MATLAB 7.3 \(HDF5\), which is not read - save it with"),
        ("x.mat", b"\x89HDF\r\n\x1a\n", r"MATLAB 7.3 \(HDF5\)"),
    ],
)
def test_what_is_no_feature_file_is_an_error(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(FeatureFileError, match=message):
        open_feature_file(tmp_path / name)


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(FeatureFileError, match="No such file") as caught:
        open_feature_file(tmp_path / "x.csv")
    assert caught.value.reason is Reason.MISSING_FILE
