"""SHA-256 of files, bytes and JSON values: the identities that everything in the store and the registry carries."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_CHUNK = 1 << 20


def sha256_bytes(data: bytes) -> str:
    """Hex SHA-256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes, read in 1 MiB pieces.

    Raises:
        OSError: the file cannot be opened or read.
    """
    with path.open("rb") as handle:
        digest = hashlib.sha256()
        while chunk := handle.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def canonical_json(value: Any) -> str:
    """One text per JSON value: sorted keys, no spaces, UTF-8 kept, no NaN or infinity.

    Raises:
        ValueError: `value` holds a NaN or an infinity.
        TypeError: `value` is not made of JSON types.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def sha256_json(value: Any) -> str:
    """Hex SHA-256 of the canonical JSON of `value`."""
    return sha256_bytes(canonical_json(value).encode("utf-8"))


def seed_from(*parts: str | int) -> int:
    """A 63-bit seed that depends on content only (hashes, names), never on rank, order or time."""
    digest = hashlib.sha256("\x1f".join(str(part) for part in parts).encode("utf-8")).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def unit_interval(*parts: str | int) -> float:
    """A number in [0, 1) decided by content, for splits by hash."""
    return math.ldexp(seed_from(*parts), -63)


def content_draws(count: int, *parts: str | int) -> NDArray[np.int64]:
    """`count` numbers in [0, 2**32) decided by content, int64 (count,); the same on every platform and version.

    Big-endian 32-bit words of SHA-256 over the parts and a block counter. `(draw * n) >> 32` is an
    integer in [0, n).
    """
    import numpy as np

    prefix = "\x1f".join(str(part) for part in parts)
    blocks = [hashlib.sha256(f"{prefix}\x1f{i}".encode()).digest() for i in range(-(-count // 8))]
    return np.frombuffer(b"".join(blocks), ">u4")[:count].astype(np.int64)
