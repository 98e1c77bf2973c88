"""Decoding for scoring: in this process, or in processes of their own that a broken file may crash."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from vqa_train.core.errors import MediaError, Reason, VqaError
from vqa_train.core.locations import is_remote, location
from vqa_train.core.types import Clip, Sampling

if TYPE_CHECKING:
    from vqa_train.video.job import DecodeJob
    from vqa_train.video.outcome import DecodeOutcome
    from vqa_train.video.steady import SteadyDecoder


class Decoders:
    """Decodes one video in each thread that asks; processes stay for the next one until `close`.

    Args:
        samplings: which frames; each file is decoded once for all.
        decoder: registry name.
        isolated: in processes of their own.
    """

    def __init__(self, samplings: Sequence[Sampling], decoder: str, *, isolated: bool) -> None:
        self._samplings = samplings
        self._decoder = decoder
        self._isolated = isolated
        self._lock = Lock()
        self._idle: dict[int, list[SteadyDecoder]] = {}

    def warm(self, threads: int) -> None:
        """Start a process, if decoding is isolated, while there is something else to wait for."""
        if self._isolated:
            decoder = self._start(threads)
            decoder.warm()
            self._idle.setdefault(threads, []).append(decoder)

    def clips(self, video: Path, threads: int) -> list[list[Clip]]:
        """Clips per sampling and view.

        Args:
            video: a local file, or a `UPath` for a URL.
            threads: of the decoder.

        Raises:
            MediaError: the video cannot be read; `reason` says why.
            DependencyError: the decoder is not installed.
        """
        from vqa_train.video.job import DecodeJob

        job = DecodeJob(key="", path=video)
        outcome = self._elsewhere(job, threads) if self._isolated else self._here(job, threads)
        if outcome.reason is not None:
            raise MediaError(outcome.message, reason=outcome.reason)
        return outcome.clips

    def _here(self, job: DecodeJob, threads: int) -> DecodeOutcome:
        from vqa_train.video.workers import decode_many

        (outcome,) = decode_many([job], self._samplings, decoder=self._decoder, workers=0, threads=threads)
        return outcome

    def _elsewhere(self, job: DecodeJob, threads: int) -> DecodeOutcome:
        with self._lock:
            idle = self._idle.setdefault(threads, [])
            decoder = idle.pop() if idle else self._start(threads)
        try:
            return decoder.decode(job)
        finally:
            with self._lock:
                idle.append(decoder)

    def _start(self, threads: int) -> SteadyDecoder:
        from vqa_train.video.job import DEFAULT_RECYCLE, DecodeLimits
        from vqa_train.video.steady import SteadyDecoder

        return SteadyDecoder(
            self._samplings,
            decoder=self._decoder,
            limits=DecodeLimits(),
            recycle=DEFAULT_RECYCLE,
            threads=threads,
        )

    def close(self) -> None:
        """End the processes that nobody uses; the next video starts others."""
        with self._lock:
            for idle in self._idle.values():
                while idle:
                    idle.pop().close()


def place_of(text: str | Path) -> Path:
    """The file or `UPath` that a request names.

    Raises:
        MediaError: an address that cannot be used here; says why.
    """
    try:
        return location(text)
    except VqaError as error:
        raise MediaError(error.message, hint=error.hint, reason=Reason.UNREADABLE) from error


def state_of(place: Path) -> str | None:
    """What changes when the file or object does: size and time, or its entity tag; None where it cannot be seen."""
    try:
        if is_remote(place):
            from vqa_train.core import remote

            return remote.state(place)
        found = place.stat()
    except (OSError, ValueError):
        return None
    return f"{found.st_size}:{found.st_mtime_ns}"
