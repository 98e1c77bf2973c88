"""The verb verify: read every byte of a store again and name everything that is not as it was written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vqa_train.core.errors import StoreError
from vqa_train.core.hashing import sha256_bytes
from vqa_train.core.progress import progress
from vqa_train.core.types import FeatureSpec
from vqa_train.store import filesystem
from vqa_train.store.arrow import decode, to_batch, to_rows
from vqa_train.store.batch import RowBatch, check_batch, digests, pooled, stack, statistics
from vqa_train.store.commits import read_commit
from vqa_train.store.failures import read_file
from vqa_train.store.feature_set import read_spec
from vqa_train.store.layout import (
    FAILURES,
    MANIFEST_FILE,
    RETIRED,
    RUNS,
    SHARDS,
    SNAPSHOTS,
    SPEC_FILE,
    STORE_FILE,
    TAGS,
    set_folders,
)
from vqa_train.store.records import ShardCommit, SnapshotRecord
from vqa_train.store.rows import checked_row, fact_names
from vqa_train.store.seal import check_seal
from vqa_train.store.snapshot import chain, read_snapshot
from vqa_train.store.store import check_store
from vqa_train.store.tags import read_tag

_REPLACE = "vqa-train store repair moves it aside, extracting again brings its rows back"
# Sums are compared within this part of the sum of magnitudes: another NumPy may add in another order.
_SUM_TOLERANCE = 1e-9


@dataclass
class VerifyReport:
    """What `verify` read, and what was wrong with it.

    Attributes:
        sets, shards, rows, bytes: what was checked.
        problems: one line each; empty means that every byte is as written.
    """

    sets: int = 0
    shards: int = 0
    rows: int = 0
    bytes: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Nothing is wrong."""
        return not self.problems

    def attempt(self, check: Callable[..., Any], *arguments: Any) -> Any:
        """What `check` returns; a StoreError becomes a problem and None."""
        try:
            return check(*arguments)
        except StoreError as error:
            self.problems.append(error.message)
            return None


def verify(root: Path, *, content: bool = True) -> VerifyReport:
    """Check every file of the store at `root` against its hash, and the files against each other.

    Args:
        content: also decode every row and compare it with the digests and sums of its commit. A byte that changed after
            it was written is found without; this finds a writer that was wrong, at a fraction of the speed.

    Files of an unfinished write (temporary ones, shards without a commit) are no part of the store; `gc` lists them.

    Raises:
        StoreError: `root` is no folder or holds no sign of a store.
    """
    report = VerifyReport()
    if not (set_folders(root) or filesystem.exists(root / STORE_FILE)):
        check_store(root)
    report.attempt(check_store, root)
    folders = set_folders(root)
    total = sum(len(filesystem.names(folder / SHARDS, ".json")) for folder in folders)
    with progress("verify", total) as advance:
        for folder in folders:
            if filesystem.names(folder):
                _verify_set(folder, report, advance, content)
    return report


def _verify_set(folder: Path, report: VerifyReport, advance: Callable[[], None], content: bool) -> None:
    report.sets += 1
    found = report.attempt(read_spec, folder)
    spec = found[0] if found is not None else None
    for name in filesystem.names(folder / SHARDS, ".json"):
        report.shards += 1
        verify_shard(folder, name.removesuffix(".json"), spec, report, content=content)
        advance()
    for name in filesystem.names(folder / FAILURES, ".jsonl"):
        report.attempt(read_file, folder / FAILURES / name)
    for name in filesystem.names(folder / RUNS, ".json"):
        report.attempt(check_run, folder / RUNS / name)
    for name in filesystem.names(folder / SNAPSHOTS, ".json"):
        report.attempt(read_snapshot, folder / SNAPSHOTS / name)
    report.attempt(check_chain, folder, report)
    for name in filesystem.names(folder / TAGS, ".json"):
        report.attempt(check_tag, folder, name.removesuffix(".json"), spec, report)


def verify_shard(
    folder: Path,
    shard: str,
    spec: FeatureSpec | None,
    report: VerifyReport,
    place: str = SHARDS,
    *,
    content: bool = True,
) -> ShardCommit | None:
    """Commit file (in the folder `place`), then Parquet file, then what the one says of the other; what is wrong is
    added to `report`. The commit, where that can be read."""
    path = folder / SHARDS / f"{shard}.parquet"
    fingerprint = spec.fingerprint if spec is not None else None
    commit: ShardCommit | None = report.attempt(read_commit, folder / place / f"{shard}.json", fingerprint)
    if commit is None:
        return None
    report.rows += commit.rows
    report.bytes += commit.bytes
    try:
        sha256, size = filesystem.checksum(path)
    except (FileNotFoundError, StoreError) as error:
        problem = error.message if isinstance(error, StoreError) else "it is missing"
        report.problems.append(f"shard {str(path)!r} is committed but cannot be read: {problem}; {_REPLACE}")
        return commit
    if (sha256, size) != (commit.sha256, commit.bytes):
        report.problems.append(
            f"shard {str(path)!r} is damaged: {size} bytes with sha256 {sha256[:12]}, its commit says "
            f"{commit.bytes} bytes with {commit.sha256[:12]}; {_REPLACE}"
        )
    elif spec is not None and content:
        for problem in _content_problems(filesystem.fetch(path, sha256), spec, commit):
            report.problems.append(f"shard {str(path)!r}: {problem}; {_REPLACE}")
    return commit


def _content_problems(path: Path, spec: FeatureSpec, commit: ShardCommit) -> Iterator[str]:
    """What the commit says of the rows and does not hold: a fault of whoever wrote it, as both files are whole."""
    try:
        table = decode(path)
        batch = _checked(spec, table)
    except (StoreError, KeyError, ValueError) as error:
        yield f"its content cannot be read: {error}"
        return
    if (list(batch.keys), list(batch.views)) != (list(commit.keys), list(commit.views)):
        yield "its keys or views are not those of its commit"
    elif digests(spec, batch) != list(commit.digests):
        yield "its rows are not those of its commit (digests differ)"
    expected, values = statistics(spec, batch), pooled(spec, batch)
    for name in sorted(expected.keys() | commit.statistics.keys()):
        said = commit.statistics.get(name)
        if said is None or name not in expected or not _close(expected[name], said.model_dump(), values[name]):
            yield f"the sums of output {name!r} are not those of its commit"


def _checked(spec: FeatureSpec, table: pa.Table) -> RowBatch:
    if fact_names(spec):
        return stack(spec, [checked_row(spec, row) for row in to_rows(spec, table)])
    batch = to_batch(spec, table)
    check_batch(spec, batch)
    return batch


def _close(expected: dict[str, Any], said: dict[str, Any], values: NDArray[np.float64]) -> bool:
    bounds = {"sum": np.abs(values).sum(axis=0), "sum_of_squares": np.square(values).sum(axis=0)}
    return expected["n"] == said["n"] and all(
        len(said[part]) == len(bound)
        and bool(np.all(np.abs(np.subtract(expected[part], said[part])) <= _SUM_TOLERANCE * bound))
        for part, bound in bounds.items()
    )


def check_run(path: Path) -> None:
    """Refuse the provenance of a run that is not as it was written.

    Raises:
        StoreError: damaged.
    """
    check_seal(filesystem.read(path, "run"), f"run {str(path)!r}")


def check_tag(folder: Path, name: str, spec: FeatureSpec | None, report: VerifyReport) -> None:
    """A tag, its snapshot, and every shard that it lists; those that are committed were checked already.

    Raises:
        StoreError: the tag or its snapshot is missing or damaged.
    """
    record = read_tag(folder, name)
    snapshot = read_snapshot(folder / SNAPSHOTS / f"{record.snapshot}.json")
    committed, retired = (set(filesystem.names(folder / place, ".json")) for place in (SHARDS, RETIRED))
    for shard in snapshot.shards:
        file = f"{shard.shard}.json"
        if file in committed:
            place = SHARDS
        elif file in retired:
            place = RETIRED
            verify_shard(folder, shard.shard, spec, report, RETIRED)
        else:
            report.problems.append(f"tag {name!r} of {folder.name} keeps shard {shard.shard}, which is gone")
            continue
        if report.attempt(_sha256, folder / place / file) != shard.commit_sha256:
            report.problems.append(f"commit {str(folder / place / file)!r} is not the one that tag {name!r} keeps")


def check_chain(folder: Path, report: VerifyReport) -> None:
    """Every link of the chain, and what the newest one lists against what is there.

    Raises:
        StoreError: a link is missing or damaged.
    """
    newest: SnapshotRecord | None = None
    for _, record in chain(folder):
        newest = newest or record
    if newest is None:
        return
    where = f"manifest {str(folder / MANIFEST_FILE)!r}"
    for shard in newest.shards:
        path = folder / SHARDS / f"{shard.shard}.json"
        if not filesystem.exists(path) and filesystem.exists(folder / RETIRED / path.name):
            # A compaction was killed before its snapshot, or is at work.
            path = folder / RETIRED / path.name
        if not filesystem.exists(path):
            report.problems.append(f"{where} lists shard {shard.shard}, which is gone; extract again")
        elif report.attempt(_sha256, path) != shard.commit_sha256:
            report.problems.append(f"commit {str(path)!r} is not the one that {where} lists")
    # Their names are their hashes, so one that is there and whole is the one that was listed.
    for failures in newest.failures:
        if not filesystem.exists(folder / FAILURES / failures.file):
            report.problems.append(f"{where} lists failures file {failures.file}, which is gone")
    if report.attempt(_sha256, folder / SPEC_FILE) != newest.spec_sha256:
        report.problems.append(f"{str(folder / SPEC_FILE)!r} is not the one that {where} lists")


def _sha256(path: Path) -> str:
    return sha256_bytes(filesystem.read(path, "file"))
