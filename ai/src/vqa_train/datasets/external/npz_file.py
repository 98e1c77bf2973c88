"""Feature files in npz, as np.savez writes them; big arrays are read in slices, pickled objects never."""

from __future__ import annotations

import lzma
import math
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.errors import Reason
from vqa_train.datasets.external.array_file import ArrayFeatures
from vqa_train.datasets.external.base import FeatureFileError

_SUFFIX = ".npy"
# NotImplementedError: a compression that is not known; RuntimeError: a member with a password.
_ERRORS = (
    OSError,
    ValueError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    KeyError,
    SyntaxError,
    RuntimeError,
    RecursionError,
    OverflowError,
)
# An array that unpacks to more than this, and to so many times what it takes up, holds no features: a bomb.
_BOMB_BYTES, _BOMB_RATIO = 256 << 20, 100


class NpzFeatures(ArrayFeatures):
    """Arrays by the names that np.savez was given."""

    format = "npz"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            with zipfile.ZipFile(path) as archive:
                members = [name for name in archive.namelist() if name.endswith(_SUFFIX)]
        except _ERRORS as error:
            raise self.damaged(error) from error
        self.names = tuple(name.removesuffix(_SUFFIX) for name in members)
        if not self.names:
            raise FeatureFileError(f"{self.what} holds no arrays", hint="a spreadsheet must be saved as CSV first")

    def versions(self) -> dict[str, str]:
        """NumPy's."""
        return {"numpy": np.__version__}

    def shape(self, name: str) -> tuple[int, ...]:
        """See ArrayFeatures."""
        with self._open(name) as member:
            return self._header(name, member)[0]

    def array(self, name: str) -> NDArray[Any]:
        """See ArrayFeatures."""
        try:
            with self._open(name) as member:
                self._header(name, member)
            with self._open(name) as member:
                array: NDArray[Any] = np.lib.format.read_array(member, allow_pickle=False)
        except _ERRORS as error:
            raise self.damaged(error) from error
        return array

    def slices(self, name: str, size: int) -> Iterator[NDArray[Any]]:
        """See ArrayFeatures; only `size` rows are in memory at a time where they lie one after the other."""
        with self._open(name) as member:
            shape, fortran, dtype = self._header(name, member)
            if fortran:
                yield from super().slices(name, size)
                return
            row = dtype.itemsize * int(np.prod(shape[1:]))
            try:
                for start in range(0, shape[0], size):
                    rows = min(size, shape[0] - start)
                    data = _read_exactly(member, rows * row)
                    yield np.frombuffer(data, dtype).reshape(rows, *shape[1:])
            except _ERRORS as error:
                raise self.damaged(error) from error

    def _open(self, name: str) -> IO[bytes]:
        try:
            archive = zipfile.ZipFile(self.path)
            info = archive.getinfo(name + _SUFFIX)
            if info.file_size > _BOMB_BYTES and info.file_size > _BOMB_RATIO * info.compress_size:
                raise FeatureFileError(
                    f"{self.what}: {name!r} unpacks from {info.compress_size:,} bytes to {info.file_size:,}, which no "
                    "features do",
                    hint="if it is meant, save it with np.savez, uncompressed",
                    reason=Reason.TOO_LARGE,
                )
            return archive.open(info)
        except _ERRORS as error:
            raise self.damaged(error) from error

    def _bytes(self, name: str) -> int:
        """Bytes of a member once it is unpacked, as the archive says; more are never read from it."""
        with zipfile.ZipFile(self.path) as archive:
            return archive.getinfo(name + _SUFFIX).file_size

    def _header(self, name: str, member: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        try:
            version = np.lib.format.read_magic(member)
            if version not in readers:
                raise FeatureFileError(f"{self.what}: {name!r} is of npy version {version}, which is not read")
            shape, fortran, dtype = readers[version](member)
            # Before anything of the size that the header claims is set aside in memory.
            claimed, there = math.prod(shape) * dtype.itemsize, self._bytes(name)
            if min(shape, default=0) < 0 or claimed > there:
                raise EOFError(f"the header of {name!r} claims {claimed:,} bytes, the archive has {there:,}")
        except _ERRORS as error:
            raise self.damaged(error) from error
        if dtype.hasobject:
            raise FeatureFileError(
                f"{self.what}: {name!r} holds pickled objects, which are not read",
                hint="save texts as np.array(ids, dtype=str) and numbers as float arrays",
            )
        return tuple(shape), bool(fortran), dtype


def _read_exactly(member: IO[bytes], count: int) -> bytes:
    data = member.read(count)
    if len(data) != count:
        raise EOFError(f"{count - len(data)} bytes are missing")
    return data
