"""The files table: a CSV (path, sha256, bytes) beside the manifest, and the look-up of a label's file in it.

It is a CSV because a YAML list of 100,000 files takes minutes to parse.
"""

from __future__ import annotations

import csv
import io
import posixpath
import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from vqa_train.core.errors import ManifestError, Reason
from vqa_train.core.files import atomic_write_bytes, confined
from vqa_train.core.hashing import sha256_bytes
from vqa_train.datasets.manifest import FilesRef

COLUMNS = ["path", "sha256", "bytes"]
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DRIVE = re.compile(r"[A-Za-z]:[/\\]")


class FileEntry(NamedTuple):
    """One file: `path` relative to the data root with POSIX separators, hex `sha256` and size in `bytes`."""

    path: str
    sha256: str
    bytes: int


def climbs(path: str) -> bool:
    """Whether `path` is absolute or leaves its root by `..` (POSIX or Windows spelling)."""
    plain = path.replace("\\", "/")
    normal = posixpath.normpath(plain)
    return plain.startswith("/") or bool(_DRIVE.match(path)) or normal == ".." or normal.startswith("../")


def write_files_table(entries: Iterable[FileEntry], path: Path) -> FilesRef:
    """Write `entries`, sorted by path, and return the manifest's reference to the table."""
    ordered = sorted(entries)
    buffer = io.StringIO()
    # The writer quotes its own line end, but not a carriage return in a name.
    odd = any("\r" in entry.path for entry in ordered)
    writer = csv.writer(buffer, lineterminator="\n", quoting=csv.QUOTE_ALL if odd else csv.QUOTE_MINIMAL)
    writer.writerow(COLUMNS)
    writer.writerows(ordered)
    data = buffer.getvalue().encode("utf-8")
    atomic_write_bytes(path, data)
    return FilesRef(
        table=path.name, sha256=sha256_bytes(data), rows=len(ordered), bytes_total=sum(entry.bytes for entry in ordered)
    )


def read_files_table(ref: FilesRef, folder: Path) -> list[FileEntry]:
    """The entries of the table that `ref` names in `folder`, checked against `ref` and row by row.

    Raises:
        ManifestError: missing, unreadable, of another sha256, or with a malformed row.
        VqaError: with reason `path_escape`, when the table itself lies outside `folder`.
    """
    path = confined(folder, ref.table)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ManifestError(
            f"files table {str(path)!r} cannot be read: {error.strerror}",
            hint="it belongs beside the manifest; write both anew with `vqa-train datasets scan`",
        ) from error
    if sha256_bytes(data) != ref.sha256:
        raise ManifestError(
            f"files table {str(path)!r} has sha256 {sha256_bytes(data)[:12]}, its manifest says {ref.sha256[:12]}",
            hint="write both anew with `vqa-train datasets scan`",
            reason=Reason.CHECKSUM_MISMATCH,
        )
    entries = list(_parse(data, path))
    if len(entries) != ref.rows:
        raise ManifestError(f"files table {str(path)!r} has {len(entries)} rows, its manifest says {ref.rows}")
    return entries


def _parse(data: bytes, path: Path) -> Iterator[FileEntry]:
    try:
        rows = csv.reader(io.StringIO(data.decode("utf-8"), newline=""), strict=True)
        if next(rows, None) != COLUMNS:
            raise ManifestError(f"files table {str(path)!r} does not begin with the columns {','.join(COLUMNS)}")
        seen: set[str] = set()
        for number, row in enumerate(rows, start=1):
            name, digest, size = row if len(row) == 3 else ("", "", "")
            if not (name and _SHA256.fullmatch(digest) and size.isascii() and size.isdigit()) or name in seen:
                raise ManifestError(
                    f"files table {str(path)!r} row {number} is not a new path, a sha256 and a size: {row!r:.120}"
                )
            if climbs(name) or "\x00" in name:
                raise ManifestError(
                    f"files table {str(path)!r} row {number}: path {name!r} leaves the data root",
                    hint="paths are relative and stay inside the data root",
                    reason=Reason.PATH_ESCAPE,
                )
            seen.add(name)
            yield FileEntry(name, digest, int(size))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ManifestError(f"files table {str(path)!r} is not a UTF-8 CSV: {error}") from error


class FileIndex:
    """Finds the file that a label means: by its path, else by the end of its path, with or without the extension.

    Names are compared in Unicode's composed form, because archives made on macOS hold decomposed names.
    """

    def __init__(self, entries: Iterable[FileEntry]) -> None:
        self._by_path = {_composed(entry.path): entry for entry in entries}

    @cached_property
    def _by_name(self) -> dict[str, list[FileEntry]]:
        names: dict[str, list[FileEntry]] = {}
        for path, entry in self._by_path.items():
            names.setdefault(path.rpartition("/")[2], []).append(entry)
        return names

    @cached_property
    def _by_stem(self) -> dict[str, list[FileEntry]]:
        stems: dict[str, list[FileEntry]] = {}
        for name, entries in self._by_name.items():
            stems.setdefault(posixpath.splitext(name)[0], []).extend(entries)
        return stems

    def find(self, hint: str) -> list[FileEntry]:
        """Every file that `hint` may mean: one when it is clear, none when missing, several when ambiguous."""
        wanted = _composed(posixpath.normpath(hint))
        exact = self._by_path.get(wanted)
        if exact is not None:
            return [exact]
        name = wanted.rpartition("/")[2]
        found = [entry for entry in self._by_name.get(name, ()) if _ends_with(entry.path, wanted)]
        if not found:
            found = [e for e in self._by_stem.get(name, ()) if _ends_with(posixpath.splitext(e.path)[0], wanted)]
        return self.find(hint.replace("\\", "/")) if not found and "\\" in hint else found


def _ends_with(path: str, end: str) -> bool:
    composed = _composed(path)
    return composed == end or composed.endswith("/" + end)


def _composed(text: str) -> str:
    return text if text.isascii() else unicodedata.normalize("NFC", text)
