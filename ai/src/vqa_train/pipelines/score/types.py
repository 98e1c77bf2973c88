"""What scoring takes and gives: a request, a score with its interval and curve, or a failure with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from vqa_train.core.errors import Reason
from vqa_train.registry.sidecar import Direction


@dataclass(frozen=True, kw_only=True)
class ScoreRequest:
    """One video to score.

    Attributes:
        video: a file or a URL.
        prompt: the text it was made from, where the model takes one.
        reference: its pristine version, where the model is full-reference.
    """

    video: str | Path
    prompt: str | None = None
    reference: str | Path | None = None


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """The scores of a video second by second; docs/scoring.md defines them.

    Attributes:
        times: start of each stretch in seconds from the first frame: 0, 1, 2, ...
        duration_s: end of the last stretch, which may be shorter than a second.
        steps: time steps of the backbone that sees fewest; where they are fewer than the seconds, one step stands for
            several seconds.
        scores: target -> a score for each of `times`, on the scale of `mos_range`.
    """

    times: tuple[float, ...]
    duration_s: float
    steps: int
    scores: Mapping[str, tuple[float, ...]]

    def worst(self, target: str, direction: Direction) -> tuple[float, float]:
        """Time in seconds and score of the worst stretch; of equally bad ones the first."""
        values = self.scores[target]
        worst = min(values) if direction == "higher_is_better" else max(values)
        return self.times[values.index(worst)], worst

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        scores = {target: list(values) for target, values in self.scores.items()}
        return {"times": list(self.times), "duration_s": self.duration_s, "steps": self.steps, "scores": scores}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Timeline:
        """Inverse of `to_json`."""
        scores = {target: tuple(values) for target, values in value["scores"].items()}
        return cls(times=tuple(value["times"]), duration_s=value["duration_s"], steps=value["steps"], scores=scores)


@dataclass(frozen=True, kw_only=True)
class Score:
    """What a model says of one video.

    Attributes:
        video: the path or URL as it was given.
        prompt: the text that went into the score, None for a model that takes none and where none was given.
        reference: the reference video that went into the score, None for a no-reference model.
        scores: target -> score on the scale of `mos_range`.
        spread: target -> standard deviation of what the model's heads say, on the same scale; None where the model
            states none.
        interval: target -> lowest and highest label to expect at `level`; None where the model has no interval, or
            an input is missing.
        level: share of new labels that the intervals are to hold; None without intervals.
        missing: inputs of the model that were absent, counted as what is usual in training.
        timeline: the scores second by second, where they were asked for.
        mos_range: target -> lowest and highest label of the dataset's scale; scores may lie a little outside.
        expected_range: target -> range of scores to expect; one outside says that the video is unlike those that
            the model was fitted on.
        direction: "higher_is_better" or "lower_is_better".
        model, version, model_sha256: name and version of the model and hash of its head's ONNX file.
        provider: what the backbones ran on: "cpu", "cuda", "tensorrt" or "openvino".
    """

    video: str
    prompt: str | None
    reference: str | None = None
    scores: Mapping[str, float]
    spread: Mapping[str, float | None]
    interval: Mapping[str, tuple[float, float] | None]
    level: float | None
    missing: tuple[str, ...]
    timeline: Timeline | None = None
    mos_range: Mapping[str, tuple[float, float]]
    expected_range: Mapping[str, tuple[float, float]]
    direction: Direction
    model: str
    version: str
    model_sha256: str
    provider: str

    @property
    def outside_expected(self) -> tuple[str, ...]:
        """Targets whose score lies outside `expected_range`."""
        ranges = self.expected_range
        return tuple(t for t, score in self.scores.items() if not ranges[t][0] <= score <= ranges[t][1])


@dataclass(frozen=True, kw_only=True)
class ScoreFailure:
    """Why one video has no score: a reason code and one line."""

    video: str
    prompt: str | None
    reference: str | None = None
    reason: Reason
    message: str


class ScoreMemory(Protocol):
    """Remembers scores between runs; asked and told in several threads."""

    def recall(self, request: ScoreRequest) -> tuple[str | None, Score | None]:
        """What a score of `request` is kept under, None where it cannot be kept, and the score if there is one."""
        ...

    def keep(self, key: str | None, score: Score) -> None:
        """Keep the score of the request that had this key before it was scored."""
        ...
