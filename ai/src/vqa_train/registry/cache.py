"""Large ONNX files of backbones, kept once per machine under their sha256 and shared by models."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import IO

from vqa_train.core.errors import ModelError
from vqa_train.core.files import atomic_write
from vqa_train.core.hashcache import cache_dir

LARGE_BYTES = 50_000_000


def ready_models() -> Path:
    """Registry of the ready-made scorers, each made once per machine from its backbone's weights: <cache>/ready."""
    return cache_dir() / "ready"


def onnx_cache_path(sha256: str) -> Path:
    """Where the file with this hash is kept: <cache>/onnx/<sha256>.onnx."""
    return cache_dir() / "onnx" / f"{sha256}.onnx"


def keep(source: Path, sha256: str, weights: Path | None = None) -> Path:
    """Copy `source`, whose bytes have this hash, into the cache; returns its place there.

    Args:
        source: the graph.
        sha256: of its bytes.
        weights: the file of weights beside it, which it names by name and hash; None when they are inside.

    Raises:
        OSError: the cache cannot be written.
    """
    target = onnx_cache_path(sha256)
    # The graph last: where it is, all of it is.
    if weights is not None:
        _copy(weights, target.parent / weights.name)
    _copy(source, target)
    return target


def _copy(source: Path, target: Path) -> None:
    def copy(handle: IO[bytes]) -> None:
        with source.open("rb") as data:
            shutil.copyfileobj(data, handle, 1 << 20)

    atomic_write(target, copy)


def find_cached(sha256: str, *, size: int, what: str, remedy: str, beside: Path | None = None) -> Path:
    """The file with this hash in a bundle's folder `beside` or else in the cache; whoever loads it verifies its bytes.

    Raises:
        ModelError: it is not there; says its name, hash and size and how to get it (`remedy`).
    """
    if beside is not None and (beside / f"{sha256}.onnx").is_file():
        return beside / f"{sha256}.onnx"
    path = onnx_cache_path(sha256)
    if not path.is_file():
        raise ModelError(
            f"the ONNX file of {what} ({size / 1e6:.0f} MB, sha256 {sha256}) is not in the cache: {str(path)!r}",
            hint=remedy,
        )
    return path
