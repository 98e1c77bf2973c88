"""Batched backbones: the batch decides nothing but speed, one that does not fit is halved and no clip is lost."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend

from vqa_train.backbones.base import BackboneOptions, Compute
from vqa_train.core.errors import DeviceError, MediaError, Reason, UsageError
from vqa_train.core.types import Clip
from vqa_train.onnx.probes import probe_clip


@pytest.fixture
def backbone(tiny_batched: ModuleType) -> Any:
    return tiny_batched.TinyBatched().eval()


@pytest.fixture
def clips() -> list[Clip]:
    return [probe_clip(4, 20 + 2 * i, 30, i) for i in range(7)]


def by_hand(module: ModuleType, clip: Clip) -> np.ndarray:
    return clip.frames[:, : module.SIDE, : module.SIDE].mean(axis=(0, 1, 2)) * np.array(module.FACTORS)


def test_features_are_those_of_the_arithmetic(backbone: Any, tiny_batched: ModuleType, clips: list[Clip]) -> None:
    backbone.configure(Compute(batch=3))
    rows = backbone.extract(clips)
    assert backbone.batches == [3, 3, 1]
    for row, clip in zip(rows, clips, strict=True):
        np.testing.assert_allclose(row["pooled"], by_hand(tiny_batched, clip), rtol=1e-5)
        assert row["pooled"].dtype == np.float32


def test_a_batch_that_does_not_fit_is_halved_until_it_does(backbone: Any, clips: list[Clip]) -> None:
    backbone.configure(Compute(batch=6))
    one_by_one = [backbone.extract([clip])[0]["pooled"] for clip in clips]
    backbone.batches.clear()
    backbone.fits = 2
    rows = backbone.run([backbone.stage(clip) for clip in clips])
    assert backbone.batches == [6, 3, 1, 1, 1, 1, 1, 1, 1]
    assert backbone.batch_size == 1
    assert [row["pooled"].tolist() for row in rows] == [pooled.tolist() for pooled in one_by_one]


def test_a_single_clip_that_does_not_fit_is_a_failure_with_a_way_out(backbone: Any, clips: list[Clip]) -> None:
    backbone.fits = 0
    with pytest.raises(MediaError, match="one clip does not fit into the memory of 'cpu' - ") as caught:
        backbone.extract(clips[:1])
    assert caught.value.reason is Reason.OUT_OF_MEMORY


def test_a_device_that_failed_is_told_from_a_clip_that_cannot_be_computed(
    backbone: Any, clips: list[Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(message: str) -> None:
        def encode(*views: torch.Tensor) -> None:
            raise RuntimeError(message)

        monkeypatch.setattr(backbone, "_network", encode)

    failing("CUDA error: an illegal memory access was encountered\nCompile with ...")
    with pytest.raises(
        DeviceError, match=r"'cpu' failed while computing 'tiny-batched': CUDA error: an illegal.*goes on"
    ):
        backbone.extract(clips[:1])
    failing("shapes do not match")
    with pytest.raises(RuntimeError, match="shapes do not match"):
        backbone.extract(clips[:1])


def test_forward_of_one_clip_is_a_batch_of_one(backbone: Any, clips: list[Clip]) -> None:
    with torch.inference_mode():
        outputs = backbone(*backbone.prepare(clips[0]))
    assert [tuple(output.shape) for output in outputs] == [(3,), (1,)]
    np.testing.assert_array_equal(outputs[0].numpy(), backbone.extract(clips[:1])[0]["pooled"])


def test_numerics_say_how_it_computes(backbone: Any) -> None:
    assert backbone.numerics() == {"device": "cpu", "precision": "float32"}
    backbone.configure(Compute(precision="bfloat16"))
    assert backbone.numerics() == {"device": "cpu", "precision": "bfloat16"}
    with pytest.raises(UsageError, match="has bfloat16 weights by now - build it again"):
        backbone.configure(Compute())


@pytest.mark.parametrize("kernel", [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH])
def test_bfloat16_weights_and_any_attention_kernel_stay_close_to_float32(
    kernel: SDPBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers")
    from vqa_train.backbones.vjepa2 import SIZES, Vjepa2Backbone

    name = "vjepa2-vitl-fpc16-256-ssv2"
    small = replace(SIZES[name], hidden=64, layers=2, heads=2, mlp=128, crop=64, frames=16)
    backbone = Vjepa2Backbone(name, small, BackboneOptions(random_weights=1))
    clips = [replace(probe_clip(16, 80, 100, i), key="") for i in range(3)]
    exact = backbone.extract(clips)
    backbone.configure(Compute(precision="bfloat16", batch=2))
    assert all(m.weight.dtype == torch.bfloat16 for m in backbone.modules() if isinstance(m, torch.nn.Linear))
    monkeypatch.setattr(backbone, "_attention", kernel)
    for row, expected in zip(backbone.extract(clips), exact, strict=True):
        for output in ("pooled", "temporal", "attentive"):
            one, other = row[output].ravel(), expected[output].ravel()
            assert one @ other / np.linalg.norm(one) / np.linalg.norm(other) > 0.999
            assert not np.array_equal(one, other)


def test_threads_are_taken_in_the_thread_that_computes(backbone: Any, clips: list[Clip]) -> None:
    before = torch.get_num_threads()
    try:
        backbone.configure(Compute(threads=1))
        backbone.extract(clips[:1])
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
