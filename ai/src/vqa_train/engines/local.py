"""Extraction on this machine: isolated decoding processes feed the backbones, which run in threads of this process."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, as_completed, wait
from contextlib import closing

import numpy as np

from vqa_train.core.errors import Reason, VqaError
from vqa_train.core.types import Clip
from vqa_train.engines.base import EngineOptions, Extractor, TaskResult, VideoTask
from vqa_train.store.rows import FeatureRow
from vqa_train.video.workers import DecodeJob, DecodeLimits, DecodeOutcome, decode_many


class LocalEngine:
    """Runs tasks on this machine; the files are decoded once however many backbones look at them."""

    def run(
        self, tasks: Sequence[VideoTask], extractors: Mapping[str, Extractor], options: EngineOptions
    ) -> Iterator[TaskResult]:
        """Yield one result per task as it is done.

        Tasks are grouped by the sets they lack, so that a file is never decoded for a set that has it.
        """
        groups: dict[tuple[str, ...], list[VideoTask]] = defaultdict(list)
        for task in tasks:
            groups[task.sets].append(task)
        for names, group in groups.items():
            yield from self._run_group(group, {name: extractors[name] for name in names}, options)

    def _run_group(
        self, tasks: Sequence[VideoTask], extractors: Mapping[str, Extractor], options: EngineOptions
    ) -> Iterator[TaskResult]:
        by_key = {task.key: task for task in tasks}
        samplings = [e.spec.sampling for e in extractors.values() if e.spec.sampling is not None]
        jobs = (DecodeJob(key=task.key, path=task.path, verify=task.verify) for task in tasks)
        outcomes = decode_many(
            jobs,
            samplings,
            decoder=options.decoder,
            workers=options.workers,
            threads=options.threads,
            limits=DecodeLimits(timeout_base_s=options.timeout_s),
        )
        pending: set[Future[TaskResult]] = set()
        with closing(outcomes), ThreadPoolExecutor(options.compute) as pool:
            for outcome in outcomes:
                pending.add(pool.submit(_finish, by_key[outcome.job.key], extractors, outcome))
                # Bounds the frames in memory; the decoders are held back through `outcomes`.
                done, pending = wait(
                    pending, timeout=0 if len(pending) <= options.compute else None, return_when=FIRST_COMPLETED
                )
                yield from (future.result() for future in done)
            for future in as_completed(pending):
                yield future.result()


def _finish(task: VideoTask, extractors: Mapping[str, Extractor], outcome: DecodeOutcome) -> TaskResult:
    with outcome:
        if outcome.reason is not None:
            failure = (outcome.reason, outcome.message)
            return TaskResult(task=task, failures=dict.fromkeys(extractors, failure))
        return _features(task, extractors, outcome.clips)


def _features(task: VideoTask, extractors: Mapping[str, Extractor], clips: Sequence[Sequence[Clip]]) -> TaskResult:
    """Run every backbone on its clips; one that fails on this video is a failure row of its own set."""
    rows: dict[str, list[FeatureRow]] = {}
    failures: dict[str, tuple[Reason, str]] = {}
    for (name, extractor), views in zip(extractors.items(), clips, strict=True):
        try:
            outputs = extractor.extract(views)
        except VqaError as error:
            failures[name] = (error.reason or Reason.BACKBONE_ERROR, str(error))
            continue
        except (RuntimeError, ValueError, MemoryError) as error:
            reason = Reason.OUT_OF_MEMORY if isinstance(error, MemoryError) else Reason.BACKBONE_ERROR
            failures[name] = (reason, f"{task.path.name!r}: {type(error).__name__}: {error}")
            continue
        bad = [o for view in outputs for o, array in view.items() if not np.isfinite(array).all()]
        if bad:
            failures[name] = (
                Reason.NON_FINITE,
                f"{task.path.name!r}: NaN or infinity in {', '.join(sorted(set(bad)))}",
            )
            continue
        rows[name] = [
            FeatureRow(key=task.key, view=i, outputs=view, facts=clip.facts())
            for i, (view, clip) in enumerate(zip(outputs, views, strict=True))
        ]
    return TaskResult(task=task, rows=rows, failures=failures)
