"""make_ladder: sources in, a labelled dataset out, rendered in parallel and resumed where it was interrupted."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

from vqa_train.core.errors import MediaError, RunError, UsageError
from vqa_train.core.plugins import did_you_mean
from vqa_train.core.progress import Advance
from vqa_train.datasets.ladder import record as records
from vqa_train.datasets.ladder.config import LadderConfig
from vqa_train.datasets.ladder.distortions import KINDS, available_kinds
from vqa_train.datasets.ladder.jobs import PRISTINE, Clip, Job, finished, run_job
from vqa_train.datasets.ladder.sources import Source, find_sources
from vqa_train.datasets.ladder.write import write_dataset

_log = logging.getLogger(__name__)

Submit = Callable[[Job], "Future[list[Clip]]"]


def make_ladder(
    output: Path,
    *,
    sources: Path | None,
    config: LadderConfig,
    workers: int = 2,
    progress: Advance | None = None,
) -> Path:
    """Render the ladders of all sources into `output` and label them; returns the path of manifest.yaml.

    The clips' bytes depend on the sources, the config and the FFmpeg build, not on `workers` or on interruptions. A
    finished ladder of the same sources and config is left as it is; an interrupted one is taken up where it stopped.
    Files that cannot be used are logged and named in ladder.json.

    Args:
        output: a new or empty folder, or one with the same ladder.
        sources: folder of real clips; None for procedural scenes alone.
        config: what to make.
        workers: processes; 1 works in this one.
        progress: called with the number of clips done.

    Raises:
        RunError: the folder holds something else or cannot be written (the disk is full, ...), or a worker died.
        UsageError: a kind that does not exist or that this FFmpeg cannot encode.
        MediaError: there is no usable source; an encoder refused.
        ManifestError: the sources folder cannot be read.
    """
    kinds = _kinds(config)
    found, refused = find_sources(sources, config)
    record = records.make_record(config, found, kinds)
    records.claim(output, record)
    if record["absent_kinds"] and config.kinds is None:
        _log.warning("this FFmpeg cannot encode %s: left out of the ladder", ", ".join(record["absent_kinds"]))
    with _pool(workers) as submit:
        clips = _render(submit, output, found, kinds, config, refused, progress)
    for name, why in refused.items():
        _log.warning("source %r is left out: %s", name, why)
    if not clips:
        raise MediaError("none of the sources can be used", hint="see the warnings above")
    return write_dataset(output, config.name, clips, records.add_refused(output, refused))


def clip_count(sources: Path | None, config: LadderConfig) -> int:
    """How many clips `make_ladder` will report to `progress`, if no source is refused.

    Raises:
        UsageError, MediaError, ManifestError: as `make_ladder`.
    """
    return len(find_sources(sources, config)[0]) * (1 + len(_kinds(config)) * config.levels)


def _kinds(config: LadderConfig) -> tuple[str, ...]:
    available = available_kinds()
    for name in config.kinds or ():
        if name not in KINDS:
            raise UsageError(f"unknown kind of distortion {name!r}", hint=did_you_mean(name, list(KINDS)))
        if name not in available:
            raise UsageError(
                f"kind {name!r} needs the encoder {KINDS[name].codec!r}, which this FFmpeg lacks",
                hint=f"it has: {', '.join(available)}",
            )
    return tuple(name for name in available if config.kinds is None or name in config.kinds)


def _render(
    submit: Submit,
    output: Path,
    sources: Sequence[Source],
    kinds: Sequence[str],
    config: LadderConfig,
    refused: dict[str, str],
    progress: Advance | None,
) -> list[Clip]:
    """All clips, ordered by source, kind and level; a source whose pristine clip fails is put into `refused`."""
    done: dict[tuple[str, str], list[Clip]] = {}

    def start(jobs: Iterable[Job]) -> dict[Future[list[Clip]], Job]:
        return {submit(job) if (clips := finished(job)) is None else _done(clips): job for job in jobs}

    running = start(Job(output, source, PRISTINE, config) for source in sources)
    while running:
        ready, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in ready:
            job = running.pop(future)
            try:
                clips = future.result()
            except MediaError as error:
                if job.kind != PRISTINE or job.source.path is None:
                    raise
                refused[job.source.path.name] = str(error)
                continue
            except OSError as error:
                raise RunError(f"{str(output)!r} cannot be written: {error.strerror or error}") from error
            done[job.source.id, job.kind] = clips
            if job.kind == PRISTINE:
                running |= start(Job(output, job.source, kind, config) for kind in kinds)
            if progress is not None:
                progress(len(clips))
    return [clip for source in sources for kind in (PRISTINE, *kinds) for clip in done.get((source.id, kind), [])]


@contextmanager
def _pool(workers: int) -> Iterator[Submit]:
    """A way to run jobs: in this process for one worker, else in spawned ones (forking would copy held locks)."""
    if workers <= 1:
        yield _run_here
        return
    executor = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    try:
        yield lambda job: executor.submit(run_job, job)
    except BrokenProcessPool as error:
        raise RunError(
            "a process that renders the ladder died (out of memory?)",
            hint="run the same command again: it goes on where it stopped; fewer --workers need less memory",
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)


def _run_here(job: Job) -> Future[list[Clip]]:
    try:
        return _done(run_job(job))
    except Exception as error:
        failed: Future[list[Clip]] = Future()
        failed.set_exception(error)
        return failed


def _done(clips: list[Clip]) -> Future[list[Clip]]:
    future: Future[list[Clip]] = Future()
    future.set_result(clips)
    return future
