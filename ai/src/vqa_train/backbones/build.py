"""Builds a backbone or text encoder from what a user writes: `dover++` or `dover++:fragments=centre,antialias=on`."""

from __future__ import annotations

from pathlib import Path

from vqa_train.backbones import BACKBONES, TEXT_ENCODERS
from vqa_train.backbones.base import BackboneOptions, TextEncoder, VideoBackbone
from vqa_train.core.errors import UsageError
from vqa_train.core.types import FeatureSpec


def split_name(text: str) -> tuple[str, dict[str, str]]:
    """Registry name and settings of `NAME[:SETTING=VALUE,...]`.

    Raises:
        UsageError: a setting without a value, or one that stands there twice.
    """
    name, _, rest = text.partition(":")
    settings: dict[str, str] = {}
    for part in rest.split(",") if rest else []:
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not (key and equals and value) or key in settings:
            raise UsageError(f"backbone {text!r}: expected NAME:SETTING=VALUE,..., each setting once, got {part!r}")
        settings[key] = value
    return name, settings


def build_backbone(text: str, *, weights: Path | None = None, random_weights: int | None = None) -> VideoBackbone:
    """A video backbone in inference mode.

    Args:
        text: `NAME[:SETTING=VALUE,...]`.
        weights: file or folder to take the weights from; None looks where the weights manifest says.
        random_weights: seed of random weights instead.

    Raises:
        UsageError: an unknown name, setting or value.
        WeightsError: the weights are missing, changed or do not fit.
        DependencyError: a package that it needs is not installed.
    """
    name, settings = split_name(text)
    entry = BACKBONES.get(name)
    options = BackboneOptions(settings=settings, weights=weights, random_weights=random_weights)
    backbone: VideoBackbone = entry(options)
    return backbone.eval()


def build_text_encoder(text: str, *, weights: Path | None = None) -> TextEncoder:
    """A text encoder; raises as `build_backbone`."""
    name, settings = split_name(text)
    encoder: TextEncoder = TEXT_ENCODERS.get(name)(BackboneOptions(settings=settings, weights=weights))
    return encoder


def rebuild(spec: FeatureSpec) -> VideoBackbone | TextEncoder:
    """The extractor of a feature spec, with the settings and random seed that stand in it; its own spec may still
    differ, where the weights or the definition here are others. Raises as `build_backbone`."""
    if spec.modality == "text":
        return build_text_encoder(spec.backbone)
    settings = ",".join(f"{key}={value}" for key, value in spec.preprocessing.get("settings", {}).items())
    return build_backbone(f"{spec.backbone}:{settings}" if settings else spec.backbone, random_weights=spec.random_seed)
