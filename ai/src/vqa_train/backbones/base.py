"""What every frozen backbone is: a torch module with an identity, no labels and no training code."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vqa_train.core.errors import UsageError
from vqa_train.core.hashing import content_draws
from vqa_train.core.plugins import did_you_mean
from vqa_train.core.types import Clip, FeatureSpec

Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class BackboneOptions:
    """What a backbone is built with.

    Attributes:
        settings: choices that are part of the feature's identity, name -> value as text ("fragments" -> "centre");
            what differs from the defaults stands in the spec's preprocessing under "settings".
        weights: file or folder to take the weights from instead of the places that the weights manifest names.
        random_weights: seed of random weights, for tests and benchmarks; None loads the real ones.
    """

    settings: Mapping[str, str] = field(default_factory=dict)
    weights: Path | None = None
    random_weights: int | None = None

    def choose(self, backbone: str, choices: Mapping[str, Sequence[str]]) -> dict[str, str]:
        """Every setting of a backbone: as given, or the first choice.

        Args:
            backbone: for messages.
            choices: setting -> allowed values, the default first.

        Raises:
            UsageError: an unknown setting or value.
        """
        for name, value in self.settings.items():
            if name not in choices:
                raise UsageError(
                    f"backbone {backbone!r} has no setting {name!r}", hint=did_you_mean(name, list(choices))
                )
            if value not in choices[name]:
                allowed = ", ".join(choices[name])
                raise UsageError(f"backbone {backbone!r}: {name} must be one of {allowed}, got {value!r}")
        return {name: self.settings.get(name, values[0]) for name, values in choices.items()}


@dataclass(frozen=True, kw_only=True)
class Compute:
    """How a backbone computes; recorded beside the features, never part of what they mean.

    Attributes:
        device: as torch names it ("cpu", "cuda", "cuda:1").
        precision: of the network's weights and activations; pooling is float32 always.
        batch: clips per forward; 0 takes what the backbone finds to fit.
        compile: run the network through torch.compile.
        threads: of one forward on the CPU; 0 leaves them as they are.
    """

    device: str = "cpu"
    precision: Precision = "float32"
    batch: int = 0
    compile: bool = False
    threads: int = 0


@dataclass(frozen=True, kw_only=True)
class Readout:
    """What a backbone's own outputs say of quality, so that it scores without any training.

    Attributes:
        outputs: names of the outputs that `module` takes, in order, each (N, D) float32.
        module: to scores (N, targets), in [low, high].
        targets: what the scores are called.
        range: low and high.
        trained_on: the data that its authors trained it on, for the model card.
        formula: in words or symbols.
    """

    outputs: tuple[str, ...]
    module: nn.Module
    targets: tuple[str, ...]
    range: tuple[float, float]
    trained_on: str
    formula: str


class VideoBackbone(nn.Module, ABC):
    """A frozen extractor of video features. Built with one argument, `BackboneOptions`, by its registry entry.

    Attributes:
        spec: identity of the features.
        license: SPDX id or name of the weights' licence; travels into every model that descends from them.
        draws: numbers in [0, 2**32) decided by the video's content that `forward` takes as its second argument;
            0 for a backbone without randomness, whose `forward` takes the frames alone.
    """

    spec: FeatureSpec
    license: str
    draws: int = 0

    def prepare(self, clip: Clip) -> tuple[Tensor, ...]:
        """The arguments of `forward` for one clip, on the CPU: frames uint8 (T, H, W, 3), and draws int64 (D,).

        Preparation beyond that belongs into `forward`, so that the exported graph has it too.
        """
        frames = torch.from_numpy(clip.frames if clip.frames.flags.writeable else clip.frames.copy())
        if not self.draws:
            return (frames,)
        return frames, torch.from_numpy(content_draws(self.draws, "draws", clip.key, clip.view))

    @abstractmethod
    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The outputs of `spec`, in order, for one prepared clip; float32 without a batch dimension."""

    @torch.inference_mode()
    def extract(self, clips: Sequence[Clip]) -> list[dict[str, NDArray[np.float32]]]:
        """Features of each clip by output name; float32 of the shapes in `spec`."""
        names = [output.name for output in self.spec.outputs]
        rows = []
        for clip in clips:
            outputs = self(*self.prepare(clip))
            rows.append({n: o.float().cpu().numpy() for n, o in zip(names, outputs, strict=True)})
        return rows

    def configure(self, compute: Compute) -> None:
        """Take up a way to compute.

        Raises:
            UsageError: one that this backbone does not have.
        """
        if compute.device != "cpu" or compute.precision != "float32":
            raise UsageError(f"backbone {self.spec.backbone!r} computes on the CPU in float32 only")

    def numerics(self) -> dict[str, str]:
        """How the features are computed now, for the numerics profile that is recorded beside them."""
        return {"device": "cpu", "precision": "float32"}

    def readout(self) -> Readout | None:
        """Its own scores, for a backbone that was trained to give some."""
        return None

    def onnx_inputs(self) -> Mapping[str, Mapping[int, str]]:
        """ONNX input name -> its dynamic axes, for one prepared clip."""
        frames: dict[str, Mapping[int, str]] = {"frames": {1: "height", 2: "width"}}
        return {**frames, "draws": {}} if self.draws else frames

    @abstractmethod
    def onnx_example(self) -> tuple[Tensor, ...]:
        """Small valid arguments of `forward`, to trace the graph with."""


class TextEncoder(ABC):
    """A frozen sentence encoder. Built with one argument, `BackboneOptions`, by its registry entry.

    Attributes:
        spec: identity of the features (modality "text", one output "pooled" of shape (D,)).
        license: SPDX id or name of the weights' licence.
    """

    spec: FeatureSpec
    license: str

    @abstractmethod
    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """L2-normalised embeddings, float32 (N, D), in the order of `texts`."""

    def configure(self, compute: Compute) -> None:
        """Move to a device, where the encoder can; precision stays float32, for texts are quick."""
        return

    def numerics(self) -> dict[str, str]:
        """How the features are computed now, for the numerics profile that is recorded beside them."""
        return {"device": "cpu", "precision": "float32"}

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
