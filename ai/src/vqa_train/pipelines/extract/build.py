"""The video backbones of a run, built and told how to compute."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vqa_train.pipelines.extract.config import ExtractConfig

if TYPE_CHECKING:
    from vqa_train.backbones.base import Compute, VideoBackbone


def build_extractors(config: ExtractConfig) -> list[VideoBackbone]:
    """The video backbones of a run; a name that stands there twice is built once."""
    from vqa_train.backbones.build import build_backbone

    return [build_backbone(name, random_weights=config.random_weights) for name in dict.fromkeys(config.backbones)]


def configure(extractors: list[VideoBackbone], compute: Compute) -> None:
    """Tell every backbone that runs a network how to compute; the others are plain arithmetic on the CPU."""
    from vqa_train.backbones.batched import BatchedBackbone

    for extractor in extractors:
        if isinstance(extractor, BatchedBackbone):
            extractor.configure(compute)
