"""Large ONNX files are kept by hash; a missing one is named with everything needed to get it."""

from __future__ import annotations

from pathlib import Path

import pytest

from vqa_train.core.errors import ModelError
from vqa_train.core.hashing import sha256_bytes
from vqa_train.registry.cache import find_cached, keep, onnx_cache_path


def test_a_kept_file_is_found_by_its_hash(tmp_path: Path, own_cache: Path) -> None:
    (tmp_path / "big.onnx").write_bytes(b"graph")
    digest = sha256_bytes(b"graph")
    kept = keep(tmp_path / "big.onnx", digest)
    assert kept == own_cache / "onnx" / f"{digest}.onnx" == onnx_cache_path(digest)
    assert find_cached(digest, size=5, what="backbone 'b'", remedy="copy it").read_bytes() == b"graph"
    assert [path.name for path in kept.parent.iterdir()] == [kept.name]


def test_a_missing_file_is_named_with_hash_size_place_and_remedy(own_cache: Path) -> None:
    digest = "d" * 64
    with pytest.raises(ModelError) as caught:
        find_cached(digest, size=1_340_000_000, what="backbone 'vjepa2'", remedy="copy it from elsewhere")
    for part in ("vjepa2", digest, "1340 MB", str(own_cache / "onnx"), "copy it from elsewhere"):
        assert part in str(caught.value)
