"""The verb fail: inputs that gave no feature are written down with a reason, and looked up again."""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vqa_train.core.errors import StoreError
from vqa_train.core.hashing import sha256_bytes
from vqa_train.store import filesystem
from vqa_train.store.append import check_run_id, now
from vqa_train.store.layout import FAILURE_SCHEMA, FAILURES
from vqa_train.store.records import FailureRecord
from vqa_train.store.rows import Failure, RecordedFailure
from vqa_train.store.seal import invalid


def file_name(data: bytes) -> str:
    """`<uuid>.jsonl` where the uuid is the first half of the content's sha256: the file is its own checksum."""
    return f"{uuid.UUID(hex=sha256_bytes(data)[:32])}.jsonl"


def add_failures(folder: Path, failures: Sequence[Failure], run_id: str) -> None:
    """Write `failures` as one file, durably; no failures write none.

    Raises:
        StoreError: a failing disk, or a key that is no sha256.
    """
    records = [
        {
            "key": failure.key,
            "id": _text(failure.id),
            "path": _text(failure.path),
            "reason": failure.reason.value,
            "message": _text(" ".join(failure.message.split())),
        }
        for failure in failures
    ]
    _write(folder, records, run_id)


def resolve_failures(folder: Path, paths: Sequence[str], run_id: str) -> None:
    """Note that what failed before at `paths` no longer stands: the file was replaced, given a prompt, or is gone.

    A failure whose key gets its rows needs no such note.

    Raises:
        StoreError: a failing disk.
    """
    resolved = {"key": None, "id": "", "reason": None, "message": "resolved"}
    _write(folder, [{**resolved, "path": _text(path)} for path in paths], run_id)


def _text(text: str) -> str:
    """`text` with the undecodable bytes of a file name spelled out: UTF-8 cannot hold them."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _write(folder: Path, records: Sequence[dict[str, Any]], run_id: str) -> None:
    if not records:
        return
    extra = {"run_id": check_run_id(run_id), "created": now()}
    lines = [json.dumps({"schema": FAILURE_SCHEMA, **r, **extra}, ensure_ascii=False) for r in records]
    for line in lines:
        _parse(line, "a failure to be written")
    data = ("\n".join(lines) + "\n").encode("utf-8")
    filesystem.write(folder / FAILURES / file_name(data), data)


def _parse(line: str | bytes, source: str) -> FailureRecord:
    try:
        return FailureRecord.model_validate_json(line)
    except ValidationError as error:
        raise invalid(error, source) from error


def checked_bytes(path: Path) -> bytes:
    """The bytes of a failures file.

    Raises:
        StoreError: missing, unreadable or damaged (its content does not hash to its name).
    """
    data = filesystem.read(path, "failures file")
    if file_name(data) != path.name:
        raise StoreError(
            f"failures file {str(path)!r} is damaged: its content does not hash to its name",
            hint="run vqa-train store verify",
        )
    return data


def read_file(path: Path) -> list[FailureRecord]:
    """The records of one failures file.

    Raises:
        StoreError: damaged or malformed.
    """
    lines = checked_bytes(path).splitlines()
    return [_parse(line, f"failures file {str(path)!r} line {i}") for i, line in enumerate(lines, 1)]


def standing(folder: Path, complete: Collection[str]) -> list[RecordedFailure]:
    """The latest failure of each key, or of each path where the key is unknown, that no later success has answered.

    Args:
        complete: keys that have all their rows; their failures no longer stand.

    Raises:
        StoreError: a damaged failures file.
    """
    files = filesystem.names(folder / FAILURES, ".jsonl")
    records = [record for name in files for record in read_file(folder / FAILURES / name)]
    records.sort(key=lambda record: record.created)
    resolved = {record.path: record.created for record in records if record.reason is None}
    latest: dict[tuple[str, str], RecordedFailure] = {}
    for record in records:
        if record.reason is None or record.created <= resolved.get(record.path, ""):
            continue
        # Once a path could be read and hashed, what was said of it while it could not is out of date.
        latest.pop(("path", record.path), None)
        latest["path" if record.key is None else "key", record.key or record.path] = RecordedFailure(
            key=record.key,
            id=record.id,
            path=record.path,
            reason=record.reason,
            message=record.message,
            run_id=record.run_id,
            created=record.created,
        )
    return sorted((f for f in latest.values() if f.key not in complete), key=lambda f: (f.path, f.created))
