"""The built-in labelled set: distortion ladders of made or given clips, labelled with a full-reference pseudo_mos."""

from __future__ import annotations

from vqa_train.datasets.ladder.config import LadderConfig
from vqa_train.datasets.ladder.make import clip_count, make_ladder

__all__ = ["LadderConfig", "clip_count", "make_ladder"]
