"""Scoring from Python: `Scorer("NAME").score("video.mp4")`; needs onnxruntime, not torch."""

from vqa_train.pipelines.score import Score, ScoreFailure, Scorer, ScoreRequest

__all__ = ["Score", "ScoreFailure", "ScoreRequest", "Scorer"]
