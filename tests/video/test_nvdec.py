"""The GPU's decoder without a GPU: told at once, with a way out. With one, the decoder contract holds it."""

from __future__ import annotations

import pytest

from vqa_train.core.errors import DependencyError
from vqa_train.video import nvdec
from vqa_train.video.workers import decode_many


def test_without_a_gpu_it_is_refused_before_anything_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvdec, "_gpus", lambda: 0)
    with pytest.raises(DependencyError, match="needs an NVIDIA GPU and its driver - use the decoder 'pyav'"):
        decode_many([], [], decoder="nvdec")


def test_a_missing_driver_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(nvdec.ctypes, "CDLL", missing)
    assert nvdec._gpus() == 0
