"""The verb merge: bring the shards, failures and runs of other stores into one, byte for byte, each once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vqa_train.core.errors import StoreError
from vqa_train.core.hashing import sha256_bytes
from vqa_train.core.locations import is_remote
from vqa_train.store import filesystem
from vqa_train.store.failures import checked_bytes
from vqa_train.store.feature_set import FeatureSet
from vqa_train.store.layout import DATASETS, FAILURES, RETIRED, RUNS, SHARDS, STORE_FILE
from vqa_train.store.seal import check_seal
from vqa_train.store.store import FeatureStore


@dataclass
class SetMerge:
    """What came into one feature set.

    Attributes:
        shards, rows, bytes: copied.
        there: shards that the target had already, under the same name or another.
        failures, runs: files copied.
        runs_kept: runs that the target describes otherwise (the source was copied while the run was on); its own stay.
    """

    name: str
    shards: int = 0
    rows: int = 0
    bytes: int = 0
    there: int = 0
    failures: int = 0
    runs: int = 0
    runs_kept: list[str] = field(default_factory=list)


def merge(sources: Sequence[Path], target: Path) -> list[SetMerge]:
    """Copy what `sources` hold and `target` lacks; per feature set what came, by name.

    Nothing is encoded again: a shard keeps its bytes, its name and its commit, and is hashed on the way. Shards are
    copied before their commits, so that a crash leaves a whole store and the same command goes on from there. Tags and
    snapshots stay behind: they speak of the source.

    Args:
        target: a store, or a folder that is to become one; not one of the sources.

    Raises:
        StoreError: before anything is written: not a store, two specs under one name, two licences of one feature set,
            two imported label tables of one name; later: a damaged shard in a source, or a failing disk.
    """
    stores = [FeatureStore.open(source) for source in sources]
    if any(_same_place(source, target) for source in sources):
        raise StoreError(f"{str(target)!r} is the target and a source", hint="name another target, or leave it out")
    sets = [feature_set for store in stores for feature_set in store.sets()]
    _refuse_conflicts(sets, target)
    labels = _labels_to_copy(sources, target)
    into = FeatureStore(target)
    into.create()
    merged: dict[str, SetMerge] = {}
    for feature_set in sets:
        mine = into.create_set(feature_set.spec, license=feature_set.license)
        done = merged.setdefault(mine.name, SetMerge(mine.name))
        _copy_shards(feature_set, mine, done)
        _copy_rest(feature_set.folder, mine.folder, done)
        mine.snapshot()
    for path, data in labels.items():
        filesystem.write(path, data)
    return [merged[name] for name in sorted(merged)]


def _same_place(a: Path, b: Path) -> bool:
    return str(a) == str(b) if is_remote(a) or is_remote(b) else a.resolve() == b.resolve()


def _refuse_conflicts(sets: Sequence[FeatureSet], target: Path) -> None:
    there = FeatureStore.open(target).sets() if filesystem.exists(target / STORE_FILE) else []
    known: dict[str, FeatureSet] = {}
    for feature_set in [*there, *sets]:
        first = known.setdefault(feature_set.name, feature_set)
        if first.fingerprint != feature_set.fingerprint:
            raise StoreError(
                f"feature set {feature_set.name} in {str(first.folder.parent)!r} has fingerprint {first.fingerprint}, "
                f"in {str(feature_set.folder.parent)!r} {feature_set.fingerprint}: they mean different features",
                hint="they cannot be in one store",
            )
        if first.license != feature_set.license:
            raise StoreError(
                f"feature set {feature_set.name} is under licence {first.license!r} in {str(first.folder.parent)!r}, "
                f"under {feature_set.license!r} in {str(feature_set.folder.parent)!r}",
                hint="find out which is right; one store holds one licence of a feature set",
            )


def _labels_to_copy(sources: Sequence[Path], target: Path) -> dict[Path, bytes]:
    """Where in the target -> bytes of the imported labels that it lacks."""
    found: dict[Path, bytes] = {}
    for source in sources:
        for place in _files(source, (DATASETS,)):
            data, path = filesystem.read(_at(source, place), "label file"), _at(target, place)
            mine = found.get(path)
            if mine is None and filesystem.exists(path):
                mine = filesystem.read(path, "label file")
            if mine is None:
                found[path] = data
            elif mine != data:
                raise StoreError(
                    f"{'/'.join(place)!r} in {str(source)!r} is not what {str(target)!r} or another source has "
                    "by that name",
                    hint="import one of the two under another --name",
                )
    return found


def _files(root: Path, place: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Files below `place`; links are left out."""
    found: list[tuple[str, ...]] = []
    for name in filesystem.names(_at(root, place)):
        path = _at(root, (*place, name))
        if filesystem.is_link(path):
            continue
        found += _files(root, (*place, name)) if filesystem.is_dir(path) else [(*place, name)]
    return found


def _at(root: Path, place: tuple[str, ...]) -> Path:
    for part in place:
        root = root / part
    return root


def _copy_shards(source: FeatureSet, target: FeatureSet, done: SetMerge) -> None:
    there = {commit.sha256 for commit in target.commits()}
    names = {*filesystem.names(target.folder / SHARDS, ".json"), *filesystem.names(target.folder / RETIRED, ".json")}
    for commit in source.commits():
        if commit.sha256 in there or f"{commit.shard}.json" in names:
            done.there += 1
            continue
        path = source.folder / SHARDS / f"{commit.shard}.parquet"
        data = filesystem.read(path, "shard")
        if sha256_bytes(data) != commit.sha256:
            raise StoreError(
                f"shard {str(path)!r} is damaged: its bytes are not what its commit says",
                hint=f"vqa-train store repair {source.folder.parent}, then merge again",
            )
        seal = filesystem.read(source.folder / SHARDS / f"{commit.shard}.json", "commit")
        check_seal(seal, f"commit {commit.shard!r} in {str(source.folder)!r}")
        filesystem.write(target.folder / SHARDS / f"{commit.shard}.parquet", data)
        filesystem.write(target.folder / SHARDS / f"{commit.shard}.json", seal)
        there.add(commit.sha256)
        done.shards += 1
        done.rows += commit.rows
        done.bytes += commit.bytes


def _copy_rest(source: Path, target: Path, done: SetMerge) -> None:
    """Failures, whose names are their hashes, and the provenance of runs."""
    there = set(filesystem.names(target / FAILURES, ".jsonl"))
    for name in filesystem.names(source / FAILURES, ".jsonl"):
        if name not in there:
            filesystem.write(target / FAILURES / name, checked_bytes(source / FAILURES / name))
            done.failures += 1
    for name in filesystem.names(source / RUNS, ".json"):
        data = filesystem.read(source / RUNS / name, "run")
        check_seal(data, f"run {name!r} in {str(source)!r}")
        path = target / RUNS / name
        if not filesystem.exists(path):
            filesystem.write(path, data)
            done.runs += 1
        elif filesystem.read(path, "run") != data:
            done.runs_kept.append(name.removesuffix(".json"))
