"""Large ONNX files of backbones, kept once per machine under their sha256 and shared by models."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import IO

from vqa_train.core.errors import ModelError
from vqa_train.core.files import atomic_write
from vqa_train.core.hashcache import cache_dir

LARGE_BYTES = 50_000_000


def onnx_cache_path(sha256: str) -> Path:
    """Where the file with this hash is kept: <cache>/onnx/<sha256>.onnx."""
    return cache_dir() / "onnx" / f"{sha256}.onnx"


def keep(source: Path, sha256: str) -> Path:
    """Copy `source`, whose bytes have this hash, into the cache; returns its place there.

    Raises:
        OSError: the cache cannot be written.
    """
    target = onnx_cache_path(sha256)

    def copy(handle: IO[bytes]) -> None:
        with source.open("rb") as data:
            shutil.copyfileobj(data, handle, 1 << 20)

    atomic_write(target, copy)
    return target


def find_cached(sha256: str, *, size: int, what: str, remedy: str) -> Path:
    """The cached file with this hash; its bytes are verified by whoever loads it.

    Raises:
        ModelError: it is not in the cache; says its name, hash and size and how to get it (`remedy`).
    """
    path = onnx_cache_path(sha256)
    if not path.is_file():
        raise ModelError(
            f"the ONNX file of {what} ({size / 1e6:.0f} MB, sha256 {sha256}) is not in the cache: {str(path)!r}",
            hint=remedy,
        )
    return path
