"""What became of one decoding job: clips, or why there are none."""

from __future__ import annotations

from dataclasses import dataclass, field

from vqa_train.core.errors import Reason
from vqa_train.core.types import Clip
from vqa_train.video.job import DecodeJob


@dataclass
class DecodeOutcome:
    """What became of one job.

    Attributes:
        job: as given.
        sha256: of the file's bytes where they were hashed, else `job.key`.
        clips: per sampling, per view; empty after a failure or `release`. Clips may share memory: do not write.
        reason: why there are no clips, or None.
        message: one line about the failure.
        seconds: that a worker took over it, the reading and hashing of the file included; 0 where it failed.
        attempts: 2 for a video that took its worker down and was tried again alone.
    """

    job: DecodeJob
    sha256: str
    clips: list[list[Clip]] = field(default_factory=list, repr=False)
    reason: Reason | None = None
    message: str = ""
    seconds: float = 0.0
    attempts: int = 1

    def release(self) -> None:
        """Let go of the frames; their memory is freed once nobody else refers to them."""
        self.clips = []

    def __enter__(self) -> DecodeOutcome:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
