"""Decode many files in worker processes that may crash, hang or run out of memory without taking the run along."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterable, Sequence
from itertools import takewhile
from threading import Event
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqa_train import video
from vqa_train.core import errors
from vqa_train.core.errors import Reason
from vqa_train.core.types import Sampling
from vqa_train.video.decode import make_clips, make_decoder
from vqa_train.video.job import DEFAULT_RECYCLE, DecodeJob, DecodeLimits, failure_of, run_job
from vqa_train.video.outcome import DecodeOutcome
from vqa_train.video.pool import WorkerPool

__all__ = ["DecodeJob", "DecodeLimits", "DecodeOutcome", "decode_many"]

# What a video may have done to its worker, or others to a video.
POISON = frozenset({Reason.CRASH, Reason.TIMEOUT, Reason.OUT_OF_MEMORY})


def decode_many(
    jobs: Iterable[DecodeJob],
    samplings: Sequence[Sampling],
    *,
    decoder: str = video.DEFAULT_DECODER,
    workers: int = 1,
    threads: int = 0,
    limits: DecodeLimits | None = None,
    planar: bool = False,
    recycle: int = DEFAULT_RECYCLE,
    stop: Event | None = None,
) -> Generator[DecodeOutcome, None, None]:
    """One outcome per job, in any order; what is in them does not depend on the order or on `workers`.

    A video that crashes its worker, hangs or runs out of memory may be the victim of another. It is tried again once
    when all others are done, alone in a fresh worker, and only then given up. Decoding in this process tries once.

    Args:
        jobs: read as needed: at most two per worker are being decoded or wait to be taken.
        samplings: which frames; each file is decoded once for all.
        decoder: registry name.
        workers: processes; 0 decodes in this process, where a crash is a crash and no timeout holds.
        threads: decoding threads per worker; 0 divides the cores among the workers.
        limits: per video.
        planar: hand on stored planes (`Clip.yuv`) instead of RGB where decoder and video have them.
        recycle: videos after which a worker is replaced by a fresh one.
        stop: once set, no further job is begun and nothing is tried again; those jobs have no outcome.

    Raises:
        UsageError, DependencyError: the decoder is unknown or not installed (at once).
        VqaError: workers die before they take a job.
    """
    if workers < 0:
        raise errors.UsageError(f"workers must be 0 or more, got {workers}")
    if recycle < 1:
        raise errors.UsageError(f"recycle must be 1 or more videos, got {recycle}")
    reader = make_decoder(decoder)
    bounds, stop = limits or DecodeLimits(), stop or Event()
    if workers == 0:
        wanted = takewhile(lambda _: not stop.is_set(), jobs)
        return (_decode_here(job, samplings, reader, threads, bounds, planar) for job in wanted)
    setup = {
        "samplings": [sampling.to_json() for sampling in samplings],
        "decoder": decoder,
        "threads": threads or max(1, (os.cpu_count() or 1) // workers),
        "limits": vars(bounds),
        "planar": planar,
    }
    return _in_workers(jobs, setup, workers, bounds, recycle, stop)


def _decode_here(
    job: DecodeJob, samplings: Sequence[Sampling], reader: Any, threads: int, limits: DecodeLimits, planar: bool
) -> DecodeOutcome:
    def allocate(shape: tuple[int, ...]) -> NDArray[np.uint8]:
        return np.empty(shape, np.uint8)

    started = time.monotonic()
    try:
        done = run_job(job, samplings, reader, threads, limits, allocate=allocate, probed=lambda _: None, planar=planar)
    except Exception as error:
        reason, message = failure_of(error, job.path)
        return DecodeOutcome(job, job.key, reason=reason, message=message)
    clips = make_clips(done.frames, done.times, done.plan, done.facts, done.sha256, done.yuv)
    return DecodeOutcome(job, done.sha256, clips, seconds=time.monotonic() - started)


def _in_workers(
    jobs: Iterable[DecodeJob], setup: dict[str, Any], workers: int, limits: DecodeLimits, recycle: int, stop: Event
) -> Generator[DecodeOutcome, None, None]:
    poison: list[DecodeJob] = []
    with WorkerPool(setup, workers, limits, recycle, stop) as pool:
        for outcome in pool.run(jobs):
            if outcome.reason in POISON:
                poison.append(outcome.job)
            else:
                yield outcome
    # The workers are gone: each has the machine to itself.
    for job in poison:
        if stop.is_set():
            return
        with WorkerPool(setup, 1, limits, recycle, stop) as pool:
            for outcome in pool.run([job]):
                outcome.attempts = 2
                if outcome.reason is not None:
                    outcome.message += " (tried twice)"
                yield outcome
