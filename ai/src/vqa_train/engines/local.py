"""Extraction on this machine: isolated decoding processes feed the backbones, which run in threads of this process."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import ExitStack, closing
from types import TracebackType

from vqa_train.core.errors import Reason
from vqa_train.engines.base import BatchExtractor, EngineOptions, Extractor, TaskResult, VideoTask
from vqa_train.engines.lanes import Answer, Lane, make_lane
from vqa_train.store.rows import FeatureRow
from vqa_train.video.workers import DecodeJob, decode_many


class LocalEngine:
    """Runs tasks on this machine; the files are decoded once however many backbones look at them."""

    elsewhere = False

    def run(
        self, tasks: Sequence[VideoTask], extractors: Mapping[str, Extractor], options: EngineOptions
    ) -> Generator[TaskResult, None, None]:
        """Yield one result per task as it is done.

        Tasks are grouped by the sets they lack, so that a file is never decoded for a set that has it.
        """
        groups: dict[tuple[str, ...], list[VideoTask]] = defaultdict(list)
        for task in tasks:
            groups[task.sets].append(task)
        for names, group in groups.items():
            if options.stop.is_set():
                return
            yield from self._run_group(group, {name: extractors[name] for name in names}, options)

    def _run_group(
        self, tasks: Sequence[VideoTask], extractors: Mapping[str, Extractor], options: EngineOptions
    ) -> Generator[TaskResult, None, None]:
        by_key = {task.key: task for task in tasks}
        samplings = [e.spec.sampling for e in extractors.values() if e.spec.sampling is not None]
        jobs = (DecodeJob(key=task.key, path=task.path, verify=task.verify) for task in tasks)
        outcomes = decode_many(
            jobs,
            samplings,
            decoder=options.decoder,
            workers=options.workers,
            threads=options.threads,
            limits=options.limits,
            recycle=options.recycle,
            stop=options.stop,
            planar=options.planar and all(isinstance(e, BatchExtractor) for e in extractors.values()),
        )
        under_way = _UnderWay()
        with closing(outcomes), ExitStack() as stack:
            lanes = {name: make_lane(extractor, options.compute) for name, extractor in extractors.items()}
            for lane in lanes.values():
                stack.push(_closer(lane))
            for outcome in outcomes:
                task = by_key[outcome.job.key]
                if outcome.reason is not None:
                    failure = (outcome.reason, outcome.message)
                    yield TaskResult(task=task, failures=dict.fromkeys(extractors, failure), attempts=outcome.attempts)
                    continue
                with outcome:
                    pairs = list(zip(lanes.items(), outcome.clips, strict=True))
                under_way.add(task, outcome.attempts, {name: lane.submit(task, clips) for (name, lane), clips in pairs})
                del pairs
                # Bounds what is under way; the decoders are held back through `outcomes`.
                yield from under_way.finished(wait_above=max(lane.room for lane in lanes.values()))
            for lane in lanes.values():
                lane.flush()
            yield from under_way.finished(wait_above=0)


def _closer(lane: Lane) -> Callable[[type[BaseException] | None, BaseException | None, TracebackType | None], None]:
    """Closes a lane; whoever interrupts a run does not wait for the clips under way."""
    return lambda kind, _error, _traceback: lane.close(wait=kind is None or issubclass(kind, Exception))


class _UnderWay:
    """Tasks whose answers are not all there."""

    def __init__(self) -> None:
        self._answers: list[tuple[VideoTask, int, dict[str, Future[Answer]]]] = []

    def add(self, task: VideoTask, attempts: int, answers: dict[str, Future[Answer]]) -> None:
        """Take a task up."""
        self._answers.append((task, attempts, answers))

    def finished(self, *, wait_above: int) -> Iterator[TaskResult]:
        """Results that are there; waits while more than `wait_above` tasks are under way."""
        while True:
            still = []
            for task, attempts, answers in self._answers:
                if all(answer.done() for answer in answers.values()):
                    yield _result(task, attempts, {name: answer.result() for name, answer in answers.items()})
                else:
                    still.append((task, attempts, answers))
            self._answers = still
            if len(still) <= wait_above:
                return
            wait([a for *_, answers in still for a in answers.values() if not a.done()], return_when=FIRST_COMPLETED)


def _result(task: VideoTask, attempts: int, answers: Mapping[str, Answer]) -> TaskResult:
    rows: dict[str, list[FeatureRow]] = {}
    failures: dict[str, tuple[Reason, str]] = {}
    for name, answer in answers.items():
        if isinstance(answer, tuple):
            failures[name] = answer
        else:
            rows[name] = answer
    return TaskResult(task=task, rows=rows, failures=failures, attempts=attempts)
