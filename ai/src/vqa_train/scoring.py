"""Scoring from Python: `Scorer("NAME").score("video.mp4")`; needs onnxruntime, not torch."""

from vqa_train.pipelines.score.scorer import Scorer
from vqa_train.pipelines.score.types import Score, ScoreFailure, ScoreRequest, Timeline

__all__ = ["Score", "ScoreFailure", "ScoreRequest", "Scorer", "Timeline"]
