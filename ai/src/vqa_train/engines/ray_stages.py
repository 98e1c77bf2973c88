"""What a Ray run does on its workers: decode a video, compute its features, commit what has come together."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from threading import Lock
from typing import Any

import pyarrow as pa

from vqa_train.core.errors import Reason, VqaError
from vqa_train.core.types import Clip, Sampling
from vqa_train.engines.base import Built, Sink, TaskResult, VideoTask
from vqa_train.engines.lanes import Answer, make_lane
from vqa_train.engines.ray_blocks import pack, pack_clips, unpack, unpack_clips
from vqa_train.engines.ray_results import Profiles, pack_fatal, pack_result, raise_if_fatal, unpack_results
from vqa_train.store.rows import FeatureRow
from vqa_train.video.job import DecodeJob, DecodeLimits
from vqa_train.video.outcome import DecodeOutcome
from vqa_train.video.steady import SteadyDecoder
from vqa_train.video.workers import decode_many

MAX_DEATHS = 2
"""Processes that a video may take down before it is given up."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What every worker of a run needs to know; sent to each machine once.

    Attributes:
        tasks: by number.
        samplings: by feature-set name.
        build, sink: as in `EngineOptions`.
        isolated: decode in a process of its own.
        environment: variables of the driver that workers take over where they have none.
        decoder, limits, recycle, planar: as in `EngineOptions`.
    """

    tasks: Sequence[VideoTask]
    samplings: Mapping[str, Sampling]
    build: Callable[[], Built]
    sink: Sink | None
    isolated: bool
    environment: Mapping[str, str]
    decoder: str
    limits: DecodeLimits
    recycle: int
    planar: bool


class Ledger:
    """A Ray actor that counts the processes that died over a video: Ray would try it again for ever."""

    def __init__(self) -> None:
        self._begun: dict[tuple[str, int], int] = {}

    def begin(self, stage: str, numbers: Sequence[int]) -> list[int]:
        """Note that `stage` takes up tasks; how many times each was taken up before without coming to an end."""
        before = []
        for number in numbers:
            before.append(self._begun.get((stage, number), 0))
            self._begun[stage, number] = before[-1] + 1
        return before

    def end(self, stage: str, numbers: Sequence[int]) -> None:
        """Note that `stage` has done with tasks."""
        for number in numbers:
            self._begun.pop((stage, number), None)


def worker_name() -> str:
    """Host and process id."""
    return f"{socket.gethostname()}:{os.getpid()}"


class _Here:
    """What a worker process keeps between calls: the plan of the run, and the decoding process it hosts."""

    def __init__(self) -> None:
        self._plan: tuple[str, Plan] | None = None
        self._decoder: tuple[tuple[str, ...], SteadyDecoder] | None = None

    def plan(self, reference: Any) -> Plan:
        """The plan behind a reference, fetched once."""
        import ray

        if self._plan is None or self._plan[0] != reference.hex():
            plan: Plan = ray.get(reference)
            for name, value in plan.environment.items():
                os.environ.setdefault(name, value)
            self.close()
            self._plan = (reference.hex(), plan)
        return self._plan[1]

    def decode(self, plan: Plan, task: VideoTask) -> DecodeOutcome:
        """Decode in the process hosted here, or in this one where nothing is to be isolated."""
        job = DecodeJob(key=task.key, path=task.path, verify=task.verify)
        samplings = [plan.samplings[name] for name in task.sets]
        if not plan.isolated:
            with closing(decode_many([job], samplings, decoder=plan.decoder, workers=0, limits=plan.limits)) as done:
                return next(done)
        if self._decoder is None or self._decoder[0] != task.sets:
            self.close()
            decoder = SteadyDecoder(
                samplings, decoder=plan.decoder, limits=plan.limits, recycle=plan.recycle, planar=plan.planar
            )
            self._decoder = (task.sets, decoder)
        return self._decoder[1].decode(job)

    def close(self) -> None:
        """End the decoding process."""
        if self._decoder is not None:
            self._decoder[1].close()
            self._decoder = None


_HERE = _Here()


def decode(block: pa.Table, plan_reference: Any, ledger: Any) -> pa.Table:
    """Stage 1, a task: `block` holds the number of one video (column `id`); gives its clips, or why there are none."""
    import ray

    plan = _HERE.plan(plan_reference)
    (number,) = block["id"].to_pylist()
    task = plan.tasks[number]
    (deaths,) = ray.get(ledger.begin.remote("decode", [number]))
    if deaths >= MAX_DEATHS:
        return pack(number, _failed(Reason.CRASH, f"{task.path.name!r}: {deaths} processes died over decoding it", 1))
    try:
        outcome = _HERE.decode(plan, task)
    except VqaError as error:
        return pack_fatal(number, error)
    finally:
        ledger.end.remote("decode", [number])
    if outcome.reason is not None:
        return pack(number, _failed(outcome.reason, outcome.message, outcome.attempts))
    with outcome:
        header, arrays = pack_clips(dict(zip(task.sets, outcome.clips, strict=True)))
    return pack(number, {**header, "attempts": outcome.attempts}, arrays)


def _failed(reason: Reason, message: str, attempts: int) -> dict[str, Any]:
    return {"failure": [reason.value, message], "attempts": attempts}


class Compute:
    """Stage 2, an actor with a device: clips in, features out. Takes the blocks of one or several videos a call."""

    def __init__(self, plan_reference: Any, ledger: Any) -> None:
        self._plan = _HERE.plan(plan_reference)
        self._ledger = ledger
        self._lock = Lock()
        self._fatal: VqaError | None = None
        try:
            self._built = self._plan.build()
        except VqaError as error:
            # An actor that cannot be made would be made again and again: the first block brings the news instead.
            self._fatal = error
            return
        self._lanes = {name: make_lane(extractor, 1) for name, extractor in self._built.extractors.items()}

    def __call__(self, block: pa.Table) -> pa.Table:
        """Results of the videos of `block`, in its order."""
        import ray

        items = list(unpack(block))
        numbers = [number for number, _, _ in items]
        if self._fatal is not None:
            return pack_fatal(numbers[0], self._fatal)
        suspects = any(ray.get(self._ledger.begin.remote("batch", numbers)))
        try:
            # Who shared a call with a video that took the process down is innocent: each alone.
            done = self._each(items) if suspects else self._together(items)
        except VqaError as error:
            return pack_fatal(numbers[0], error)
        self._ledger.end.remote("batch", numbers)
        return pa.concat_tables(done)

    def _each(self, items: Sequence[tuple[int, Any, Any]]) -> list[pa.Table]:
        import ray

        done: list[pa.Table] = []
        for number, header, arrays in items:
            (deaths,) = ray.get(self._ledger.begin.remote("alone", [number]))
            if deaths >= MAX_DEATHS:
                path = self._plan.tasks[number].path
                message = f"{path.name!r}: {deaths} processes died over computing its features"
                done += self._together([(number, _failed(Reason.CRASH, message, header.get("attempts", 1)), [])])
            else:
                done += self._together([(number, header, arrays)])
            self._ledger.end.remote("alone", [number])
        return done

    def _together(self, items: Sequence[tuple[int, Any, Any]]) -> list[pa.Table]:
        answers: list[dict[str, Future[Answer]]] = []
        with self._lock:
            for number, header, arrays in items:
                raise_if_fatal(header)
                clips = unpack_clips(header, arrays) if "clips" in header else {}
                answers.append({name: self._submit(number, name, views) for name, views in clips.items()})
            for lane in self._lanes.values():
                lane.flush()
        return [self._result(*item, waiting) for item, waiting in zip(items, answers, strict=True)]

    def _submit(self, number: int, name: str, views: Sequence[Clip]) -> Future[Answer]:
        return self._lanes[name].submit(self._plan.tasks[number], views)

    def _result(self, number: int, header: Any, _arrays: Any, waiting: Mapping[str, Future[Answer]]) -> pa.Table:
        task = self._plan.tasks[number]
        rows: dict[str, list[FeatureRow]] = {}
        failures: dict[str, tuple[Reason, str]] = {}
        if "failure" in header:
            reason, message = header["failure"]
            failures = dict.fromkeys(task.sets, (Reason(reason), message))
        for name, future in waiting.items():
            answer = future.result()
            if isinstance(answer, tuple):
                failures[name] = answer
            else:
                rows[name] = answer
        result = TaskResult(
            task=task, rows=rows, failures=failures, attempts=header.get("attempts", 1), worker=worker_name()
        )
        return pack_result(number, result, self._built.profiles)


Receipt = tuple[int, int, str, tuple[str, ...], dict[str, tuple[str, str]]]
"""Number of a task, attempts, worker, the sets that have its rows, and by set why they have none."""


def commit(plan_reference: Sequence[Any], *blocks: pa.Table) -> list[Receipt]:
    """Stage 3, a task: put the results of `blocks` into the store; what it returns is durable.

    `plan_reference` is a sequence of one: Ray would put the plan itself in place of a bare reference.

    Raises:
        VqaError: the store cannot be written, or the error that ended a stage before.
    """
    plan = _HERE.plan(plan_reference[0])
    found: list[tuple[int, TaskResult, Profiles]] = []
    error: VqaError | None = None
    for block in blocks:
        try:
            found += unpack_results(block, plan.tasks)
        except VqaError as fatal:
            # What is ready is kept even then.
            error = fatal
    if found and plan.sink is not None:
        plan.sink.commit([result for _, result, _ in found], [profiles for _, _, profiles in found])
    if error is not None:
        raise error
    return [_receipt(number, result) for number, result, _ in found]


def _receipt(number: int, result: TaskResult) -> Receipt:
    failures = {name: (reason.value, message) for name, (reason, message) in result.failures.items()}
    return number, result.attempts, result.worker, tuple(result.rows), failures


def received(receipts: Sequence[Receipt], tasks: Sequence[VideoTask]) -> Iterator[tuple[int, TaskResult]]:
    """Number and result of what `commit` has stored, without the rows."""
    for number, attempts, worker, names, failures in receipts:
        yield (
            number,
            TaskResult(
                task=tasks[number],
                rows=dict.fromkeys(names, ()),
                failures={name: (Reason(reason), message) for name, (reason, message) in failures.items()},
                attempts=attempts,
                stored=True,
                worker=worker,
            ),
        )
