"""A small batched backbone whose arithmetic can be done by hand, with limits that tests set."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vqa_train.backbones.base import BackboneOptions, Readout
from vqa_train.backbones.batched import BatchedBackbone
from vqa_train.core.types import FeatureSpec, OutputSpec, Sampling

FRAMES = 4
SIDE = 8
FACTORS = (0.5, 2.0, -1.0)


class TinyBatched(BatchedBackbone):
    """Mean colour of the top left SIDE x SIDE pixels, times FACTORS, and a score of it.

    Attributes:
        fits: largest batch for which there is memory.
        batches: sizes that the network was given.
    """

    license = "LicenseRef-tiny"
    flops_per_clip = 2.0 * FRAMES * SIDE * SIDE * 3

    def __init__(self, options: BackboneOptions | None = None) -> None:
        super().__init__()
        chosen = (options or BackboneOptions()).choose("tiny-batched", {"sign": ("plus", "minus")})
        self.register_buffer("factors", torch.tensor(FACTORS) * (-1 if chosen["sign"] == "minus" else 1))
        self.fits = 1000
        self.batches: list[int] = []
        self.spec = FeatureSpec(
            backbone="tiny-batched",
            definition=1,
            modality="video",
            outputs=(OutputSpec(name="pooled", shape=(3,)), OutputSpec(name="score", shape=(1,))),
            weights_sha256="2" * 64,
            random_seed=options.random_weights if options else None,
            sampling=Sampling(mode="uniform", n=FRAMES),
            preprocessing={"settings": {"sign": "minus"}} if chosen["sign"] == "minus" else {},
        )

    def views(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        (frames,) = inputs
        return (frames[:, :SIDE, :SIDE],)

    def encode(self, *views: Tensor) -> tuple[Tensor, ...]:
        (batch,) = views
        self.batches.append(len(batch))
        if len(batch) > self.fits:
            raise torch.OutOfMemoryError("pretended")
        pooled = batch.float().mean(dim=(1, 2, 3)) * self.factors
        return pooled, torch.sigmoid(pooled.mean(dim=1, keepdim=True) / 50)

    def readout(self) -> Readout:
        return Readout(
            outputs=("score",), module=nn.Identity(), targets=("overall",), range=(0.0, 1.0),
            trained_on="nothing", formula="scores = score",
        )  # fmt: skip

    def onnx_example(self) -> tuple[Tensor, ...]:
        return (torch.arange(FRAMES * 20 * 24 * 3).reshape(FRAMES, 20, 24, 3).to(torch.uint8),)
