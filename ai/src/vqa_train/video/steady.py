"""Decodes one file at a time in a worker process that stays for the next one."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Event

from vqa_train.core.types import Sampling
from vqa_train.video.job import DecodeJob, DecodeLimits
from vqa_train.video.outcome import DecodeOutcome
from vqa_train.video.pool import WorkerPool
from vqa_train.video.workers import POISON


class SteadyDecoder:
    """One isolated worker process, started with the first file and kept until `close`.

    Args:
        samplings: which frames.
        decoder: registry name.
        limits: per video.
        recycle: videos after which the process is replaced by a fresh one.
        planar: hand on stored planes where decoder and video have them.
        threads: of the decoder.
    """

    def __init__(
        self,
        samplings: Sequence[Sampling],
        *,
        decoder: str,
        limits: DecodeLimits,
        recycle: int,
        planar: bool = False,
        threads: int = 1,
    ) -> None:
        self._setup = {
            "samplings": [sampling.to_json() for sampling in samplings],
            "decoder": decoder,
            "threads": threads,
            "limits": vars(limits),
            "planar": planar,
        }
        self._limits = limits
        self._recycle = recycle
        self._pool: WorkerPool | None = None

    def decode(self, job: DecodeJob) -> DecodeOutcome:
        """What became of `job`; one that takes the process down is tried once more in a fresh one.

        Raises:
            VqaError: the process does not start, or the decoder is not installed.
        """
        outcome = self._once(job)
        if outcome.reason in POISON:
            self.close()
            outcome = self._once(job)
            outcome.attempts = 2
            if outcome.reason is not None:
                outcome.message += " (tried twice)"
        return outcome

    def warm(self) -> None:
        """Start the process before there is a file for it."""
        self._open().warm()

    def _open(self) -> WorkerPool:
        if self._pool is None:
            self._pool = WorkerPool(self._setup, 1, self._limits, self._recycle, Event())
        return self._pool

    def _once(self, job: DecodeJob) -> DecodeOutcome:
        (outcome,) = self._open().run([job])
        return outcome

    def close(self) -> None:
        """End the process; the next `decode` starts another."""
        if self._pool is not None:
            self._pool.__exit__(None, None, None)
            self._pool = None
