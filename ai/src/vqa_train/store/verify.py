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
from vqa_train.core.hashing import sha256_bytes, sha256_file
from vqa_train.core.progress import progress
from vqa_train.core.types import FeatureSpec
from vqa_train.store import filesystem
from vqa_train.store.arrow import decode, to_batch, to_rows
from vqa_train.store.batch import RowBatch, check_batch, digests, pooled, stack, statistics
from vqa_train.store.commits import read_commit
from vqa_train.store.failures import read_file
from vqa_train.store.feature_set import read_spec
from vqa_train.store.layout import FAILURES, MANIFEST_FILE, RUNS, SHARDS, SNAPSHOTS, SPEC_FILE, set_folders
from vqa_train.store.records import ShardCommit, SnapshotRecord
from vqa_train.store.rows import checked_row, fact_names
from vqa_train.store.seal import check_seal
from vqa_train.store.snapshot import chain, read_snapshot
from vqa_train.store.store import check_store

_REPLACE = "delete the shard's .parquet and .json and extract again"
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


def verify(root: Path) -> VerifyReport:
    """Check every file of the store at `root` against its hash, and the files against each other.

    Files of an unfinished write (temporary ones, shards without a commit) are no part of the store; `gc` lists them.

    Raises:
        StoreError: `root` is no folder or holds no sign of a store.
    """
    report = VerifyReport()
    if not root.is_dir() or not (set_folders(root) or (root / "store.json").exists()):
        check_store(root)
    report.attempt(check_store, root)
    folders = set_folders(root)
    total = sum(len(filesystem.names(folder / SHARDS, ".json")) for folder in folders)
    with progress("verify", total) as advance:
        for folder in folders:
            if filesystem.names(folder):
                _verify_set(folder, report, advance)
    return report


def _verify_set(folder: Path, report: VerifyReport, advance: Callable[[], None]) -> None:
    report.sets += 1
    found = report.attempt(read_spec, folder)
    spec = found[0] if found is not None else None
    for name in filesystem.names(folder / SHARDS, ".json"):
        report.shards += 1
        _verify_shard(folder, Path(name).stem, spec, report)
        advance()
    for name in filesystem.names(folder / FAILURES, ".jsonl"):
        report.attempt(read_file, folder / FAILURES / name)
    for name in filesystem.names(folder / RUNS, ".json"):
        report.attempt(_check_run, folder / RUNS / name)
    for name in filesystem.names(folder / SNAPSHOTS, ".json"):
        report.attempt(read_snapshot, folder / SNAPSHOTS / name)
    report.attempt(_check_chain, folder, report)


def _verify_shard(folder: Path, shard: str, spec: FeatureSpec | None, report: VerifyReport) -> None:
    """Commit file, then Parquet file, then what the one says of the other."""
    path = folder / SHARDS / f"{shard}.parquet"
    fingerprint = spec.fingerprint if spec is not None else None
    commit = report.attempt(read_commit, path.with_suffix(".json"), fingerprint)
    if commit is None:
        return
    report.rows += commit.rows
    report.bytes += commit.bytes
    try:
        sha256, size = sha256_file(path), path.stat().st_size
    except OSError as error:
        report.problems.append(f"shard {str(path)!r} is committed but cannot be read: {error.strerror}; {_REPLACE}")
        return
    if (sha256, size) != (commit.sha256, commit.bytes):
        report.problems.append(
            f"shard {str(path)!r} is damaged: {size} bytes with sha256 {sha256[:12]}, its commit says "
            f"{commit.bytes} bytes with {commit.sha256[:12]}; {_REPLACE}"
        )
    elif spec is not None:
        for problem in _content_problems(path, spec, commit):
            report.problems.append(f"shard {str(path)!r}: {problem}")


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


def _check_run(path: Path) -> None:
    check_seal(filesystem.read(path, "run"), f"run {str(path)!r}")


def _check_chain(folder: Path, report: VerifyReport) -> None:
    """Every link of the chain, and what the newest one lists against what is there."""
    newest: SnapshotRecord | None = None
    for _, record in chain(folder):
        newest = newest or record
    if newest is None:
        return
    where = f"manifest {str(folder / MANIFEST_FILE)!r}"
    for shard in newest.shards:
        path = folder / SHARDS / f"{shard.shard}.json"
        if not path.exists():
            report.problems.append(f"{where} lists shard {shard.shard}, which is gone; extract again")
        elif report.attempt(_sha256, path) != shard.commit_sha256:
            report.problems.append(f"commit {str(path)!r} is not the one that {where} lists")
    # Their names are their hashes, so one that is there and whole is the one that was listed.
    for failures in newest.failures:
        if not (folder / FAILURES / failures.file).exists():
            report.problems.append(f"{where} lists failures file {failures.file}, which is gone")
    if report.attempt(_sha256, folder / SPEC_FILE) != newest.spec_sha256:
        report.problems.append(f"{str(folder / SPEC_FILE)!r} is not the one that {where} lists")


def _sha256(path: Path) -> str:
    return sha256_bytes(filesystem.read(path, "file"))
