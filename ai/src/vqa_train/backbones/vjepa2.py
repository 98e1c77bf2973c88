"""The `vjepa2-*` backbones: frozen V-JEPA 2 encoders; docs/features/vjepa2.md defines their features."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from vqa_train.backbones.base import BackboneOptions
from vqa_train.backbones.batched import BatchedBackbone
from vqa_train.backbones.checkpoint import load_weights
from vqa_train.backbones.vjepa2_network import Vjepa2Size, build_network
from vqa_train.backbones.vjepa2_preprocess import MEAN, STD, centre_views, grey_levels, normalise
from vqa_train.core.errors import MediaError, Reason, UsageError
from vqa_train.core.types import Clip, FeatureSpec, OutputSpec, Sampling

FRAMES = ("64", "32", "16")
_VITL = Vjepa2Size(hidden=1024, layers=24, heads=16, mlp=4096, crop=256, frames=64)
_VITH = Vjepa2Size(hidden=1280, layers=32, heads=16, mlp=5120, crop=256, frames=64)
_VITG = Vjepa2Size(hidden=1408, layers=40, heads=22, mlp=6144, crop=256, frames=64)
SIZES = {
    "vjepa2-vitl-fpc64-256": _VITL,
    "vjepa2-vith-fpc64-256": _VITH,
    "vjepa2-vitg-fpc64-256": _VITG,
    "vjepa2-vitg-fpc64-384": replace(_VITG, crop=384),
    "vjepa2-vitl-fpc16-256-ssv2": replace(_VITL, frames=16, pooler_layers=3),
    "vjepa2-vitg-fpc64-384-ssv2": replace(_VITG, crop=384, pooler_layers=3),
}
"""Published checkpoint -> its network."""

# Parts of the published checkpoints that are never built: the predictor of the training, the classifier of actions.
_UNUSED = ("predictor.", "vjepa2.predictor.", "classifier.")


class Vjepa2Backbone(BatchedBackbone):
    """Means and spread of the encoder's tokens after its final norm; the predictor is neither built nor run.

    `forward` takes uint8 RGB frames (T, H, W, 3) and gives, float32 for C numbers per token and T / 2 time steps:
    `pooled` (C,), the mean over all tokens; `temporal` (T / 2, C), the mean of each time step; `spatial_std` (C,), the
    mean over the time steps of the population standard deviation over space; and with a pooler `attentive` (C,).

    Args:
        name: the published checkpoint: its entry in the weights manifest.
        size: its network; `frames` is the default of the setting of that name.
        options: settings: `frames`, one of FRAMES, and of what a smaller network has.

    Raises:
        UsageError: an unknown setting.
        WeightsError: the weights are missing, changed or do not fit.
        DependencyError: transformers is not installed.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, size: Vjepa2Size, options: BackboneOptions | None = None) -> None:
        super().__init__()
        options = options or BackboneOptions()
        default = str(size.frames)
        settings = options.choose(name, {"frames": (default, *(f for f in FRAMES if f != default))})
        self.size = replace(size, frames=int(settings["frames"]))
        network, self.encoder, self.pooler = build_network(self.size)
        loaded = load_weights(name, network, options, ignore=_UNUSED)
        self.register_buffer("mean", grey_levels(MEAN), persistent=False)
        self.register_buffer("std", grey_levels(STD), persistent=False)
        self.eval()
        self.license = loaded.license
        self.flops_per_clip = self.size.flops
        self.spec = FeatureSpec(
            backbone=name,
            definition=1,
            modality="video",
            outputs=_outputs(self.size),
            weights_sha256=loaded.sha256,
            random_seed=loaded.random_seed,
            sampling=Sampling(mode="uniform", n=self.size.frames, short="hold"),
            preprocessing={
                "colour": "RGB uint8",
                "resize": "shorter side to crop * 256 / 224, bilinear, antialiased, uint8",
                "crop": self.size.crop,
                "mean": list(MEAN),
                "std": list(STD),
                **({"settings": {"frames": settings["frames"]}} if settings["frames"] != default else {}),
            },
        )

    def prepare(self, clip: Clip) -> tuple[Tensor, ...]:
        """The clip's frames as they are, uint8 (T, H, W, 3).

        Raises:
            MediaError: not as many frames of RGB uint8 as the sampling says.
        """
        frames, count = clip.frames, self.size.frames
        if frames.ndim != 4 or frames.shape[0] != count or frames.shape[3] != 3 or frames.dtype != "uint8":
            raise MediaError(
                f"{self.spec.backbone} takes uint8 frames ({count}, H, W, 3), got {frames.dtype} {frames.shape}",
                reason=Reason.BACKBONE_ERROR,
            )
        return super().prepare(clip)

    def views(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The official preprocessing before normalisation: uint8 (T, 3, crop, crop) from frames uint8 (T, H, W, 3)."""
        (frames,) = inputs
        return (centre_views(frames, self.size.crop),)

    def encode(self, *views: Tensor) -> tuple[Tensor, ...]:
        """The outputs of `spec` for views uint8 (B, T, 3, crop, crop), float32, each with B first.

        Raises:
            UsageError: views of another shape; positions would be wrong.
        """
        (given,) = views
        crop, (steps, space) = self.size.crop, self.size.grid
        if given.shape[1:] != (self.size.frames, 3, crop, crop):
            raise UsageError(
                f"{self.spec.backbone} takes views (B, {self.size.frames}, 3, {crop}, {crop}), got {tuple(given.shape)}"
            )
        tokens = self.encoder(normalise(given, self.mean, self.std)).last_hidden_state
        grid = tokens.float().unflatten(1, (steps, space))
        variance, temporal = torch.var_mean(grid, dim=2, correction=0)
        outputs = (temporal.mean(1), temporal, variance.sqrt().mean(1))
        return outputs if self.pooler is None else (*outputs, self.pooler(tokens).float())

    def onnx_example(self) -> tuple[Tensor, ...]:
        """Noise of 48 x 64 pixels."""
        generator = torch.Generator().manual_seed(0)
        return (torch.randint(0, 256, (self.size.frames, 48, 64, 3), dtype=torch.uint8, generator=generator),)


def _outputs(size: Vjepa2Size) -> tuple[OutputSpec, ...]:
    width = (size.hidden,)
    outputs = (
        OutputSpec(name="pooled", shape=width),
        OutputSpec(name="temporal", shape=(size.grid[0], size.hidden)),
        OutputSpec(name="spatial_std", shape=width),
    )
    return outputs if size.pooler_layers is None else (*outputs, OutputSpec(name="attentive", shape=width))


def vjepa2_vitl_256(options: BackboneOptions | None = None) -> Vjepa2Backbone:
    """vjepa2-vitl-fpc64-256: 1024 numbers per token, 64 frames of 256 x 256."""
    return _build("vjepa2-vitl-fpc64-256", options)


def vjepa2_vith_256(options: BackboneOptions | None = None) -> Vjepa2Backbone:
    """vjepa2-vith-fpc64-256: 1280 numbers per token, 64 frames of 256 x 256."""
    return _build("vjepa2-vith-fpc64-256", options)


def vjepa2_vitg_256(options: BackboneOptions | None = None) -> Vjepa2Backbone:
    """vjepa2-vitg-fpc64-256: 1408 numbers per token, 64 frames of 256 x 256."""
    return _build("vjepa2-vitg-fpc64-256", options)


def vjepa2_vitg_384(options: BackboneOptions | None = None) -> Vjepa2Backbone:
    """vjepa2-vitg-fpc64-384: 1408 numbers per token, 64 frames of 384 x 384."""
    return _build("vjepa2-vitg-fpc64-384", options)


def vjepa2_vitl_256_ssv2(options: BackboneOptions | None = None) -> Vjepa2Backbone:
    """vjepa2-vitl-fpc16-256-ssv2: 16 frames of 256 x 256, and the attentive pooler of Something-Something v2."""
    return _build("vjepa2-vitl-fpc16-256-ssv2", options)


def vjepa2_vitg_384_ssv2(options: BackboneOptions | None = None) -> Vjepa2Backbone:
    """vjepa2-vitg-fpc64-384-ssv2: 64 frames of 384 x 384, and the attentive pooler of Something-Something v2."""
    return _build("vjepa2-vitg-fpc64-384-ssv2", options)


def _build(name: str, options: BackboneOptions | None) -> Vjepa2Backbone:
    return Vjepa2Backbone(name, SIZES[name], options)
