"""merge copies what the target lacks byte for byte, refuses what cannot be one store, and may be repeated."""

from __future__ import annotations

from pathlib import Path

import pytest

from vqa_train.core.errors import Reason, StoreError
from vqa_train.store.merge import merge
from vqa_train.store.rows import Failure
from vqa_train.store.store import FeatureStore
from vqa_train.store.verify import verify


@pytest.fixture
def make_store(tmp_path, spec, make_row):
    """`make_store(name, *shards, spec=, license=)`: a store whose shards hold the rows of those numbers."""

    def make(name, *shards, of=spec, license="MIT") -> Path:
        features = FeatureStore(tmp_path / name).create_set(of, license=license)
        for numbers in shards:
            features.append([make_row(of, n) for n in numbers], profile={"by": name}, run_id=name)
        features.add_failures([Failure(key=None, id="x", path=f"{name}.mp4", reason=Reason.TIMEOUT, message="m")], name)
        features.write_run({"run_id": name})
        features.snapshot()
        return tmp_path / name

    return make


def files(root: Path, pattern: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in root.glob(f"*@*/{pattern}")}


def test_two_stores_become_one_byte_for_byte(make_store, tmp_path, text_spec, spec, make_row):
    a, b = make_store("a", [1, 2], [3]), make_store("b", [3, 4])
    make_store("b", [1], of=text_spec)
    done = {each.name: each for each in merge([a, b], tmp_path / "c")}
    assert (done[spec.set_name].shards, done[spec.set_name].rows) == (3, 5)
    assert (done[spec.set_name].failures, done[spec.set_name].runs) == (2, 2)
    assert done[text_spec.set_name].shards == 1
    for pattern in ("shards/*", "failures/*", "runs/*"):
        assert files(tmp_path / "c", pattern) == files(a, pattern) | files(b, pattern)
    merged = FeatureStore.open(tmp_path / "c").find("nss")
    assert merged.known_keys(views=1) == {make_row(spec, n).key for n in (1, 2, 3, 4)}
    assert len(merged.read()) == 4
    assert len(merged.failures()) == 2
    assert verify(tmp_path / "c").problems == []


def test_merging_again_copies_nothing(make_store, tmp_path):
    a, b = make_store("a", [1, 2]), make_store("b", [3])
    merge([a], b)
    before = {path: path.read_bytes() for path in b.rglob("*") if path.is_file()}
    (again,) = merge([a], b)
    assert (again.shards, again.there, again.failures, again.runs) == (0, 1, 0, 0)
    assert {path: path.read_bytes() for path in b.rglob("*") if path.is_file()} == before


def test_a_shard_is_known_by_its_bytes_whatever_its_name(make_store, tmp_path):
    a = make_store("a", [1, 2])
    merge([a], tmp_path / "b")
    target = tmp_path / "b"
    (commit,) = FeatureStore.open(target).find("nss").commits()
    folder = next(target.glob("nss@*/shards"))
    (folder / f"{commit.shard}.json").unlink()
    (folder / f"{commit.shard}.parquet").unlink()
    other = make_store("b", [1, 2])
    assert {c.sha256 for c in FeatureStore.open(other).find("nss").commits()} == {commit.sha256}
    (again,) = merge([a], target)
    assert (again.shards, again.there) == (0, 1)


def test_another_licence_is_refused_before_anything_is_written(make_store, tmp_path):
    a, b = make_store("a", [1], license="MIT"), make_store("b", [2], license="CC-BY-NC-4.0")
    with pytest.raises(StoreError, match="under licence 'MIT' in .*, under 'CC-BY-NC-4.0'"):
        merge([a, b], tmp_path / "c")
    assert not (tmp_path / "c").exists()
    with pytest.raises(StoreError, match="licence"):
        merge([a], b)


def test_the_target_is_no_source(make_store, tmp_path):
    a = make_store("a", [1])
    with pytest.raises(StoreError, match="is the target and a source"):
        merge([a], a)
    with pytest.raises(StoreError, match="is the target and a source"):
        merge([a], tmp_path / "x" / ".." / "a")


def test_a_damaged_shard_is_not_copied(make_store, tmp_path):
    a = make_store("a", [1, 2])
    shard = next(a.rglob("*.parquet"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    with pytest.raises(StoreError, match=r"is damaged.*store repair"):
        merge([a], tmp_path / "c")
    assert verify(tmp_path / "c").ok
    assert not list((tmp_path / "c").rglob("*.parquet"))


def test_imported_labels_come_along_and_two_of_one_name_are_refused(make_store, tmp_path):
    a, b = make_store("a", [1]), make_store("b", [2])
    for root, text in ((a, "one"), (b, "one")):
        (root / "datasets" / "konvid").mkdir(parents=True)
        (root / "datasets" / "konvid.yaml").write_text(text)
        (root / "datasets" / "konvid" / f"labels.{root.name}.csv").write_text("id,mos")
    merge([a, b], tmp_path / "c")
    assert (tmp_path / "c" / "datasets" / "konvid.yaml").read_text() == "one"
    assert {path.name for path in (tmp_path / "c" / "datasets" / "konvid").iterdir()} == {
        "labels.a.csv",
        "labels.b.csv",
    }
    (a / "datasets" / "konvid.yaml").write_text("two")
    with pytest.raises(StoreError, match=r"datasets/konvid.yaml.*--name"):
        merge([a], tmp_path / "c")


def test_links_are_not_followed(make_store, tmp_path):
    a = make_store("a", [1])
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").write_text("x")
    (a / "datasets").mkdir()
    (a / "datasets" / "link").symlink_to(tmp_path / "secret")
    merge([a], tmp_path / "c")
    assert not (tmp_path / "c" / "datasets").exists()


def test_a_run_that_the_target_describes_otherwise_stays_as_it_is(make_store, tmp_path):
    a = make_store("a", [1])
    merge([a], tmp_path / "c")
    FeatureStore.open(a).find("nss").write_run({"run_id": "a", "counts": 2})
    (done,) = merge([a], tmp_path / "c")
    assert done.runs_kept == ["a"]
    assert b"counts" not in next((tmp_path / "c").rglob("runs/a.json")).read_bytes()


def test_two_specs_under_one_name_are_refused(make_store, tmp_path, monkeypatch):
    """Fingerprints that share their first twelve digits: nobody has made two, so the comparison is fed two."""
    a, b = make_store("a", [1]), make_store("b", [2])
    from vqa_train.store.feature_set import FeatureSet

    real = FeatureSet.fingerprint.fget
    monkeypatch.setattr(
        FeatureSet, "fingerprint", property(lambda self: real(self)[:-1] + ("0" if self.folder.parent == a else "1"))
    )
    monkeypatch.setattr(FeatureSet, "commits", lambda self: [])
    with pytest.raises(StoreError, match="mean different features"):
        merge([a, b], tmp_path / "c")
