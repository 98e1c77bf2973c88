"""Execution providers by short name: known, installed, or an error that says which."""

from __future__ import annotations

import onnxruntime
import pytest

from vqa_train.core.errors import ModelError, UsageError
from vqa_train.onnx.providers import PROVIDERS, installed, resolve


def test_the_cpu_is_always_there() -> None:
    assert installed()[0] == "cpu"
    assert resolve("cpu") == "CPUExecutionProvider"


def test_every_name_is_one_that_onnxruntime_knows() -> None:
    assert set(PROVIDERS.values()) <= set(onnxruntime.get_all_providers())


def test_a_provider_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(UsageError, match="unknown provider 'cudo' - did you mean 'cuda'"):
        resolve("cudo")
    with pytest.raises(ModelError, match="'cuda' is not installed - installed: cpu"):
        resolve("cuda")
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    assert installed() == ("cpu", "cuda")
    assert resolve("cuda") == "CUDAExecutionProvider"
