"""Decode many files in worker processes that may crash, hang or run out of memory without taking the run along."""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqa_train import video
from vqa_train.core import errors
from vqa_train.core.errors import Reason, VqaError
from vqa_train.core.types import Clip, Sampling, YuvFormat
from vqa_train.video.container import named
from vqa_train.video.decode import Plan, make_clips, make_decoder
from vqa_train.video.handover import Exchange
from vqa_train.video.job import DecodeJob, DecodeLimits, failure_of, run_job
from vqa_train.video.process import WorkerProcess, cause_of_death

__all__ = ["DecodeJob", "DecodeLimits", "DecodeOutcome", "decode_many"]

_AHEAD = 2
_STARTUP_S = 120.0
_MAX_FALSE_STARTS = 3
_MAX_MESSAGE = 1 << 28


@dataclass
class DecodeOutcome:
    """What became of one job.

    Attributes:
        job: as given.
        sha256: of the file's bytes where they were hashed, else `job.key`.
        clips: per sampling, per view; empty after a failure or `release`. Clips may share memory: do not write.
        reason: why there are no clips, or None.
        message: one line about the failure.
    """

    job: DecodeJob
    sha256: str
    clips: list[list[Clip]] = field(default_factory=list, repr=False)
    reason: Reason | None = None
    message: str = ""

    def release(self) -> None:
        """Let go of the frames; their memory is freed once nobody else refers to them."""
        self.clips = []

    def __enter__(self) -> DecodeOutcome:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def decode_many(
    jobs: Iterable[DecodeJob],
    samplings: Sequence[Sampling],
    *,
    decoder: str = video.DEFAULT_DECODER,
    workers: int = 1,
    threads: int = 0,
    limits: DecodeLimits | None = None,
    planar: bool = False,
) -> Generator[DecodeOutcome, None, None]:
    """One outcome per job, in any order; what is in them does not depend on the order or on `workers`.

    Args:
        jobs: read as needed: at most two per worker are being decoded or wait to be taken.
        samplings: which frames; each file is decoded once for all.
        decoder: registry name.
        workers: processes; 0 decodes in this process, where a crash is a crash and no timeout holds.
        threads: decoding threads per worker; 0 divides the cores among the workers.
        limits: per video.
        planar: hand on stored planes (`Clip.yuv`) instead of RGB where decoder and video have them.

    Raises:
        UsageError, DependencyError: the decoder is unknown or not installed (at once).
        VqaError: workers die before they take a job.
    """
    if workers < 0:
        raise errors.UsageError(f"workers must be 0 or more, got {workers}")
    reader = make_decoder(decoder)
    bounds = limits or DecodeLimits()
    if workers == 0:
        return (_decode_here(job, samplings, reader, threads, bounds, planar) for job in jobs)
    share = threads or max(1, (os.cpu_count() or 1) // workers)
    return _in_workers(jobs, samplings, decoder, workers, share, bounds, planar)


def _decode_here(
    job: DecodeJob, samplings: Sequence[Sampling], reader: Any, threads: int, limits: DecodeLimits, planar: bool
) -> DecodeOutcome:
    def allocate(shape: tuple[int, ...]) -> NDArray[np.uint8]:
        return np.empty(shape, np.uint8)

    try:
        done = run_job(job, samplings, reader, threads, limits, allocate=allocate, probed=lambda _: None, planar=planar)
    except Exception as error:
        reason, message = failure_of(error, job.path)
        return DecodeOutcome(job, job.key, reason=reason, message=message)
    clips = make_clips(done.frames, done.times, done.plan, done.facts, done.sha256, done.yuv)
    return DecodeOutcome(job, done.sha256, clips)


def _in_workers(
    jobs: Iterable[DecodeJob],
    samplings: Sequence[Sampling],
    decoder: str,
    workers: int,
    threads: int,
    limits: DecodeLimits,
    planar: bool,
) -> Generator[DecodeOutcome, None, None]:
    setup = {
        "samplings": [sampling.to_json() for sampling in samplings],
        "decoder": decoder,
        "threads": threads,
        "limits": vars(limits),
        "planar": planar,
    }
    with _Pool(setup, workers, limits) as pool:
        source = iter(jobs)
        pool.feed(source)
        while pool.busy():
            for outcome in pool.step():
                pool.feed(source)
                yield outcome
            pool.feed(source)


class _Pool:
    """Worker processes, each with the job it runs and one more waiting in its socket."""

    def __init__(self, setup: dict[str, Any], size: int, limits: DecodeLimits) -> None:
        self._setup = setup
        self._size = size
        self._limits = limits
        self._workers: list[WorkerProcess] = []
        self._again: deque[DecodeJob] = deque()
        self._exhausted = False
        self._false_starts = 0
        self._exchange = Exchange()

    def __enter__(self) -> _Pool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.kill()
        self._exchange.close()

    def busy(self) -> bool:
        """Whether an outcome is still to come."""
        return bool(self._again) or any(worker.jobs for worker in self._workers)

    def feed(self, source: Iterator[DecodeJob]) -> None:
        """Give every worker one job, then every worker a second; start workers as there are jobs for them."""
        for depth in range(1, _AHEAD + 1):
            for worker in self._workers:
                if len(worker.jobs) < depth and (job := self._next(source)) is not None:
                    self._give(worker, job)
            while depth == 1 and len(self._workers) < self._size and (job := self._next(source)) is not None:
                worker = WorkerProcess({**self._setup, "folders": [str(f) for f in self._exchange.folders]})
                self._workers.append(worker)
                self._give(worker, job)

    def _give(self, worker: WorkerProcess, job: DecodeJob) -> None:
        if not worker.jobs:
            worker.deadline = time.monotonic() + _STARTUP_S
        worker.send(job)

    def _next(self, source: Iterator[DecodeJob]) -> DecodeJob | None:
        if self._again:
            return self._again.popleft()
        if self._exhausted:
            return None
        job = next(source, None)
        self._exhausted = job is None
        return job

    def step(self) -> Iterator[DecodeOutcome]:
        """Wait for news from any worker or the nearest deadline; yield what has ended."""
        waiting = [worker for worker in self._workers if worker.jobs]
        if not waiting:
            return
        nearest = min(worker.deadline for worker in waiting) - time.monotonic()
        wait([worker.connection for worker in waiting], timeout=max(0.0, nearest))
        for worker in waiting:
            # What a worker has already said counts, however late we come to read it.
            if worker.connection.poll():
                yield from self._listen(worker)
            elif time.monotonic() >= worker.deadline:
                yield from self._bury(worker, timed_out=True)

    def _listen(self, worker: WorkerProcess) -> Iterator[DecodeOutcome]:
        try:
            message = json.loads(worker.connection.recv_bytes(_MAX_MESSAGE))
        except (EOFError, OSError):
            yield from self._bury(worker, timed_out=False)
            return
        job = worker.jobs[0]
        event = message["event"]
        if event in ("start", "probed"):
            worker.started = message["at"] if event == "start" else worker.started
            size = 0
            with suppress(OSError):
                size = job.path.stat().st_size
            worker.deadline = (worker.started or 0.0) + self._limits.timeout_s(message.get("duration_s"), size)
            self._false_starts = 0
            return
        worker.jobs.popleft()
        worker.started = None
        worker.deadline = time.monotonic() + _STARTUP_S
        if event == "done":
            yield self._done(job, message)
        elif event == "failed":
            yield DecodeOutcome(job, job.key, reason=Reason(message["reason"]), message=message["message"])
        else:
            raise getattr(errors, message["type"], VqaError)(message["message"], hint=message["hint"])

    def _done(self, job: DecodeJob, message: dict[str, Any]) -> DecodeOutcome:
        plan = Plan(
            np.array(message["union"], np.int64),
            [[np.array(view, np.int64) for view in views] for views in message["views"]],
        )
        frames = self._exchange.take(message["name"], message["shape"])
        times, sha256 = np.array(message["times"], np.float64), str(message["sha256"])
        yuv = YuvFormat(**message["yuv"]) if message["yuv"] else None
        return DecodeOutcome(job, sha256, make_clips(frames, times, plan, message["facts"], sha256, yuv))

    def _bury(self, worker: WorkerProcess, *, timed_out: bool) -> Iterator[DecodeOutcome]:
        """End a worker; the job it was at has failed, one that waited behind it goes to another."""
        self._workers.remove(worker)
        status = worker.kill() if timed_out else worker.end()
        self._exchange.discard(worker.name)
        running = worker.jobs.popleft() if worker.started is not None else None
        self._again.extend(worker.jobs)
        if running is None:
            self._false_starts += 1
            if self._false_starts >= _MAX_FALSE_STARTS:
                problem = f"no answer in {_STARTUP_S:.0f} s" if timed_out else cause_of_death(status)[1]
                raise VqaError(f"decoding workers do not start: {problem}")
            return
        reason, problem = cause_of_death(status)
        if timed_out:
            seconds = time.monotonic() - (worker.started or 0.0)
            reason, problem = Reason.TIMEOUT, f"decoding was stopped after {seconds:.0f} s"
        yield DecodeOutcome(running, running.key, reason=reason, message=f"{named(Path(running.path))}: {problem}")
