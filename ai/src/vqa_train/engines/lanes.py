"""How clips get through one extractor: one after the other in threads, or staged and run in batches of many videos."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import BoundedSemaphore
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.errors import DeviceError, Reason, VqaError
from vqa_train.core.types import Clip
from vqa_train.engines.base import BatchExtractor, Extractor, VideoTask
from vqa_train.store.rows import FeatureRow

Outputs = dict[str, NDArray[np.float32]]
Failed = tuple[Reason, str]
Answer = list[FeatureRow] | Failed

_STAGERS = 2


class Lane(ABC):
    """One extractor's way through a run; `submit` from one thread only."""

    @abstractmethod
    def submit(self, task: VideoTask, clips: Sequence[Clip]) -> Future[Answer]:
        """Take the views of a video; the answer is its rows, or why there are none. May wait for room."""

    @property
    @abstractmethod
    def room(self) -> int:
        """Videos that may be under way at once; never fewer than it takes to go on."""

    @abstractmethod
    def flush(self) -> None:
        """Nothing more is coming: run what waits for company."""

    @abstractmethod
    def close(self, *, wait: bool = True) -> None:
        """End the threads, having waited for what is under way if asked to; what has not begun is dropped."""


def make_lane(extractor: Extractor, compute: int) -> Lane:
    """The lane for an extractor; `compute` clips at once where it takes them one by one."""
    return BatchLane(extractor) if isinstance(extractor, BatchExtractor) else ClipLane(extractor, compute)


class ClipLane(Lane):
    """Each video in a thread of its own, as many at once as there are threads."""

    def __init__(self, extractor: Extractor, threads: int) -> None:
        self._extractor = extractor
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads)

    def submit(self, task: VideoTask, clips: Sequence[Clip]) -> Future[Answer]:
        """Queue a video."""
        return self._pool.submit(self._answer, task, clips)

    @property
    def room(self) -> int:
        """One per thread and one to follow."""
        return self._threads + 1

    def flush(self) -> None:
        """Nothing waits here."""

    def close(self, *, wait: bool = True) -> None:
        """End the threads."""
        self._pool.shutdown(wait, cancel_futures=True)

    def _answer(self, task: VideoTask, clips: Sequence[Clip]) -> Answer:
        try:
            outputs = self._extractor.extract(clips)
        except DeviceError:
            raise
        except Exception as error:
            return _failure(task, error)
        return _rows(task, clips, outputs)


@dataclass
class _Waiting:
    task: VideoTask
    facts: list[dict[str, Any]]
    staged: list[Future[Any]]
    answer: Future[Answer] = field(default_factory=Future)


class BatchLane(Lane):
    """Clips are staged in two threads while a third runs the network over the batch before."""

    def __init__(self, extractor: BatchExtractor) -> None:
        self._extractor = extractor
        self._stagers = ThreadPoolExecutor(_STAGERS)
        self._runner = ThreadPoolExecutor(1)
        # Frames are large and views are small: bounds the clips whose frames are still held.
        self._unstaged = BoundedSemaphore(2 * _STAGERS)
        self._waiting: list[_Waiting] = []

    def submit(self, task: VideoTask, clips: Sequence[Clip]) -> Future[Answer]:
        """Stage a video; the network runs once a batch is full."""
        staged = []
        for clip in clips:
            self._unstaged.acquire()
            future = self._stagers.submit(self._extractor.stage, clip)
            future.add_done_callback(lambda _: self._unstaged.release())
            staged.append(future)
        item = _Waiting(task, [clip.facts() for clip in clips], staged)
        self._waiting.append(item)
        if sum(len(waiting.staged) for waiting in self._waiting) >= self._extractor.batch_size:
            self.flush()
        return item.answer

    @property
    def room(self) -> int:
        """Two batches: one in the network, one being filled."""
        return 2 * self._extractor.batch_size + 1

    def flush(self) -> None:
        """Run what has been submitted so far as one batch."""
        if self._waiting:
            self._runner.submit(self._run, self._waiting)
            self._waiting = []

    def close(self, *, wait: bool = True) -> None:
        """End the threads."""
        self._stagers.shutdown(wait, cancel_futures=True)
        self._runner.shutdown(wait, cancel_futures=True)

    def _run(self, items: Sequence[_Waiting]) -> None:
        """Answer every item; a failed device, or an error nobody foresaw, goes to whoever waits for the answers."""
        try:
            self._answer(items)
        except BaseException as error:
            for item in items:
                if not item.answer.done():
                    item.answer.set_exception(error)

    def _answer(self, items: Sequence[_Waiting]) -> None:
        ready: list[tuple[_Waiting, list[Any]]] = []
        for item in items:
            try:
                ready.append((item, [future.result() for future in item.staged]))
            except DeviceError:
                raise
            except Exception as error:
                item.answer.set_result(_failure(item.task, error))
        try:
            outputs = self._extractor.run([view for _, staged in ready for view in staged])
        except DeviceError:
            raise
        except Exception as error:
            if len(ready) == 1:
                ready[0][0].answer.set_result(_failure(ready[0][0].task, error))
                return
            # One clip may have spoilt it for all: each alone.
            for item, _ in ready:
                self._answer([item])
            return
        for item, staged in ready:
            mine, outputs = outputs[: len(staged)], outputs[len(staged) :]
            item.answer.set_result(_checked(item.task, item.facts, mine))


def _rows(task: VideoTask, clips: Sequence[Clip], outputs: Sequence[Outputs]) -> Answer:
    return _checked(task, [clip.facts() for clip in clips], outputs)


def _checked(task: VideoTask, facts: Sequence[dict[str, Any]], outputs: Sequence[Outputs]) -> Answer:
    bad = sorted({name for view in outputs for name, array in view.items() if not np.isfinite(array).all()})
    if bad:
        return Reason.NON_FINITE, f"{task.path.name!r}: NaN or infinity in {', '.join(bad)}"
    return [
        FeatureRow(key=task.key, view=i, outputs=view, facts=fact)
        for i, (view, fact) in enumerate(zip(outputs, facts, strict=True))
    ]


def _failure(task: VideoTask, error: Exception) -> Failed:
    if isinstance(error, VqaError):
        return error.reason or Reason.BACKBONE_ERROR, str(error)
    reason = Reason.OUT_OF_MEMORY if isinstance(error, MemoryError) else Reason.BACKBONE_ERROR
    return reason, " ".join(f"{task.path.name!r}: {type(error).__name__}: {error}".split())
