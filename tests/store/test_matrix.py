"""The memory-mapped matrix holds what the store holds, is written with bounded memory and never trusted blindly."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vqa_train.core.errors import ConfigError, StoreError
from vqa_train.core.types import FeatureSpec, OutputSpec, Sampling
from vqa_train.store import matrix as module
from vqa_train.store.gc import gc
from vqa_train.store.rows import FeatureRow
from vqa_train.store.store import FeatureStore
from vqa_train.store.verify import verify

BUILDER = Path(__file__).with_name("matrix_builder.py")


def spec_of(shape: tuple[int, ...], views: int = 1, backbone: str = "made") -> FeatureSpec:
    return FeatureSpec(
        backbone=backbone,
        definition=1,
        modality="video",
        outputs=(OutputSpec(name="pooled", shape=shape),),
        sampling=Sampling(mode="uniform", n=1, views=views),
        preprocessing={"imported": {}},
    )


def key(number: int) -> str:
    return f"{number:064x}"


@pytest.fixture
def fill(root):
    """`fill(shape, views=1, rows=60, scale=1)`: rows in shards of 7, views spread over the shards."""

    def make(shape=(5,), views=1, rows=60, scale=1.0):
        rng = np.random.default_rng(3)
        features = FeatureStore(root).create_set(spec_of(shape, views), license="MIT")
        places = [(number, view) for number in range(rows) for view in range(views)]
        rng.shuffle(places)
        for start in range(0, len(places), 7):
            part = places[start : start + 7]
            values = (scale * rng.normal(size=(len(part), *shape))).astype(np.float32)
            features.append_arrays(
                [key(n) for n, _ in part], {"pooled": values}, views=[v for _, v in part], profile={}, run_id="r"
            )
        return features

    return make


def mean_over_views(features, keys, views):
    total = sum(features.matrix("pooled", keys, view=view).astype(np.float64) for view in range(views))
    return (total / views).astype(np.float32)


@pytest.mark.parametrize(("shape", "views"), [((5,), 1), ((5,), 3), ((4, 3), 1), ((4, 3), 2), ((), 1)])
def test_it_is_the_matrix_of_the_store_averaged_over_the_views(fill, shape, views):
    features = fill(shape, views)
    keys = [key(n) for n in np.random.default_rng(1).permutation(60)] + [key(5), key(5)]
    expected = mean_over_views(features, keys, views)
    mapped = features.mapped("pooled", keys)
    assert (mapped.shape, mapped.dtype, len(mapped)) == ((62, *shape), np.float32, 62)
    np.testing.assert_array_equal(mapped.read(0, 62), expected)
    np.testing.assert_array_equal(mapped.as_array(), expected)


def test_float16_is_the_nearest_float16(fill):
    features = fill()
    keys = [key(n) for n in range(60)]
    mapped = features.mapped("pooled", keys, dtype="float16")
    assert mapped.dtype == np.float16
    assert mapped.path.stat().st_size == 60 * 5 * 2
    np.testing.assert_array_equal(mapped.read(0, 60), features.matrix("pooled", keys).astype(np.float16))


def test_a_long_average_is_worked_on_in_blocks(fill, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK", 16)
    features = fill((5,), 2)
    keys = [key(n) for n in range(60)]
    np.testing.assert_array_equal(features.mapped("pooled", keys).read(0, 60), mean_over_views(features, keys, 2))


def test_any_rows_are_read(fill):
    features = fill((4, 3))
    mapped = features.mapped("pooled", [key(n) for n in range(60)])
    whole = mapped.read(0, 60)
    np.testing.assert_array_equal(mapped.read(13, 29), whole[13:29])
    assert mapped.read(7, 7).shape == (0, 4, 3)
    out = np.full((16, 4, 3), np.nan, mapped.dtype)
    assert mapped.read(13, 29, out) is out
    np.testing.assert_array_equal(out, whole[13:29])
    for wrong in (out[1:], out.astype(np.float64), np.zeros((3, 4, 16), mapped.dtype).transpose(2, 1, 0)):
        with pytest.raises(ValueError, match="out must be contiguous"):
            mapped.read(13, 29, wrong)
    for index in ([5], [3, 4, 5], [59, 0, 17, 0, 18], [], np.array([2, 1])):
        np.testing.assert_array_equal(mapped.rows(index), whole[np.asarray(index, dtype=int)])
    for bad in (lambda: mapped.read(0, 61), lambda: mapped.read(-1, 2), lambda: mapped.read(3, 2)):
        with pytest.raises(IndexError):
            bad()
    for index in ([60], [-1]):
        with pytest.raises(IndexError):
            mapped.rows(index)


def test_what_is_read_may_be_changed_and_the_map_may_not(fill):
    mapped = fill().mapped("pooled", [key(0), key(1)])
    mapped.read(0, 2)[0] = 0
    mapped.rows([0])[0] = 0
    with pytest.raises(ValueError, match="read-only"):
        mapped.as_array()[0] = 0
    assert mapped.read(0, 1).any()


def test_it_is_made_once_and_used_again(fill):
    features = fill()
    keys = [key(n) for n in range(60)]
    first = features.mapped("pooled", keys)
    stat = first.path.stat()
    again = FeatureStore.open(features.folder.parent).find("made").mapped("pooled", keys)
    assert (first.state, again.state, again.path) == ("made", "reused", first.path)
    assert (again.path.stat().st_ino, again.path.stat().st_mtime_ns) == (stat.st_ino, stat.st_mtime_ns)


def test_other_keys_orders_types_and_rows_are_other_files(fill):
    features = fill()
    keys = [key(n) for n in range(30)]
    paths = {
        features.mapped("pooled", keys).path,
        features.mapped("pooled", keys[::-1]).path,
        features.mapped("pooled", keys[:-1]).path,
        features.mapped("pooled", keys, dtype="float16").path,
    }
    assert features.mapped("pooled", keys).state == features.mapped("pooled", keys, dtype="float16").state == "reused"
    # The row that is read of two duplicates is the one with the smaller digest, so one of several replaces it.
    before = features.matrix("pooled", [key(0)])
    for value in range(50):
        features.append_arrays([key(0)], {"pooled": np.full((1, 5), value, np.float32)}, profile={}, run_id="r")
    assert (features.matrix("pooled", [key(0)]) != before).any()
    changed = features.mapped("pooled", keys)
    assert changed.state == "made"
    np.testing.assert_array_equal(changed.read(0, 30), features.matrix("pooled", keys))
    assert len(paths | {changed.path}) == 5


def test_rows_of_other_keys_leave_the_file_in_use(fill):
    features = fill()
    keys = [key(n) for n in range(30)]
    features.mapped("pooled", keys)
    features.append_arrays([key(999)], {"pooled": np.zeros((1, 5), np.float32)}, profile={}, run_id="r")
    assert features.mapped("pooled", keys).state == "reused"


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def _zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize("damage", [_cut, _flip, _zero, Path.unlink])
@pytest.mark.parametrize("which", ["data", "header"])
def test_a_damaged_file_is_found_and_made_anew(fill, damage, which):
    features = fill()
    keys = [key(n) for n in range(60)]
    mapped = features.mapped("pooled", keys)
    damage(mapped.path if which == "data" else mapped.path.with_suffix(".json"))
    again = features.mapped("pooled", keys)
    assert again.state == "remade"
    np.testing.assert_array_equal(again.read(0, 60), features.matrix("pooled", keys))
    assert features.mapped("pooled", keys).state == "reused"


def test_a_foreign_file_is_found_and_made_anew(fill):
    """Whole, sealed and of the right size, but of other rows."""
    features = fill()
    one, other = [key(n) for n in range(30)], [key(n) for n in range(30, 60)]
    first, second = features.mapped("pooled", one), features.mapped("pooled", other)
    for suffix in (".float32", ".json"):
        first.path.with_suffix(suffix).write_bytes(second.path.with_suffix(suffix).read_bytes())
    again = features.mapped("pooled", one)
    assert again.state == "remade"
    np.testing.assert_array_equal(again.read(0, 30), features.matrix("pooled", one))


def test_the_header_says_what_the_file_is(fill):
    mapped = fill().mapped("pooled", [key(0), key(1)])
    record = json.loads(mapped.path.with_suffix(".json").read_text())
    assert record["schema"] == "vqa-train/matrix/1"
    assert (record["shape"], record["dtype"], record["bytes"]) == ([2, 5], "float32", 40)
    np.testing.assert_array_equal(np.fromfile(mapped.path, "<f4").reshape(2, 5), mapped.read(0, 2))


def test_values_beyond_float16_are_refused(root):
    features = FeatureStore(root).create_set(spec_of((2,)), license="MIT")
    features.append_arrays([key(0)], {"pooled": np.array([[1, 65504]], np.float32)}, profile={}, run_id="r")
    assert features.mapped("pooled", [key(0)], dtype="float16").read(0, 1)[0, 1] == 65504
    features.append_arrays([key(1)], {"pooled": np.array([[-65505, 1]], np.float32)}, profile={}, run_id="r")
    keys = [key(0), key(1)]
    with pytest.raises(StoreError, match="-65505 is beyond float16, which ends at 65504 - use float32"):
        features.mapped("pooled", keys, dtype="float16")
    assert sorted(p.suffix for p in (features.folder / "cache").iterdir()) == [".float16", ".json"]
    assert features.mapped("pooled", keys).read(1, 2)[0, 0] == -65505


def test_published_nan_and_infinity_stay(root):
    features = FeatureStore(root).create_set(spec_of((3,)), license="MIT")
    values = np.array([[np.nan, np.inf, -np.inf]], np.float32)
    features.append_arrays([key(0)], {"pooled": values}, profile={}, run_id="r")
    for dtype in ("float16", "float32"):
        np.testing.assert_array_equal(features.mapped("pooled", [key(0)], dtype=dtype).read(0, 1), values)


def test_features_of_a_backbone_and_of_texts_are_mapped_too(features, make_row, spec):
    features.append([make_row(spec, n, v) for n in range(4) for v in (0, 1)], profile={}, run_id="r")
    keys = [make_row(spec, n).key for n in (2, 0)]
    assert features.mapped("tokens", keys).shape == (2, 3, 2)


def test_what_is_not_there_is_an_error(fill):
    features = fill()
    with pytest.raises(ConfigError, match="no output 'pooledd'"):
        features.mapped("pooledd", [key(0)])
    with pytest.raises(StoreError, match="for 1 of 2 keys"):
        features.mapped("pooled", [key(0), key(999)])
    with pytest.raises(StoreError, match="no keys"):
        features.mapped("pooled", [])
    with pytest.raises(StoreError, match="float16 or float32, not 'float64'"):
        features.mapped("pooled", [key(0)], dtype="float64")


def test_a_damaged_shard_is_no_matrix(fill):
    features = fill()
    _flip(next(features.folder.glob("shards/*.parquet")))
    with pytest.raises(StoreError, match="damaged"):
        features.mapped("pooled", [key(n) for n in range(60)])
    assert not list((features.folder / "cache").glob("*"))


def test_a_full_disk_leaves_nothing(fill, monkeypatch):
    features = fill()

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(StoreError, match="No space left on device.*gc --delete frees"):
        features.mapped("pooled", [key(0)])
    assert not list((features.folder / "cache").glob("*"))


def test_it_may_lie_elsewhere(fill, tmp_path):
    features = fill()
    mapped = features.mapped("pooled", [key(0)], cache_dir=tmp_path / "fast disk")
    assert mapped.path.parent == tmp_path / "fast disk"
    assert not (features.folder / "cache").exists()


def test_gc_knows_it_and_who_reads_it_reads_on(fill, root):
    features = fill()
    mapped = features.mapped("pooled", [key(n) for n in range(60)])
    before = mapped.read(0, 60)
    assert verify(root).ok
    assert {leftover.path.name for leftover in gc(root)} == {mapped.path.name, f"{mapped.path.stem}.json"}
    gc(root, dry_run=False)
    assert not mapped.path.exists()
    np.testing.assert_array_equal(mapped.read(0, 60), before)


def test_gc_leaves_a_matrix_that_is_being_written(fill, root):
    features = fill()
    cache = features.folder / "cache"
    cache.mkdir()
    (cache / ".x.float32.0a1b2c3d.tmp").touch()
    assert gc(root) == []
    assert [leftover.why for leftover in gc(root, grace_s=0)] == ["temporary file"]


def test_a_file_that_is_cut_while_it_is_read_is_an_error(fill):
    mapped = fill().mapped("pooled", [key(n) for n in range(60)])
    os.truncate(mapped.path, 100)
    with pytest.raises(StoreError, match="cut short"):
        mapped.read(0, 60)


def test_memory_holds_a_shard_and_the_keys_and_not_the_matrix(root):
    """200,000 x 256 float32 is 195 MiB; made and read in a process whose anonymous memory is watched."""
    done = subprocess.run([sys.executable, BUILDER, root], capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    assert result["bytes"] == 200_000 * 256 * 4
    assert result["checked"] == 20
    # Keys and commits of 200,000 rows are some 100 MiB of it.
    assert result["grown_mib"] < 150


def test_rows_appended_one_by_one_are_found(root):
    features = FeatureStore(root).create_set(spec_of((2,)), license="MIT")
    rows = [FeatureRow(key=key(n), outputs={"pooled": np.full(2, n, np.float32)}) for n in range(3)]
    features.append(rows, profile={}, run_id="r")
    np.testing.assert_array_equal(features.mapped("pooled", [key(2), key(0)]).read(0, 2), [[2, 2], [0, 0]])
