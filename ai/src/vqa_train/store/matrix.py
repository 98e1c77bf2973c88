"""The memory-mapped matrix: one output of many keys as a raw file that training reads, written with bounded memory."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.errors import StoreError
from vqa_train.core.files import atomic_write
from vqa_train.core.hashcache import HashCache
from vqa_train.core.hashing import sha256_json
from vqa_train.core.progress import Advance, progress
from vqa_train.core.types import FeatureSpec
from vqa_train.store import filesystem
from vqa_train.store.arrow import decode, to_numpy
from vqa_train.store.index import RowIndex
from vqa_train.store.layout import CACHE, MATRIX_SCHEMA
from vqa_train.store.locate import Located, locate
from vqa_train.store.mapped import MappedMatrix, write_at
from vqa_train.store.read import check_shard, warm
from vqa_train.store.records import MatrixRecord
from vqa_train.store.rows import num_views
from vqa_train.store.seal import parse_sealed, sealed

MatrixType = Literal["float16", "float32"]
_LARGEST_FLOAT16 = 65504.0
# Elements that are worked on at a time where a whole shard is not.
_BLOCK = 1 << 20

Put = Callable[[NDArray[np.int64], NDArray[np.float32]], None]


def mapped_matrix(
    folder: Path,
    spec: FeatureSpec,
    index: RowIndex,
    hashes: HashCache,
    *,
    output: str,
    keys: Sequence[str],
    dtype: MatrixType = "float32",
    cache_dir: Path | None = None,
) -> MappedMatrix:
    """One output of `keys` in their order, averaged over the views, as a file; see `FeatureSet.mapped`.

    The file is named by the hash of what it is made from (feature set, output, keys, the digests of their rows, type),
    and checked against its own sha256 before it is used again; a damaged or foreign one is made anew.

    Raises:
        StoreError: no keys, keys without features, a value beyond float16, a damaged shard, or a failing disk.
        ConfigError: no such output.
    """
    if dtype not in get_args(MatrixType):
        raise StoreError(f"a matrix is float16 or float32, not {dtype!r}")
    if not keys:
        raise StoreError(f"no keys to make a matrix of {spec.set_name} from")
    shape = (len(keys), *spec.output(output).shape)
    views = num_views(spec)
    located = locate(spec, index, keys, views)
    source = sha256_json([MATRIX_SCHEMA, spec.fingerprint, output, dtype, views, located.sha256])
    place = cache_dir if cache_dir is not None else filesystem.cache_folder(folder, CACHE)
    path = place / f"{source}.{dtype}"
    header = path.with_suffix(".json")
    expected = {"source": source, "set": spec.set_name, "output": output, "dtype": dtype, "shape": list(shape)}
    there = path.exists() or header.exists()
    if there and _usable(path, header, expected, hashes):
        hashes.save()
        return MappedMatrix(path, shape, _little(dtype), "reused")
    warm(folder, (index.shards[shard] for shard in np.unique(located.shards)))
    read = _reader(folder, spec, index, hashes, output)

    def write(handle: IO[bytes]) -> None:
        os.truncate(handle.fileno(), int(np.prod(shape)) * _little(dtype).itemsize)
        with progress(f"{output} matrix", views * len(index.shards)) as advance:
            put = _putter(handle.fileno(), dtype, located, f"output {output!r} of {spec.set_name}")
            if views == 1:
                for positions, values in _parts(located, 0, read, advance):
                    put(positions, values)
            else:
                _average(located, views, shape, place, read, put, advance)

    _guarded(path, lambda: atomic_write(path, write))
    record = {"schema": MATRIX_SCHEMA, **expected, "bytes": path.stat().st_size, "sha256": hashes.sha256(path)}
    filesystem.write(header, sealed(record))
    hashes.save()
    return MappedMatrix(path, shape, _little(dtype), "remade" if there else "made")


def _little(dtype: str) -> np.dtype[Any]:
    return np.dtype(dtype).newbyteorder("<")


def _usable(path: Path, header: Path, expected: dict[str, Any], hashes: HashCache) -> bool:
    """Whether the two files are whole and what their name says."""
    try:
        record = parse_sealed(MatrixRecord, filesystem.read(header, "matrix header"), f"matrix header {str(header)!r}")
        found = record.model_dump(mode="json", by_alias=True)
        same = {name: found[name] for name in expected} == expected
        return same and path.stat().st_size == record.bytes and hashes.sha256(path) == record.sha256
    except (StoreError, OSError):
        return False


def _reader(
    folder: Path, spec: FeatureSpec, index: RowIndex, hashes: HashCache, output: str
) -> Callable[[int], NDArray[np.float32]]:
    def read(shard: int) -> NDArray[np.float32]:
        table = decode(check_shard(folder, index.shards[shard], hashes), [output])
        return to_numpy(table.column(output), spec.output(output).shape)

    return read


def _parts(
    located: Located, view: int, read: Callable[[int], NDArray[np.float32]], advance: Advance
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """(positions, values) shard by shard."""
    for shard, positions, rows in located.by_shard(view):
        yield positions, read(shard)[rows]
        advance()


def _putter(descriptor: int, dtype: MatrixType, located: Located, what: str) -> Put:
    """A function that writes float32 rows at their positions, in the type of the file."""

    def put(positions: NDArray[np.int64], values: NDArray[np.float32]) -> None:
        if dtype == "float16":
            _check_float16(positions, values, located, what)
        # Infinity that was published stays infinity; anything else beyond float16 was refused above.
        with np.errstate(over="ignore"):
            write_at(descriptor, positions, values.astype(_little(dtype)))

    return put


def _check_float16(positions: NDArray[np.int64], values: NDArray[np.float32], located: Located, what: str) -> None:
    beyond = np.isfinite(values) & (np.abs(values) > _LARGEST_FLOAT16)
    if beyond.any():
        row = int(np.flatnonzero(beyond.reshape(len(values), -1).any(axis=1))[0])
        raise StoreError(
            f"{what}, row {located.keys[positions[row]].decode()[:12]}: {values[beyond][0]:g} is beyond float16, "
            f"which ends at {_LARGEST_FLOAT16:g}",
            hint="use float32",
        )


def _average(
    located: Located,
    views: int,
    shape: tuple[int, ...],
    place: Path,
    read: Callable[[int], NDArray[np.float32]],
    put: Put,
    advance: Advance,
) -> None:
    """Put the mean over the views, summed in float64 view by view in a file that is gone afterwards."""
    with tempfile.TemporaryFile(dir=place) as scratch:
        os.truncate(scratch.fileno(), int(np.prod(shape)) * 8)
        sums = MappedMatrix.of_descriptor(scratch.fileno(), shape, np.dtype(np.float64))
        for view in range(views):
            for positions, values in _parts(located, view, read, advance):
                write_at(scratch.fileno(), positions, sums.rows(positions) + values)
        step = max(1, _BLOCK // max(1, int(np.prod(shape[1:]))))
        for start in range(0, shape[0], step):
            stop = min(start + step, shape[0])
            put(np.arange(start, stop), (sums.read(start, stop) / views).astype(np.float32))


def _guarded(path: Path, write: Callable[[], None]) -> None:
    try:
        write()
    except OSError as error:
        raise StoreError(
            f"cannot write the matrix {str(path)!r}: {error.strerror or error}",
            hint="give a folder with enough space; vqa-train store gc --delete frees that of older ones",
        ) from error
