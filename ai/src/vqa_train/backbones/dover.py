"""DOVER, DOVER++ and DOVER-Mobile: a technical and an aesthetic branch over views of their own, and the fused score."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vqa_train.backbones.base import BackboneOptions, Readout
from vqa_train.backbones.batched import BatchedBackbone
from vqa_train.backbones.checkpoint import load_weights
from vqa_train.backbones.dover_network import DoverNetwork
from vqa_train.backbones.dover_positions import relative_position_index
from vqa_train.backbones.dover_views import (
    ALIGNED,
    CLIPS,
    DRAWS,
    GRID,
    PATCH,
    SIDE,
    fragment_corners,
    fragments,
    resized,
)
from vqa_train.core.errors import MediaError, Reason, UsageError, WeightsError
from vqa_train.core.types import Clip, FeatureSpec, OutputSpec, Sampling

# Setting -> values, the default first.
SETTINGS: Mapping[str, Sequence[str]] = {
    "fragments": ("content", "centre"),
    "antialias": ("off", "on"),
    "fusion": ("official", "corrected"),
    "views": ("official", "qualivision"),
}
# Mean and deviation of each channel, of grey levels 0..255.
MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)
# Every view's frames lie this far apart.
STEP = 2
# Of the technical and of the aesthetic branch: mean and deviation that standardise a raw score, and its weight.
FUSION: Mapping[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "official": ((0.1107, 0.07355, 0.6104), (-0.08285, 0.03774, 0.3896)),
    "corrected": ((-0.08285, 0.03774, 0.6104), (0.1107, 0.07355, 0.3896)),
}
QUALIVISION_FRAMES = 64
QUALIVISION_SIDE = 640
_TRAINED_ON = {
    "dover": "LSVQ, official weights",
    "dover++": "LSVQ and DIVIDE-MaxWell, official weights",
    "dover-mobile": "LSVQ, official weights",
}
_FLOPS = 672.1e9
_FLOPS_MOBILE = 104.8e9


class DoverBackbone(BatchedBackbone):
    """Features and scores of both branches; docs/features/dover.md says what each setting means.

    `forward` takes uint8 RGB frames, CLIPS * ALIGNED for the technical view and then ALIGNED for the aesthetic one, and
    draws int64 (DRAWS,) unless `fragments` is "centre". It gives `technical` and `aesthetic` (C,), the means of the
    feature maps over time, space and clips; `technical_score` and `aesthetic_score` (1,), the means of the score maps,
    unbounded; and `fused` (1,) in 0..1, higher is better.

    Args:
        name: entry of the weights manifest, and registry name.
        mobile: the network of DOVER-Mobile.
        options: settings, weights.

    Raises:
        UsageError: an unknown setting or value, or two that exclude each other.
        WeightsError: the weights are missing or do not fit.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, *, mobile: bool, options: BackboneOptions) -> None:
        super().__init__()
        chosen = options.choose(name, SETTINGS)
        self._antialias = chosen["antialias"] == "on"
        self._qualivision = chosen["views"] == "qualivision"
        self._fusion = chosen["fusion"]
        if self._qualivision and chosen["fragments"] == "centre":
            raise UsageError(
                f"backbone {name!r}: views=qualivision has no fragments", hint="leave out the setting fragments=centre"
            )
        self.draws = 0 if self._qualivision or chosen["fragments"] == "centre" else DRAWS
        self.network = DoverNetwork(mobile=mobile).eval()
        weights = load_weights(name, self.network, options)
        _refuse_other_indices(name, self.network)
        self.license = weights.license
        self.flops_per_clip = 0.0 if self._qualivision else _FLOPS_MOBILE if mobile else _FLOPS
        for label, values in (("mean", MEAN), ("std", STD)):
            self.register_buffer(label, torch.tensor(values).reshape(3, 1, 1, 1), persistent=False)
        self._sampling = self._frames()
        width = self.network.feature_dim
        scores = ("technical_score", "aesthetic_score", "fused")
        self.spec = FeatureSpec(
            backbone=name,
            definition=1,
            modality="video",
            outputs=(
                OutputSpec(name="technical", shape=(width,)),
                OutputSpec(name="aesthetic", shape=(width,)),
                *(OutputSpec(name=score, shape=(1,)) for score in scores),
            ),
            weights_sha256=weights.sha256,
            random_seed=weights.random_seed,
            sampling=self._sampling,
            preprocessing=self._preprocessing(
                {setting: value for setting, value in chosen.items() if value != SETTINGS[setting][0]}
            ),
        )

    def _frames(self) -> Sampling:
        if self._qualivision:
            return Sampling(mode="uniform", n=QUALIVISION_FRAMES, short="circulant")
        return Sampling(
            mode="segments",
            n=(CLIPS + 1) * ALIGNED,
            segments=((CLIPS, ALIGNED, STEP), (ALIGNED, 1, STEP)),
            jitter="content" if self.draws else "centre",
            short="circulant",
        )

    def _preprocessing(self, settings: Mapping[str, str]) -> dict[str, Any]:
        resize = {"filter": "bilinear", "antialias": self._antialias}
        views: dict[str, Any] = {
            "technical": {
                "frames": CLIPS * ALIGNED,
                "clips": CLIPS,
                "aligned": ALIGNED,
                "grid": GRID,
                "patch": PATCH,
                "offsets": "content" if self.draws else "centre",
                "smaller": "enlarged, corners of the original size",
            },
            "aesthetic": {"frames": ALIGNED, "size": [SIDE, SIDE], **resize},
        }
        if self._qualivision:
            size = [QUALIVISION_SIDE, QUALIVISION_SIDE]
            views = {"both": {"frames": QUALIVISION_FRAMES, "size": size, **resize}}
        technical, aesthetic = FUSION[self._fusion]
        found: dict[str, Any] = {
            "colour": "RGB uint8",
            "views": views,
            "mean": list(MEAN),
            "std": list(STD),
            "fusion": {"technical": list(technical), "aesthetic": list(aesthetic)},
        }
        return {**found, "settings": dict(settings)} if settings else found

    def prepare(self, clip: Clip) -> tuple[Tensor, ...]:
        """The clip's frames as they are, uint8 (T, H, W, 3), and draws int64 (DRAWS,) where there are any.

        Raises:
            MediaError: another number of frames or type, or sides too small to cut fragments from.
        """
        frames, name, count = clip.frames, self.spec.backbone, self._sampling.num_frames
        if frames.ndim != 4 or frames.shape[0] != count or frames.shape[3] != 3 or frames.dtype != "uint8":
            raise MediaError(
                f"{name} takes uint8 frames ({count}, H, W, 3), got {frames.dtype} {frames.shape}",
                reason=Reason.BACKBONE_ERROR,
            )
        height, width = frames.shape[1:3]
        if not self._qualivision and min(height, width) < PATCH:
            raise MediaError(
                f"{name} cuts fragments of {PATCH}x{PATCH} pixels, and the video is {width}x{height}",
                hint="leave the video out",
                reason=Reason.BACKBONE_ERROR,
            )
        return super().prepare(clip)

    def views(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """technical uint8 (CLIPS, 3, ALIGNED, SIDE, SIDE) and aesthetic uint8 (3, ALIGNED, SIDE, SIDE).

        With views=qualivision one for both branches, uint8 (3, 64, 640, 640).
        """
        frames = inputs[0]
        if self._qualivision:
            return (resized(frames, QUALIVISION_SIDE, antialias=self._antialias),)
        tops, lefts = fragment_corners(frames, inputs[1] if self.draws else None)
        aesthetic = resized(frames[CLIPS * ALIGNED :], SIDE, antialias=self._antialias)
        return fragments(frames, tops, lefts), aesthetic

    def encode(self, *views: Tensor) -> tuple[Tensor, ...]:
        """The outputs for a batch of views, float32, each with the batch dimension first."""
        technical, aesthetic = views[0], views[-1]
        if technical.ndim == 5:
            technical = technical[:, None]
        features, scores = self._branch(self.network.technical, technical.flatten(0, 1))
        clips = technical.shape[1]
        technical_features, technical_score = (
            part.reshape(-1, clips, part.shape[1]).mean(1) for part in (features, scores)
        )
        aesthetic_features, aesthetic_score = self._branch(self.network.aesthetic, aesthetic)
        fused = fuse(technical_score, aesthetic_score, self._fusion)
        return technical_features, aesthetic_features, technical_score, aesthetic_score, fused

    def _branch(self, network: Callable[[Tensor], tuple[Tensor, Tensor]], clips: Tensor) -> tuple[Tensor, Tensor]:
        """Means over time and space of the features (B, C) and of the scores (B, 1) of clips uint8 (B, 3, T, H, W)."""
        features, scores = network((clips.float() - self.mean) / self.std)
        return features.float().mean((2, 3, 4)), scores.float().mean((2, 3, 4))

    def readout(self) -> Readout:
        """The fused score and each branch's own, in 0..1."""
        return Readout(
            outputs=("fused", "technical_score", "aesthetic_score"),
            module=_Scores(self._fusion),
            targets=("overall", "technical", "aesthetic"),
            range=(0.0, 1.0),
            trained_on=_TRAINED_ON[self.spec.backbone],
            formula=f"overall is the {self._fusion} fusion, the others the logistic of its standardised raw scores",
        )

    def onnx_example(self) -> tuple[Tensor, ...]:
        """Noise of 240 x 256 pixels, and draws where there are any."""
        generator = torch.Generator().manual_seed(0)
        shape = (self._sampling.num_frames, 240, 256, 3)
        frames = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        if not self.draws:
            return (frames,)
        return frames, torch.randint(0, 1 << 32, (self.draws,), generator=generator)


def _refuse_other_indices(name: str, network: nn.Module) -> None:
    """Checkpoints hold indices too, and all of them must be the ones that the positions follow from."""
    expected = relative_position_index()
    for key, found in network.named_buffers():
        if key.endswith("relative_position_index") and not torch.equal(found, expected):
            raise WeightsError(
                f"weights {name!r}: {key!r} is not the index of relative positions of an 8 x 7 x 7 window",
                hint="the file is damaged or of another network",
            )


class _Scores(nn.Module):
    """(N, 1) fused, technical and aesthetic raw scores to (N, 3) scores in 0..1."""

    def __init__(self, fusion: str) -> None:
        super().__init__()
        self._constants = [(mean, std) for mean, std, _ in FUSION[fusion]]

    def forward(self, fused: Tensor, *raw: Tensor) -> Tensor:
        branches = [((score - mean) / std).sigmoid() for score, (mean, std) in zip(raw, self._constants, strict=True)]
        return torch.cat([fused, *branches], dim=1)


def fuse(technical: Tensor, aesthetic: Tensor, fusion: str) -> Tensor:
    """One score in 0..1 from both branches' raw scores: the logistic of the weighted sum of the standardised ones.

    Args:
        technical, aesthetic: raw scores, of one shape.
        fusion: a key of FUSION.
    """
    total = torch.zeros_like(technical)
    for raw, (mean, std, weight) in zip((technical, aesthetic), FUSION[fusion], strict=True):
        total = total + weight * ((raw - mean) / std)
    return total.sigmoid()


def dover(options: BackboneOptions | None = None) -> DoverBackbone:
    """DOVER (Wu et al., ICCV 2023)."""
    return DoverBackbone("dover", mobile=False, options=options or BackboneOptions())


def dover_plus_plus(options: BackboneOptions | None = None) -> DoverBackbone:
    """DOVER++: DOVER trained further on DIVIDE-MaxWell, on opinions of each aspect."""
    return DoverBackbone("dover++", mobile=False, options=options or BackboneOptions())


def dover_mobile(options: BackboneOptions | None = None) -> DoverBackbone:
    """DOVER-Mobile: both branches are ConvNeXt V2 femto."""
    return DoverBackbone("dover-mobile", mobile=True, options=options or BackboneOptions())
