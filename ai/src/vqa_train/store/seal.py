"""Sealed JSON: a text file that carries the sha256 of its own bytes, so that one flipped byte anywhere in it is found.

The last field, alone on its line, is `"seal"`: the sha256 of every byte before that line. What follows is fixed but
for that hash, so no byte of the file is outside the check. The file stays plain JSON for every other reader.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from vqa_train.core.errors import StoreError
from vqa_train.core.hashing import sha256_bytes
from vqa_train.core.versions import SCHEMA_ERROR

_VERIFY = "run vqa-train store verify for the whole picture"
M = TypeVar("M", bound=BaseModel)


class VersionError(StoreError):
    """A file of a format version that this vqa-train does not read: it is whole, and nothing to repair."""


def _tail(head: bytes) -> bytes:
    return f' "seal": "{sha256_bytes(head)}"\n}}\n'.encode("ascii")


_TAIL_BYTES = len(_tail(b""))


def sealed(value: Mapping[str, Any]) -> bytes:
    """`value` as JSON with one top-level field a line and the seal last; NaN and infinity are refused.

    Raises:
        ValueError: a NaN or an infinity.
        TypeError: not made of JSON types.
    """
    fields = [f" {_dumps(name)}: {_dumps(field)},\n" for name, field in value.items() if name != "seal"]
    # An undecodable byte of a file name is a lone surrogate, which JSON can only hold as the escape that this writes.
    head = ("{\n" + "".join(fields)).encode("utf-8", "backslashreplace")
    return head + _tail(head)


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def check_seal(data: bytes, source: str) -> None:
    """Refuse bytes that do not match their own seal.

    Raises:
        StoreError: `source` is damaged.
    """
    head = data[:-_TAIL_BYTES]
    if data[-_TAIL_BYTES:] != _tail(head):
        raise StoreError(f"{source} is damaged: its bytes do not match its seal", hint=_VERIFY)


def parse_sealed(model: type[M], data: bytes, source: str) -> M:
    """The validated content of sealed JSON.

    Raises:
        StoreError: the seal does not match, or the content does not follow the schema.
    """
    check_seal(data, source)
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        raise invalid(error, source) from error


def invalid(error: ValidationError, source: str) -> StoreError:
    """The error for content that does not follow its schema; a version that is not read comes before all else."""
    problems = error.errors(include_url=False)
    for problem in problems:
        if problem["type"] == SCHEMA_ERROR:
            return VersionError(f"{source} {problem['ctx']['message']}", hint=problem["ctx"]["hint"])
    first = problems[0]
    place = ".".join(str(part) for part in first["loc"]) or "top level"
    return StoreError(f"{source}: {place}: {first['msg']}", hint="was it written by another version of vqa-train?")
