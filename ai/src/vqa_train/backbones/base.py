"""What every frozen backbone is: a torch module with an identity, no labels and no training code."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vqa_train.core.types import Clip, FeatureSpec


class VideoBackbone(nn.Module, ABC):
    """A frozen extractor of video features.

    Attributes:
        spec: identity of the features.
        license: SPDX id or name of the weights' licence; travels into every model that descends from them.
    """

    spec: FeatureSpec
    license: str

    @abstractmethod
    def prepare(self, clip: Clip) -> Tensor:
        """What `forward` takes for one clip, without a batch dimension, on the CPU."""

    @abstractmethod
    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """The outputs of `spec`, in order, for one prepared clip; float32 without a batch dimension."""

    @torch.inference_mode()
    def extract(self, clips: Sequence[Clip]) -> list[dict[str, NDArray[np.float32]]]:
        """Features of each clip by output name; float32 of the shapes in `spec`."""
        rows = []
        for clip in clips:
            outputs = self(self.prepare(clip))
            names = [output.name for output in self.spec.outputs]
            rows.append({n: o.float().cpu().numpy() for n, o in zip(names, outputs, strict=True)})
        return rows

    def onnx_inputs(self) -> Mapping[str, Mapping[int, str]]:
        """ONNX input name -> its dynamic axes, for one prepared clip."""
        return {"frames": {1: "height", 2: "width"}}

    @abstractmethod
    def onnx_example(self) -> Tensor:
        """A small valid argument of `forward`, to trace the graph with."""


class TextEncoder(ABC):
    """A frozen sentence encoder.

    Attributes:
        spec: identity of the features (modality "text", one output "pooled" of shape (D,)).
        license: SPDX id or name of the weights' licence.
    """

    spec: FeatureSpec
    license: str

    @abstractmethod
    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """L2-normalised embeddings, float32 (N, D), in the order of `texts`."""

    @abstractmethod
    def onnx_module(self) -> nn.Module:
        """Module (input_ids, attention_mask: int64 (N, L)) -> (N, D) normalised embeddings."""

    @abstractmethod
    def tokenizer_json(self) -> bytes:
        """The Hugging Face `tokenizers` file that scoring without torch uses."""

    @property
    @abstractmethod
    def max_tokens(self) -> int:
        """Tokens after which a text is cut, special tokens included."""


def describe(spec: FeatureSpec) -> dict[str, Any]:
    """Short facts for tables: name, fingerprint, outputs."""
    return {
        "name": spec.set_name,
        "fingerprint": spec.fingerprint,
        "outputs": {output.name: list(output.shape) for output in spec.outputs},
    }
