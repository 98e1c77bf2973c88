"""Worker processes that take decoding jobs: feeds them, listens to them, buries and replaces those that die."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from multiprocessing.connection import wait
from threading import Event
from types import TracebackType
from typing import Any

import numpy as np

from vqa_train.core import errors
from vqa_train.core.errors import Reason, VqaError
from vqa_train.core.locations import is_remote
from vqa_train.core.types import YuvFormat
from vqa_train.video.container import named
from vqa_train.video.decode import Plan, make_clips
from vqa_train.video.handover import Exchange
from vqa_train.video.job import DecodeJob, DecodeLimits
from vqa_train.video.outcome import DecodeOutcome
from vqa_train.video.process import WorkerProcess, cause_of_death

_AHEAD = 2
_STARTUP_S = 120.0
_MAX_FALSE_STARTS = 3
_MAX_MESSAGE = 1 << 28


class WorkerPool:
    """Worker processes, each with the job it runs and one more waiting in its socket."""

    def __init__(self, setup: dict[str, Any], size: int, limits: DecodeLimits, recycle: int, stop: Event) -> None:
        self._setup = setup
        self._size = size
        self._limits = limits
        self._recycle = recycle
        self._stop = stop
        self._workers: list[WorkerProcess] = []
        self._again: deque[DecodeJob] = deque()
        self._exhausted = False
        self._false_starts = 0
        self._exchange = Exchange()

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.kill()
        self._exchange.close()

    def warm(self) -> None:
        """Start every worker now: what takes time before the first job then takes none of it."""
        while len(self._workers) < self._size:
            self._started()

    def run(self, jobs: Iterable[DecodeJob]) -> Iterator[DecodeOutcome]:
        """One outcome per job, in any order; jobs are read as workers have room for them. May be called again."""
        source = iter(jobs)
        self._exhausted = False
        self._feed(source)
        while self._busy():
            for outcome in self._step():
                self._feed(source)
                yield outcome
            self._feed(source)

    def _busy(self) -> bool:
        waiting = bool(self._again) and not self._stop.is_set()
        return waiting or any(worker.jobs for worker in self._workers)

    def _feed(self, source: Iterator[DecodeJob]) -> None:
        """Give every worker one job, then every worker a second; start workers as there are jobs for them.

        A worker that has been given its last job counts no more: its successor starts while it is at it.
        """
        for depth in range(1, _AHEAD + 1):
            fit = [worker for worker in self._workers if worker.taken < self._recycle]
            for worker in fit:
                if len(worker.jobs) < depth and (job := self._next(source)) is not None:
                    self._give(worker, job)
            missing = self._size - len(fit) if depth == 1 else 0
            for _ in range(missing):
                if (job := self._next(source)) is None:
                    break
                self._give(self._started(), job)

    def _started(self) -> WorkerProcess:
        worker = WorkerProcess({**self._setup, "folders": [str(f) for f in self._exchange.folders]})
        self._workers.append(worker)
        return worker

    def _give(self, worker: WorkerProcess, job: DecodeJob) -> None:
        if not worker.jobs:
            worker.deadline = time.monotonic() + _STARTUP_S
        worker.send(job)

    def _next(self, source: Iterator[DecodeJob]) -> DecodeJob | None:
        if self._stop.is_set():
            return None
        if self._again:
            return self._again.popleft()
        if self._exhausted:
            return None
        job = next(source, None)
        self._exhausted = job is None
        return job

    def _step(self) -> Iterator[DecodeOutcome]:
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
                yield from self._time_out(worker)

    def _listen(self, worker: WorkerProcess) -> Iterator[DecodeOutcome]:
        try:
            message = _parsed(worker.connection.recv_bytes(_MAX_MESSAGE))
        except (EOFError, OSError):
            yield from self._bury(worker, cause_of_death(worker.end()))
            return
        except ValueError:
            yield from self._distrust(worker)
            return
        try:
            outcome = self._told(worker, message)
        except (AttributeError, IndexError, KeyError, OSError, OverflowError, TypeError, ValueError):
            # A message of the right form with other things in it than a sound worker puts there.
            yield from self._distrust(worker)
            return
        if outcome is None:
            return
        worker.jobs.popleft()
        worker.started = None
        worker.deadline = time.monotonic() + _STARTUP_S
        yield outcome
        if worker.taken >= self._recycle and not worker.jobs:
            self._workers.remove(worker)
            worker.kill()

    def _told(self, worker: WorkerProcess, message: dict[str, Any]) -> DecodeOutcome | None:
        """What a message means for the job that the worker is at; None while that goes on.

        Raises:
            VqaError: the worker cannot work at all.
        """
        job, event = worker.jobs[0], message["event"]
        if event == "done":
            return self._done(job, message)
        if event == "failed":
            return DecodeOutcome(job, job.key, reason=Reason(message["reason"]), message=str(message["message"]))
        if event == "fatal":
            raise getattr(errors, message["type"], VqaError)(message["message"], hint=message["hint"])
        started = float(message["at"]) if event == "start" else worker.started or 0.0
        remote, size = is_remote(job.path), int(message.get("bytes", 0))
        if not remote:
            with suppress(OSError):
                size = job.path.stat().st_size
        worker.started = started
        worker.deadline = started + self._limits.timeout_s(message.get("duration_s"), size, remote=remote)
        self._false_starts = 0
        return None

    def _distrust(self, worker: WorkerProcess) -> Iterator[DecodeOutcome]:
        worker.kill()
        yield from self._bury(worker, (Reason.CRASH, "the decoding process sent garbage and was stopped"))

    def _done(self, job: DecodeJob, message: dict[str, Any]) -> DecodeOutcome:
        plan = Plan(
            np.array(message["union"], np.int64),
            [[np.array(view, np.int64) for view in views] for views in message["views"]],
        )
        frames = self._exchange.take(message["name"], message["shape"])
        times, sha256 = np.array(message["times"], np.float64), str(message["sha256"])
        yuv = YuvFormat(**message["yuv"]) if message["yuv"] else None
        return DecodeOutcome(
            job, sha256, make_clips(frames, times, plan, message["facts"], sha256, yuv), seconds=message["seconds"]
        )

    def _time_out(self, worker: WorkerProcess) -> Iterator[DecodeOutcome]:
        problem = f"no answer in {_STARTUP_S:.0f} s"
        if worker.started is not None:
            problem = f"decoding was stopped after {time.monotonic() - worker.started:.0f} s"
        worker.kill()
        yield from self._bury(worker, (Reason.TIMEOUT, problem))

    def _bury(self, worker: WorkerProcess, cause: tuple[Reason, str]) -> Iterator[DecodeOutcome]:
        """Forget a worker that has ended; the job it was at has failed, one that waited behind it goes to another."""
        self._workers.remove(worker)
        reason, problem = cause
        self._exchange.discard(worker.name)
        running = worker.jobs.popleft() if worker.started is not None else None
        self._again.extend(worker.jobs)
        if running is None:
            self._false_starts += 1
            if self._false_starts >= _MAX_FALSE_STARTS:
                raise VqaError(f"decoding workers do not start: {problem}")
            return
        yield DecodeOutcome(running, running.key, reason=reason, message=f"{named(running.path)}: {problem}")


def _parsed(data: bytes) -> dict[str, Any]:
    """A worker's message.

    Raises:
        ValueError: it is none; a broken worker may send anything.
    """
    try:
        message = json.loads(data)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(message, dict) or message.get("event") not in ("start", "probed", "done", "failed", "fatal"):
        raise ValueError("not a message")
    return message
