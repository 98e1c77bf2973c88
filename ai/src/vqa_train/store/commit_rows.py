"""Reads what a commit says of its rows as an array of fixed-width records, without an object per row."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from vqa_train.core.config import StrictModel
from vqa_train.core.errors import StoreError
from vqa_train.store.records import Count, Sha256, ShardCommit
from vqa_train.store.seal import check_seal, parse_sealed

ROW = np.dtype([("key", "S32"), ("view", ">u4"), ("digest", "S8"), ("shard", ">u4"), ("row", ">u4")])
"""Key, view and digest of a row, the position of its shard in a list and its row there. Big-endian, so that records
sort as bytes by key, view, digest, shard, row: the first of a key and view is the row that readers take."""

RowArray = NDArray[np.void]
_LARGEST = 2**32 - 1
_ROW_FIELDS = ("keys", "views", "digests")


@dataclass(frozen=True)
class ShardEntry:
    """What a commit says of its shard, without the rows and statistics; see `records.ShardCommit`."""

    shard: str
    fingerprint: str
    sha256: str
    bytes: int
    rows: int
    profile: tuple[tuple[str, str], ...]
    run_id: str


class _Head(StrictModel):
    """The fields of a commit that are not per row."""

    schema_: Literal["vqa-train/shard-commit/1"] = Field(alias="schema")
    shard: str
    fingerprint: Sha256
    sha256: Sha256
    bytes: Count
    rows: Annotated[int, Field(ge=1, le=_LARGEST)]
    profile: dict[str, str]
    run_id: str
    created: str


_HEAD_FIELDS = ("schema", *(name for name in _Head.model_fields if name != "schema_"))
_FIELDS = (*_HEAD_FIELDS, *_ROW_FIELDS, "statistics")


def read_rows(data: bytes, source: str) -> tuple[ShardEntry, RowArray]:
    """The entry and the rows (`ROW`, with shard 0, in the file's order) of the commit in `data`.

    What `append` wrote is read by its fixed widths; anything else by the schema, which takes longer and says what is
    wrong. Sums are checked by their seal alone here.

    Raises:
        StoreError: damaged, or not a commit.
    """
    check_seal(data, source)
    return _by_width(data) or _by_schema(data, source)


def _by_width(data: bytes) -> tuple[ShardEntry, RowArray] | None:
    """None where the file is not laid out as `seal.sealed` does it."""
    lines = data.split(b"\n")
    values: list[bytes] = []
    # "{", one line per field, the seal, "}" and what follows the last line's end.
    if len(lines) != len(_FIELDS) + 4:
        return None
    for name, line in zip(_FIELDS, lines[1:-3], strict=True):
        start = b' "%s": ' % name.encode("ascii")
        if not line.startswith(start) or not line.endswith(b","):
            return None
        values.append(line[len(start) : -1])
    found = dict(zip(_FIELDS, values, strict=True))
    try:
        body = b",".join(b'"%s":%s' % (name.encode("ascii"), found[name]) for name in _HEAD_FIELDS)
        head = _Head.model_validate_json(b"{" + body + b"}")
        views = json.loads(found["views"])
    except (ValidationError, ValueError, RecursionError):
        return None
    keys, digests = _hex(found["keys"], head.rows, 64), _hex(found["digests"], head.rows, 16)
    if keys is None or digests is None or not _are_views(views, head.rows):
        return None
    return entry_of(head), _records(keys, views, digests)


def _hex(text: bytes, count: int, width: int) -> bytes | None:
    """The bytes that a JSON list of `count` strings of `width` lower-case hex digits stands for, or None."""
    stride = width + 3
    if len(text) != count * stride + 1 or text[:1] != b"[" or text[-1:] != b"]":
        return None
    cells = np.frombuffer(text, np.uint8, offset=1).reshape(count, stride)
    quotes = cells[:, 0] == ord('"')
    quotes &= cells[:, -2] == ord('"')
    if not quotes.all() or not (cells[:-1, -1] == ord(",")).all():
        return None
    digits = cells[:, 1:-2].tobytes()
    try:
        found = bytes.fromhex(digits.decode("ascii"))
    except ValueError:
        return None
    return found if found.hex().encode("ascii") == digits else None


def _are_views(views: Any, count: int) -> bool:
    return (
        isinstance(views, list)
        and len(views) == count
        and set(map(type, views)) == {int}
        and min(views) >= 0
        and max(views) <= _LARGEST
    )


def _by_schema(data: bytes, source: str) -> tuple[ShardEntry, RowArray]:
    commit = parse_sealed(ShardCommit, data, source)
    if max(commit.views) > _LARGEST:
        raise StoreError(f"{source}: view {max(commit.views)} is beyond {_LARGEST}")
    return entry_of(commit), records_of(commit)


def records_of(commit: ShardCommit) -> RowArray:
    """The rows of a parsed commit: `ROW`, with shard 0, in the file's order; views below 2**32."""
    keys, digests = bytes.fromhex("".join(commit.keys)), bytes.fromhex("".join(commit.digests))
    return _records(keys, commit.views, digests)


def entry_of(head: _Head | ShardCommit) -> ShardEntry:
    """A commit without its rows and sums."""
    return ShardEntry(
        shard=head.shard,
        fingerprint=head.fingerprint,
        sha256=head.sha256,
        bytes=head.bytes,
        rows=head.rows,
        profile=tuple(sorted(head.profile.items())),
        run_id=head.run_id,
    )


def _records(keys: bytes, views: Any, digests: bytes) -> RowArray:
    rows: RowArray = np.zeros(len(keys) // 32, dtype=ROW)
    rows["key"] = np.frombuffer(keys, "S32")
    rows["view"] = views
    rows["digest"] = np.frombuffer(digests, "S8")
    rows["row"] = np.arange(len(rows))
    return rows
