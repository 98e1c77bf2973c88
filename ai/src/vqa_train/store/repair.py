"""The verb repair: move what is damaged aside, so that the rest is whole and the next extraction fills the gaps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from vqa_train.core.errors import StoreError
from vqa_train.core.hashing import sha256_bytes
from vqa_train.core.types import FeatureSpec
from vqa_train.store import filesystem
from vqa_train.store.commits import CommitLog, read_commit
from vqa_train.store.failures import read_file
from vqa_train.store.feature_set import read_spec
from vqa_train.store.layout import (
    FAILURES,
    MANIFEST_FILE,
    RUNS,
    SHARDS,
    SNAPSHOTS,
    SPEC_FILE,
    STORE_FILE,
    STORE_SCHEMA,
    TAGS,
    set_folders,
)
from vqa_train.store.quarantine import Moved, quarantine
from vqa_train.store.records import SnapshotRecord
from vqa_train.store.seal import VersionError, sealed
from vqa_train.store.snapshot import chain, current, read_snapshot, restart, snapshot
from vqa_train.store.store import check_store
from vqa_train.store.verify import VerifyReport, check_run, check_tag, verify, verify_shard


@dataclass
class RepairReport:
    """What `repair` did, or with `dry_run` would do.

    Attributes:
        moved: what was moved aside.
        mended: files that were written anew, one line each.
        left: problems that stay, one line each; with `dry_run` only those that repair cannot mend.
    """

    moved: list[Moved] = field(default_factory=list)
    mended: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


def repair(root: Path, *, dry_run: bool = False) -> RepairReport:
    """Make the store at `root` whole again without what is damaged.

    Shards whose bytes or rows are not what their commits say, damaged commits, failures files, runs, snapshots and tags
    are moved to the feature set's quarantine/; `store.json` and `manifest.json` are written anew. Keys that lost their
    rows are missing from then on, so that the next extraction brings them back. A spec that is damaged is moved aside
    too; the next extraction with its backbone writes it anew.

    Raises:
        StoreError: `root` holds no sign of a store, or a failing disk.
        VersionError: a file of a newer version; nothing was changed in its feature set.
    """
    report = RepairReport()
    if not filesystem.is_dir(root) or not (set_folders(root) or filesystem.exists(root / STORE_FILE)):
        check_store(root)
    _mend_store_file(root, report, dry_run)
    for folder in set_folders(root):
        if filesystem.names(folder):
            _Repair(folder, report, dry_run).run()
    if not dry_run:
        report.left += [problem for problem in verify(root).problems if problem not in report.left]
    return report


def _mend_store_file(root: Path, report: RepairReport, dry_run: bool) -> None:
    path = root / STORE_FILE
    if _whole(check_store, root):
        return
    report.mended.append(f"{str(path)!r} was damaged or missing; it says only that this is a store")
    if not dry_run:
        filesystem.write(path, sealed({"schema": STORE_SCHEMA}))


def _whole(check: Callable[..., object], *arguments: object) -> bool:
    """Whether `check` passes; a newer version is no damage and ends the repair."""
    try:
        check(*arguments)
    except VersionError:
        raise
    except StoreError:
        return False
    return True


class _Repair:
    """The repair of one feature set."""

    def __init__(self, folder: Path, report: RepairReport, dry_run: bool) -> None:
        self.folder = folder
        self.report = report
        self.dry_run = dry_run

    def run(self) -> None:
        before = len(self.report.moved)
        self._refuse_newer()
        spec = self._spec()
        self._listed_otherwise()
        for name in filesystem.names(self.folder / SHARDS, ".json"):
            self._shard(name.removesuffix(".json"), spec)
        for place, check in ((FAILURES, read_file), (RUNS, check_run), (SNAPSHOTS, read_snapshot)):
            suffix = ".jsonl" if place == FAILURES else ".json"
            for name in filesystem.names(self.folder / place, suffix):
                self._file(f"{place}/{name}", check)
        for name in filesystem.names(self.folder / TAGS, ".json"):
            self._tag(name, spec)
        if spec is not None:
            self._manifest(spec, changed=len(self.report.moved) > before)

    def _refuse_newer(self) -> None:
        """Before anything is changed: a commit or manifest of a newer version is whole, only not for us."""
        for name in filesystem.names(self.folder / SHARDS, ".json"):
            _whole(read_commit, self.folder / SHARDS / name, None)
        _whole(current, self.folder)

    def _move(self, places: list[str], why: str, keys: tuple[str, ...] = ()) -> None:
        moved = Moved(self.folder, places, why, tuple(sorted(set(keys))))
        self.report.moved.append(moved)
        if not self.dry_run:
            quarantine(moved)

    def _spec(self) -> FeatureSpec | None:
        """The spec; None where it is damaged, after it was moved aside."""
        try:
            return read_spec(self.folder)[0]
        except VersionError:
            raise
        except StoreError as error:
            if filesystem.exists(self.folder / SPEC_FILE):
                self._move([SPEC_FILE], error.message)
            self.report.left.append(
                f"{self.folder.name} has no {SPEC_FILE}: vqa-train extract-features with the same backbone writes it "
                "anew; then repair again"
            )
            return None

    def _listed_otherwise(self) -> None:
        """Commits that are whole but not the ones that the manifest lists: somebody exchanged them."""
        try:
            newest = current(self.folder)
        except StoreError:
            return
        there = set(filesystem.names(self.folder / SHARDS, ".json"))
        for shard in newest[1].shards if newest is not None else ():
            name = f"{shard.shard}.json"
            if name in there:
                data = filesystem.read(self.folder / SHARDS / name, "commit")
                if sha256_bytes(data) != shard.commit_sha256:
                    why = f"commit {name!r} is not the one that {MANIFEST_FILE} lists"
                    self._move([f"{SHARDS}/{name}", f"{SHARDS}/{shard.shard}.parquet"], why)

    def _shard(self, shard: str, spec: FeatureSpec | None) -> None:
        found = VerifyReport()
        commit = verify_shard(self.folder, shard, spec, found)
        if found.problems and not self._moved(f"{SHARDS}/{shard}.json"):
            keys = commit.keys if commit is not None else ()
            # The commit goes first: from then on the shard is none.
            self._move([f"{SHARDS}/{shard}.json", f"{SHARDS}/{shard}.parquet"], found.problems[0], keys)

    def _moved(self, place: str) -> bool:
        return any(place in moved.places for moved in self.report.moved if moved.folder == self.folder)

    def _file(self, place: str, check: Callable[[Path], object]) -> None:
        folder, _, name = place.partition("/")
        try:
            check(self.folder / folder / name)
        except VersionError:
            raise
        except StoreError as error:
            self._move([place], error.message)

    def _tag(self, name: str, spec: FeatureSpec | None) -> None:
        """A tag whose shards are not all there any more keeps nothing that anybody could read."""
        found = VerifyReport()
        found.attempt(check_tag, self.folder, name.removesuffix(".json"), spec, found)
        if found.problems:
            self._move([f"{TAGS}/{name}"], found.problems[0])

    def _manifest(self, spec: FeatureSpec, *, changed: bool) -> None:
        where = f"{str(self.folder / MANIFEST_FILE)!r}"
        whole = _whole(current, self.folder)
        linked = whole and _whole(lambda: list(chain(self.folder)))
        newest = None if whole else self._newest_snapshot()
        if whole and linked and not changed and not self._lists_gone():
            return
        if not whole and newest is not None:
            self.report.mended.append(f"{where} was damaged or missing; restored from snapshot {newest[0][:12]}")
        elif not linked:
            self.report.mended.append(f"{where}: its chain of snapshots was broken; a new chain begins")
        else:
            self.report.mended.append(f"{where} was brought up to what is there")
        if self.dry_run:
            return
        if newest is not None:
            filesystem.write(self.folder / MANIFEST_FILE, newest[1])
            linked = _whole(lambda: list(chain(self.folder)))
        log = CommitLog(self.folder, spec.fingerprint)
        (snapshot if linked else restart)(self.folder, spec.fingerprint, log)

    def _lists_gone(self) -> bool:
        found = current(self.folder)
        if found is None:
            return False
        shards, failures = (set(filesystem.names(self.folder / place)) for place in (SHARDS, FAILURES))
        return any(f"{shard.shard}.json" not in shards for shard in found[1].shards) or any(
            each.file not in failures for each in found[1].failures
        )

    def _newest_snapshot(self) -> tuple[str, bytes] | None:
        """sha256 and bytes of the whole snapshot that no other whole one names as its parent; of several the latest."""
        kept: dict[str, SnapshotRecord] = {}
        for name in filesystem.names(self.folder / SNAPSHOTS, ".json"):
            path = self.folder / SNAPSHOTS / name
            if _whole(read_snapshot, path):
                kept[path.stem] = read_snapshot(path)
        parents = {record.parent for record in kept.values()}
        ends = [(record.created, sha256) for sha256, record in kept.items() if sha256 not in parents]
        if not ends:
            return None
        sha256 = max(ends)[1]
        return sha256, filesystem.read(self.folder / SNAPSHOTS / f"{sha256}.json", "snapshot")
