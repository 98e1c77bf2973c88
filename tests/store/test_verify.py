"""verify finds any flipped byte in any file of a store, lost files, and commits that do not describe their shards."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

from vqa_train.core.errors import Reason, StoreError
from vqa_train.core.hashing import sha256_bytes
from vqa_train.store.arrow import encode
from vqa_train.store.batch import stack
from vqa_train.store.rows import Failure
from vqa_train.store.seal import sealed
from vqa_train.store.store import FeatureStore
from vqa_train.store.verify import verify


@pytest.fixture
def store(root, spec, text_spec, make_row) -> Path:
    """A store with everything in it: two sets, several shards, failures, two snapshots, a run."""
    for each in (spec, text_spec):
        features = FeatureStore(root).create_set(each, license="MIT")
        features.append([make_row(each, n) for n in range(3)], profile={"device": "cpu"}, run_id="r1")
        features.add_failures([Failure(key="1" * 64, id="x", path="x", reason=Reason.TIMEOUT, message="slow")], "r1")
        features.snapshot()
        features.append([make_row(each, n) for n in range(3, 5)], profile={"device": "cpu"}, run_id="r1")
        features.snapshot()
        features.write_run({"run_id": "r1", "argv": ["x"]})
    return root


def files_of(store: Path) -> list[Path]:
    return sorted(path for path in store.rglob("*") if path.is_file())


def test_a_whole_store_has_no_problems(store):
    report = verify(store)
    assert report.problems == []
    assert (report.ok, report.sets, report.shards, report.rows) == (True, 2, 4, 10)
    assert report.bytes == sum(path.stat().st_size for path in store.rglob("*.parquet"))


def test_every_kind_of_file_is_in_the_store_that_is_damaged_below(store):
    kinds = {"/".join(path.relative_to(store).parts[1:-1]) + path.suffix for path in files_of(store)}
    assert kinds == {".json", "shards.parquet", "shards.json", "failures.jsonl", "snapshots.json", "runs.json"}


def test_any_flipped_bit_in_any_file_is_found(store):
    rng = random.Random(11)
    for path in files_of(store):
        data = path.read_bytes()
        for position in {0, len(data) - 1, *(rng.randrange(len(data)) for _ in range(12))}:
            changed = bytearray(data)
            changed[position] ^= 1 << rng.randrange(8)
            path.write_bytes(bytes(changed))
            problems = verify(store).problems
            assert problems, f"byte {position} of {path.relative_to(store)}"
            assert any(path.name in problem for problem in problems)
        path.write_bytes(data)
    assert verify(store).ok


def test_any_cut_file_is_found(store):
    for path in files_of(store):
        data = path.read_bytes()
        for size in (0, 1, len(data) // 2, len(data) - 1):
            path.write_bytes(data[:size])
            assert not verify(store).ok, f"{path.relative_to(store)} cut to {size}"
        path.write_bytes(data)


def test_any_lost_file_is_found_but_for_runs_and_the_second_copy_of_the_manifest(store):
    spare = {path for path in files_of(store) if path.parent.name == "runs"}
    for folder in FeatureStore.open(store).sets():
        newest = sha256_bytes((folder.folder / "manifest.json").read_bytes())
        spare.add(folder.folder / "snapshots" / f"{newest}.json")
    for path in files_of(store):
        data = path.read_bytes()
        path.unlink()
        assert verify(store).ok == (path in spare), path.relative_to(store)
        path.write_bytes(data)


def test_a_lost_shard_with_its_commit_is_missed_by_the_manifest(store):
    commit = next(store.glob("nss@*/shards/*.json"))
    commit.unlink()
    commit.with_suffix(".parquet").unlink()
    assert any(f"lists shard {commit.stem}, which is gone" in problem for problem in verify(store).problems)


def test_a_commit_that_was_exchanged_is_missed_by_the_manifest(store):
    """A seal says that a file is whole, not that it is the one that was written: the manifest does."""
    path = next(store.glob("nss@*/shards/*.json"))
    path.write_bytes(sealed({**json.loads(path.read_bytes()), "run_id": "other"}))
    assert any("is not the one that manifest" in problem for problem in verify(store).problems)


def test_a_licence_that_was_exchanged_is_missed_by_the_manifest(store):
    path = next(store.glob("nss@*/spec.json"))
    path.write_bytes(sealed({**json.loads(path.read_bytes()), "license": "CC0-1.0"}))
    assert any("spec.json' is not the one that manifest" in problem for problem in verify(store).problems)


def test_damaged_failures_are_found_before_any_snapshot(root, spec):
    features = FeatureStore(root).create_set(spec, license="MIT")
    features.add_failures([Failure(key=None, id="x", path="x", reason=Reason.TIMEOUT, message="slow")], "r")
    (path,) = (features.folder / "failures").iterdir()
    path.write_bytes(path.read_bytes().replace(b"slow", b"SLOW"))
    assert any(path.name in problem for problem in verify(root).problems)


@pytest.fixture
def forge(root, spec, make_row):
    """`forge(rows=..., **fields)`: a shard whose commit, duly sealed, says something else than the Parquet file."""
    features = FeatureStore(root).create_set(spec, license="MIT")
    rows = [make_row(spec, n) for n in range(3)]
    commit = features.append(rows, profile={}, run_id="r")
    path = features.folder / "shards" / f"{commit.shard}.json"

    def write(written=None, **fields):
        record = {**json.loads(path.read_bytes()), **fields}
        if written is not None:
            data = encode(spec, stack(spec, written))
            path.with_suffix(".parquet").write_bytes(data)
            record |= {"sha256": sha256_bytes(data), "bytes": len(data)}
        path.write_bytes(sealed(record))
        return verify(root).problems

    return write


def test_an_honest_forgery_passes(forge, spec, make_row):
    assert forge([make_row(spec, n) for n in range(3)]) == []


def test_rows_other_than_the_commits_are_found(forge, spec, make_row):
    assert "keys or views" in forge([make_row(spec, n) for n in (0, 2, 1)])[0]
    assert "keys or views" in forge([make_row(spec, n, 1) for n in range(3)])[0]
    assert "keys or views" in forge([make_row(spec, n) for n in range(2)])[0]
    assert "digests differ" in forge([make_row(spec, n, 0, variant=n // 2) for n in range(3)])[0]


def test_sums_other_than_the_rows_are_found(forge, spec, make_row):
    values = np.stack([make_row(spec, n).outputs["pooled"] for n in range(3)]).astype(np.float64)
    sums = {"n": 3, "sum": values.sum(axis=0).tolist(), "sum_of_squares": (values**2).sum(axis=0).tolist()}
    assert forge(statistics={"pooled": sums}) == []
    for wrong in (
        {"pooled": {**sums, "n": 4}},
        {"pooled": {**sums, "sum": [x + 1e-6 for x in sums["sum"]]}},
        {"pooled": {**sums, "sum_of_squares": sums["sum_of_squares"][:3]}},
        {"pooled": sums, "other": sums},
        {},
    ):
        assert "the sums of output" in forge(statistics=wrong)[0]


def test_a_shard_with_other_columns_is_found(forge, text_spec, make_row, root):
    data = encode(text_spec, stack(text_spec, [make_row(text_spec, n) for n in range(3)]))
    shard = next(root.glob("nss@*/shards/*.parquet"))
    shard.write_bytes(data)
    problems = forge(sha256=sha256_bytes(data), bytes=len(data))
    assert "its content cannot be read" in problems[0]


def test_a_damaged_shard_is_mended_by_deleting_it_and_extracting_again(store, spec, make_row):
    features = FeatureStore.open(store).find("nss")
    lost = features.commits()[0]
    for suffix in (".parquet", ".json"):
        (features.folder / "shards" / f"{lost.shard}{suffix}").unlink()
    assert features.known_keys(views=1).isdisjoint(lost.keys)
    features.append([make_row(spec, n) for n in range(5)], profile={}, run_id="r2")
    assert features.snapshot()[1].removed == (lost.shard,)
    assert verify(store).problems == []


def test_a_renamed_feature_set_is_found(store):
    folder = next(store.glob("nss@*"))
    folder.rename(folder.with_name("nss@000000000000"))
    assert any("fingerprint" in problem for problem in verify(store).problems)


def test_a_spec_edited_with_a_new_seal_is_found(store):
    path = next(store.glob("nss@*/spec.json"))
    record = json.loads(path.read_bytes())
    record["spec"]["definition"] = 2
    path.write_bytes(sealed(record))
    assert any("fingerprint" in problem for problem in verify(store).problems)


def test_leftovers_of_a_crash_are_no_damage(store):
    shards = next(store.glob("nss@*/shards"))
    (shards / "11111111-1111-4111-8111-111111111111.parquet").write_bytes(b"half")
    (shards / ".x.parquet.00000000.tmp").write_bytes(b"half")
    (store / "dover@0123456789ab").mkdir()
    assert verify(store).ok


def test_what_is_no_store_is_an_error(tmp_path):
    with pytest.raises(StoreError, match="does not exist"):
        verify(tmp_path / "absent")
    with pytest.raises(StoreError, match="has no store.json"):
        verify(tmp_path)
