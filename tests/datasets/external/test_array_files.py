"""npz and .mat: arrays by name in the shapes that people save, and no pickled objects."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.io

from vqa_train.datasets.external.base import FeatureFileError
from vqa_train.datasets.external.open import open_feature_file


@pytest.fixture(params=["npz", "mat"])
def opened(request, tmp_path):
    """`opened(name=array, ...)`: a file of these arrays."""

    def call(**arrays):
        path = tmp_path / f"x.{request.param}"
        if request.param == "npz":
            np.savez(path, **arrays)
        else:
            scipy.io.savemat(path, arrays)
        return open_feature_file(path)

    return call


X = np.arange(12.0).reshape(4, 3)


@pytest.mark.parametrize("shape", [(4,), (4, 1), (1, 4)])
def test_a_column_may_lie_either_way(opened, shape):
    columns = opened(mos=np.arange(4.0).reshape(shape), features=X).columns([], ["mos"])
    assert columns.numbers["mos"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.uint8])
@pytest.mark.parametrize("order", ["C", "F"])
def test_features_of_any_number_type_and_order(opened, dtype, order):
    array = np.array(X, dtype=dtype, order=order)
    values = np.concatenate([block.values for block in opened(features=array).blocks(["features"])])
    np.testing.assert_array_equal(values, X.astype(np.float32), strict=True)


def test_columns_of_numbers_stand_side_by_side(opened):
    (block,) = opened(a=np.arange(4.0), b=np.arange(4)[:, None]).blocks(["a", "b"])
    assert block.values.tolist() == [[0, 0], [1, 1], [2, 2], [3, 3]]


def test_numbers_are_ids_too(opened):
    assert opened(id=np.array([3339962845.0, 5.0])).columns(["id"], []).texts["id"] == ["3339962845", "5"]
    assert opened(id=np.array([3339962845, 5])).columns(["id"], []).texts["id"] == ["3339962845", "5"]


def test_texts_of_different_lengths(opened):
    assert opened(id=np.array(["a", "longer"])).columns(["id"], []).texts["id"] == ["a", "longer"]


def test_texts_that_are_no_utf8_are_refused(tmp_path):
    for name, ids in (("bytes", np.array([b"a", b"\xff"])), ("surrogate", np.array(["a", "\udcff"]))):
        np.savez(tmp_path / f"{name}.npz", id=ids)
        with pytest.raises(FeatureFileError, match="row 2 column 'id': not a text"):
            open_feature_file(tmp_path / f"{name}.npz").columns(["id"], [])


def test_different_numbers_of_rows_are_an_error(opened):
    with pytest.raises(FeatureFileError, match="'mos' has 3 rows, 'id' has 4"):
        opened(id=np.arange(4), mos=np.zeros(3)).columns(["id"], ["mos"])
    with pytest.raises(FeatureFileError, match="'b' has 3 rows, 'a' has 4"):
        list(opened(a=np.zeros(4), b=np.zeros(3)).blocks(["a", "b"]))


def test_more_axes_than_two_are_no_vectors(opened):
    with pytest.raises(FeatureFileError, match=r"shape \[4, 2, 3\], expected one vector per video"):
        list(opened(features=np.zeros((4, 2, 3))).blocks(["features"]))
    with pytest.raises(FeatureFileError, match=r"shape \[4, 3\], expected one value per video"):
        opened(mos=X).columns([], ["mos"])


def test_rows_are_counted_without_any_column(opened):
    assert opened(features=X).columns([], []).rows == 4


def test_pickled_objects_are_refused(tmp_path):
    np.savez(tmp_path / "x.npz", video_id=np.array(["a", None], dtype=object), features=np.zeros((2, 2)))
    with pytest.raises(FeatureFileError, match=r"'video_id' holds pickled objects.*dtype=str"):
        open_feature_file(tmp_path / "x.npz").columns(["video_id"], [])


def test_a_compressed_npz_is_read(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", features=X)
    assert next(open_feature_file(tmp_path / "x.npz").blocks(["features"])).values.tolist() == X.tolist()


def test_a_damaged_npz_member_is_found(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, features=np.zeros((100, 100)))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(FeatureFileError, match="cannot be read"):
        list(open_feature_file(path).blocks(["features"]))


def test_cells_and_char_matrices_of_matlab(tmp_path):
    cells = np.empty((3, 1), dtype=object)
    cells[:, 0] = ["a", "b c", ""]
    numbers = np.empty((1, 3), dtype=object)
    numbers[0] = [1.0, 22.0, 3.0]
    scipy.io.savemat(tmp_path / "x.mat", {"id": cells, "char": np.array(["ab", "c ", "d "]), "n": numbers})
    file = open_feature_file(tmp_path / "x.mat")
    assert file.columns(["id", "char", "n"], []).texts == {
        "id": ["a", "b c", ""],
        "char": ["ab", "c", "d"],
        "n": ["1", "22", "3"],
    }
    assert file.columns([], ["n"]).numbers["n"].tolist() == [1, 22, 3]


def test_structs_and_sparse_matrices_of_matlab_are_refused(tmp_path):
    import scipy.sparse

    scipy.io.savemat(tmp_path / "x.mat", {"s": {"a": 1.0}, "sparse": scipy.sparse.csc_matrix(X)})
    file = open_feature_file(tmp_path / "x.mat")
    for name in ("s", "sparse"):
        with pytest.raises(FeatureFileError, match=f"{name!r} is a struct or a sparse matrix"):
            list(file.blocks([name]))
