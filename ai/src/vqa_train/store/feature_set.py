"""One feature set: the features of one fingerprint, appended by any number of writers, read as if written by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vqa_train.core.errors import ConfigError, StoreError
from vqa_train.core.hashcache import HashCache
from vqa_train.core.types import FeatureSpec
from vqa_train.store import filesystem
from vqa_train.store.commits import CommitLog
from vqa_train.store.layout import FAILURES, RUNS, SPEC_FILE
from vqa_train.store.records import SetRecord, ShardCommit, SnapshotRecord
from vqa_train.store.rows import Failure, FeatureRow, RecordedFailure, checked_row, num_views
from vqa_train.store.seal import parse_sealed, sealed

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from vqa_train.store.compact import CompactReport
    from vqa_train.store.index import RowIndex
    from vqa_train.store.mapped import MappedMatrix
    from vqa_train.store.matrix import MatrixType


def read_spec(folder: Path) -> tuple[FeatureSpec, str]:
    """The spec and licence in a feature set's folder.

    Raises:
        StoreError: missing, damaged, or the recomputed fingerprint is not that of the file or the folder's name.
    """
    path = folder / SPEC_FILE
    source = f"feature set {str(path)!r}"
    record = parse_sealed(SetRecord, filesystem.read(path, "feature set"), source)
    try:
        spec = FeatureSpec.from_json(record.spec)
    except ConfigError as error:
        raise StoreError(f"{source}: {error.message}", hint=error.hint) from error
    if spec.fingerprint != record.fingerprint or spec.set_name != folder.name:
        raise StoreError(
            f"{source}: its spec has fingerprint {spec.fingerprint[:12]}, the file says {record.fingerprint[:12]}, "
            f"the folder is named {folder.name!r}",
            hint="the folder was renamed or the spec was edited; features of another meaning need a set of their own",
        )
    return spec, record.license


class FeatureSet:
    """Rows of one fingerprint in `folder`; see `FeatureStore` for how to get one.

    Attributes:
        folder: `<store>/<backbone>@<first 12 of fingerprint>`.
        spec: what the features mean.
        license: of the backbone's weights.
    """

    def __init__(self, folder: Path, spec: FeatureSpec, license: str, hashes: HashCache) -> None:
        self.folder = folder
        self.spec = spec
        self.license = license
        self._hashes = hashes
        self._log = CommitLog(folder, spec.fingerprint, hashes)

    def __repr__(self) -> str:
        return f"FeatureSet({self.name!r}, license={self.license!r})"

    @property
    def name(self) -> str:
        """`<backbone>@<first 12 of fingerprint>`."""
        return self.spec.set_name

    @property
    def fingerprint(self) -> str:
        """Hex sha256 of the spec's canonical JSON."""
        return self.spec.fingerprint

    def check(self, row: FeatureRow) -> None:
        """Refuse a row that `append` would refuse, so that one bad row costs a failure and not its whole batch.

        Raises:
            StoreError: with reason `non_finite` for NaN or infinity.
        """
        checked_row(self.spec, row)

    def append(self, rows: Iterable[FeatureRow], *, profile: Mapping[str, str], run_id: str) -> ShardCommit:
        """Write `rows` as one shard. When this returns they survive a crash; when it raises, all or none are there.

        Args:
            rows: at least one; outputs float32 of the spec's shapes, finite.
            profile: how they were computed: decoder, device kind, precision, versions.
            run_id: of the provenance that `write_run` gets.

        Raises:
            StoreError: a row that does not follow the spec, or a failing disk.
        """
        from vqa_train.store.append import append

        return append(self.folder, self.spec, list(rows), profile=profile, run_id=run_id)

    def append_arrays(
        self,
        keys: Sequence[str],
        outputs: Mapping[str, NDArray[np.float32]],
        *,
        views: Sequence[int] | None = None,
        profile: Mapping[str, str],
        run_id: str,
    ) -> ShardCommit:
        """`append` of n rows given as columns, without an object per row; for text and imported sets.

        Args:
            keys: n hex sha256.
            outputs: name -> float32 (n, *shape of the spec); finite, unless the set is imported.
            views: n numbers of views; None for view 0.

        Raises:
            StoreError: as `append`; a set whose rows carry facts about a clip.
        """
        from vqa_train.store.append import append_batch
        from vqa_train.store.batch import RowBatch

        batch = RowBatch(keys, views if views is not None else [0] * len(keys), outputs)
        return append_batch(self.folder, self.spec, batch, profile=profile, run_id=run_id)

    def commits(self) -> list[ShardCommit]:
        """Every committed shard, by name; commit files are read once, new ones are seen at every call.

        Raises:
            StoreError: a damaged commit file.
        """
        return self._log.all()

    def index(self) -> RowIndex:
        """Every committed row as one sorted array, brought up to what is committed now; see `RowIndex`.

        Raises:
            StoreError: a damaged commit file.
        """
        return self._log.index()

    def known_keys(self, views: int | None = None) -> set[str]:
        """Keys that have rows for views 0 to `views` - 1 (by default every view of the spec's sampling).

        Raises:
            StoreError: a damaged commit file.
        """
        return self.index().known_keys(views if views is not None else num_views(self.spec))

    def profiles(self) -> list[tuple[dict[str, str], int]]:
        """Each numerics profile with the rows written under it, most rows first."""
        counts: Counter[tuple[tuple[str, str], ...]] = Counter()
        for shard in self.index().shards:
            counts[shard.profile] += shard.rows
        return [(dict(profile), rows) for profile, rows in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]

    def add_failures(self, failures: Iterable[Failure], run_id: str) -> None:
        """Write down inputs that gave no feature, durably.

        Raises:
            StoreError: a failing disk.
        """
        from vqa_train.store.failures import add_failures

        add_failures(self.folder, list(failures), run_id)

    def resolve_failures(self, paths: Iterable[str], run_id: str) -> None:
        """Note that what failed before at `paths` no longer stands (a replaced file, a prompt that was added).

        A failure whose key gets its rows needs no such note.

        Raises:
            StoreError: a failing disk.
        """
        from vqa_train.store.failures import resolve_failures

        resolve_failures(self.folder, list(paths), run_id)

    def failures(self) -> list[RecordedFailure]:
        """The latest failure per key, or per path where the key is unknown, without those that later got their rows.

        Raises:
            StoreError: a damaged failures or commit file.
        """
        from vqa_train.store.failures import standing

        if not filesystem.names(self.folder / FAILURES, ".jsonl"):
            return []
        return standing(self.folder, self.known_keys())

    def read(self, columns: Sequence[str] | None = None, keys: Collection[str] | None = None) -> pa.Table:
        """One row per key and view, sorted by both; the same table whatever the order or number of shards.

        Args:
            columns: names to read, in this order; None reads all.
            keys: keys to read; a key without rows is not in the table. None reads all.

        Raises:
            StoreError: no such column, or a shard whose bytes are not what its commit says.
        """
        from vqa_train.store.read import read_table

        return read_table(self.folder, self.spec, self.index(), self._hashes, columns=columns, keys=keys)

    def matrix(self, output: str, keys: Sequence[str], view: int = 0) -> NDArray[np.float32]:
        """One output of `keys`, in their order, float32 (len(keys), *shape).

        Raises:
            StoreError: keys without a row (how many, and the first of them), or a damaged shard.
            ConfigError: no such output.
        """
        from vqa_train.store.read import read_matrix

        return read_matrix(self.folder, self.spec, self.index(), self._hashes, output=output, keys=keys, view=view)

    def mapped(
        self, output: str, keys: Sequence[str], *, dtype: MatrixType = "float32", cache_dir: Path | None = None
    ) -> MappedMatrix:
        """One output of `keys`, in their order, averaged over the views, as a raw file that is read in pieces.

        It is written once, shard by shard, with memory for one shard and the keys; later calls with the same keys use
        it again. It is safe to delete.

        Args:
            dtype: `float16` halves the file and rounds to 11 significant bits; NaN and published infinities stay.
            cache_dir: folder of the file; None for the feature set's own `cache/`.

        Raises:
            StoreError: no keys, keys without a row, a damaged shard, a finite value beyond float16, or a failing disk.
            ConfigError: no such output.
        """
        from vqa_train.store.matrix import mapped_matrix

        index, hashes = self.index(), self._hashes
        return mapped_matrix(
            self.folder, self.spec, index, hashes, output=output, keys=keys, dtype=dtype, cache_dir=cache_dir
        )

    def snapshot(self) -> tuple[str, SnapshotRecord]:
        """Bring manifest.json up to what is committed; its sha256 and content.

        Raises:
            StoreError: a damaged commit, failures file or manifest, or a failing disk.
        """
        from vqa_train.store.snapshot import snapshot

        return snapshot(self.folder, self.fingerprint, self._log)

    def compact(
        self, *, target_rows: int | None = None, dry_run: bool = False, advance: Callable[[], object] = lambda: None
    ) -> CompactReport:
        """Merge small shards into larger ones while others read and write; the rows that are read stay the same.

        Args:
            target_rows: rows of a large shard; None for the default.
            dry_run: only plan.
            advance: called after each merge.

        Raises:
            StoreError: a damaged shard or commit, or a failing disk. Merges that were done stay done.
        """
        from vqa_train.store.compact import DEFAULT_TARGET_ROWS, compact

        rows = target_rows if target_rows is not None else DEFAULT_TARGET_ROWS
        return compact(self, self._hashes, target_rows=rows, dry_run=dry_run, advance=advance)

    def write_run(self, provenance: Mapping[str, Any]) -> Path:
        """Keep the provenance block of a run that wrote here as runs/<run id>.json, sealed; an older one is replaced.

        Raises:
            StoreError: no usable `run_id` in it, or a failing disk.
        """
        from vqa_train.store.append import check_run_id

        path = self.folder / RUNS / f"{check_run_id(str(provenance.get('run_id', '')))}.json"
        filesystem.write(path, sealed(provenance))
        return path
