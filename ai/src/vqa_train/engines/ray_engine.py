"""Extraction over a Ray cluster: decoding tasks feed a pool of computing actors, and further tasks commit shards."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from vqa_train.core.errors import VqaError
from vqa_train.engines import ray_stages
from vqa_train.engines.base import BatchExtractor, Built, EngineOptions, Extractor, TaskResult, VideoTask
from vqa_train.engines.ray_cluster import connected, quiet, spread
from vqa_train.engines.ray_results import unpack_results
from vqa_train.engines.ray_stages import Compute, Ledger, Plan, received
from vqa_train.store.rows import num_views

_TICK_S = 0.2
_PATIENCE_S = 10.0
# In Ray's account, not in truth: a CPU is to hold a decoding task beside several actors. Were the actors that are left
# after machines were lost to take up all CPUs, none could decode for them, and nothing would ever move again.
_DECODE_CPUS = 0.75
_ACTOR_CPUS = 0.05
# Beyond the longest that a video may take, until a run in which nothing moves is taken up anew.
_NO_PROGRESS_S = 900


class RayEngine:
    """Runs tasks on every machine of a Ray cluster.

    A Ray Data pipeline: a task per video decodes it in an isolated process, a pool of actors computes, and as soon as
    `shard_rows` rows have come together, or `shard_seconds` have passed, a task commits them where they are. What has
    no receipt of its commit is done again, so that a lost machine costs time alone.

    Once told to stop, it commits what has been computed and drops what is under way.
    """

    elsewhere = True

    def run(
        self, tasks: Sequence[VideoTask], extractors: Mapping[str, Extractor], options: EngineOptions
    ) -> Generator[TaskResult, None, None]:
        """Yield one result per task; with `options.sink` only once it is in the store.

        Raises:
            DependencyError: Ray is not installed.
            UsageError: no cluster, or a device it cannot give.
            VqaError: Ray fails and nothing moves any more.
        """
        if not tasks or options.stop.is_set():
            return
        with connected() as ray:
            # Videos that lack the same sets follow each other: a decoding process serves one combination.
            ordered = sorted(tasks, key=lambda task: task.sets)
            run = _Run(ray, ordered, extractors, options)
            left = set(range(len(ordered)))
            while left and not options.stop.is_set():
                before = len(left)
                for number, result in run.attempt(sorted(left)):
                    # A task that Ray ran twice is told of once.
                    if number in left:
                        left.remove(number)
                        yield result
                if len(left) == before and not options.stop.is_set():
                    raise VqaError(
                        f"Ray gave up on {len(left)} videos: {run.error or 'their results were lost'}",
                        hint="what was committed is kept; the same command goes on from there",
                    ) from run.error


class _Run:
    """One run: what every attempt at it shares."""

    def __init__(
        self, ray: Any, tasks: Sequence[VideoTask], extractors: Mapping[str, Extractor], options: EngineOptions
    ) -> None:
        self._ray = ray
        self._tasks = tasks
        self._options = options
        self._spread = spread(ray.cluster_resources(), options.device, options.batch)
        self._views = max(num_views(extractor.spec) for extractor in extractors.values())
        batched = all(isinstance(extractor, BatchExtractor) for extractor in extractors.values())
        self._plan = ray.put(
            Plan(
                tasks=tuple(tasks),
                samplings={n: e.spec.sampling for n, e in extractors.items() if e.spec.sampling is not None},
                build=options.build or partial(_as_given, dict(extractors)),
                sink=options.sink,
                isolated=options.workers > 0,
                environment={k: v for k, v in os.environ.items() if k.startswith("VQA_TRAIN_")},
                decoder=options.decoder,
                limits=options.limits,
                recycle=options.recycle,
                planar=(options.planar or self._spread.gpus > 0) and batched,
            )
        )
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=False
        )
        # Beside the driver: where that is lost, the run is over anyway.
        self._ledger = ray.remote(Ledger).options(num_cpus=0, scheduling_strategy=here).remote()
        self._commit = ray.remote(ray_stages.commit).options(num_cpus=0, scheduling_strategy="SPREAD")
        self.error: BaseException | None = None

    def attempt(self, numbers: Sequence[int]) -> Iterator[tuple[int, TaskResult]]:
        """Results of the tasks `numbers`, as far as Ray gets; `error` says what stopped it.

        Raises:
            VqaError: an error that is no video's and that another attempt would meet again.
        """
        stream = _Stream(self._dataset(numbers))
        self.error = None
        held: list[Any] = []
        rows, since = 0, time.monotonic()
        under_way: list[Any] = []
        try:
            while True:
                bundle = stream.next(_TICK_S)
                over = stream.over or self._options.stop.is_set()
                if bundle is not None:
                    since = since if held else time.monotonic()
                    held.append(bundle)
                    rows += (bundle.num_rows() or 1) * self._views
                due = rows >= self._options.shard_rows or time.monotonic() - since >= self._options.shard_seconds
                if held and (due or over or self._options.sink is None):
                    under_way.append(self._send(held))
                    held, rows = [], 0
                while under_way and (over or self._is_done(under_way[0])):
                    yield from self._results(*under_way.pop(0))
                if over and bundle is None:
                    break
        finally:
            stream.close()
        if self.error is None:
            self.error = stream.error

    def _dataset(self, numbers: Sequence[int]) -> Any:
        import ray.data

        from vqa_train.engines.ray_source import TaskNumbers

        quiet(ray.data.DataContext.get_current(), int(self._options.limits.timeout_max_s) + _NO_PROGRESS_S)
        how = self._spread
        pool = ray.data.ActorPoolStrategy(min_size=1, max_size=how.most, initial_size=how.actors)
        decode = partial(ray_stages.decode, plan_reference=self._plan, ledger=self._ledger)
        # The same account as the stage that follows, so that the two are one task.
        found = ray.data.read_datasource(TaskNumbers(numbers), num_cpus=_DECODE_CPUS, override_num_blocks=len(numbers))
        found = found.map_batches(decode, batch_size=None, batch_format="pyarrow", num_cpus=_DECODE_CPUS)
        return found.map_batches(
            Compute,
            fn_constructor_args=(self._plan, self._ledger),
            batch_size=how.videos if how.videos > 1 else None,
            batch_format="pyarrow",
            num_cpus=_ACTOR_CPUS,
            num_gpus=how.gpus,
            compute=pool,
        )

    def _send(self, bundles: Sequence[Any]) -> tuple[Any, Sequence[Any]]:
        """Begin to commit; the bundles stay referred to, and so alive, until it is done."""
        blocks = [block for bundle in bundles for block in bundle.block_refs]
        if self._options.sink is None:
            return blocks, bundles
        return self._commit.remote([self._plan], *blocks), bundles

    def _is_done(self, sent: tuple[Any, Sequence[Any]]) -> bool:
        references = sent[0] if isinstance(sent[0], list) else [sent[0]]
        return not self._ray.wait(references, num_returns=len(references), timeout=0)[1]

    def _results(self, reference: Any, _bundles: Sequence[Any]) -> Iterator[tuple[int, TaskResult]]:
        try:
            answer = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, VqaError):
                raise error.cause from error
            self.error = error
            return
        except self._ray.exceptions.RayError as error:
            # Lost with its machine; whatever has no receipt is done again.
            self.error = error
            return
        if isinstance(reference, list):
            for table in answer:
                for number, result, _ in unpack_results(table, self._tasks):
                    yield number, result
        else:
            yield from received(answer, self._tasks)


class _Stream:
    """Reads the results of a Ray dataset in a thread, so that whoever waits for them can look at the clock."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._closed = False
        self.over = False
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._read, daemon=True, name="ray-results")
        self._thread.start()

    def _read(self) -> None:
        try:
            for bundle in self._dataset.iter_internal_ref_bundles():
                self._queue.put(bundle)
                if self._closed:
                    return
        except Exception as error:
            self.error = error
        finally:
            self._queue.put(None)

    def next(self, timeout_s: float) -> Any:
        """The next bundle, or None when there is none in time; `over` says that none will come."""
        with suppress(queue.Empty):
            bundle = self._queue.get(timeout=0 if self.over else timeout_s)
            self.over = self.over or bundle is None
            return bundle
        return None

    def close(self) -> None:
        """Stop reading; Ray ends the tasks that are under way."""
        self._closed = True
        deadline = time.monotonic() + _PATIENCE_S
        # A dataset that has only begun has its executor a moment later; left alone, it would outlive the cluster.
        while self._thread.is_alive() and time.monotonic() < deadline:
            executor = getattr(self._dataset, "_current_executor", None)
            if executor is not None:
                with suppress(Exception):
                    executor.shutdown(force=True)
            self._thread.join(_TICK_S)


def _as_given(extractors: Mapping[str, Extractor]) -> Built:
    """Copies of the extractors that the driver has, where nothing else says how to make them."""
    return Built(extractors=extractors, profiles={})
