"""extract-features: runs frozen backbones over every video once and commits the features to a store."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from threading import Event
from typing import TYPE_CHECKING

from vqa_train.core.errors import UsageError, VqaError
from vqa_train.core.hashcache import HashCache
from vqa_train.core.progress import progress
from vqa_train.core.provenance import RunProvenance, file_entry
from vqa_train.core.types import Video
from vqa_train.datasets.load import Dataset, load_dataset
from vqa_train.engines.base import Engine, EngineOptions, TaskResult
from vqa_train.pipelines.extract.build import build_extractors, configure
from vqa_train.pipelines.extract.compute import in_words, network_seconds, resolve_compute
from vqa_train.pipelines.extract.config import ExtractConfig, ExtractReport
from vqa_train.pipelines.extract.heartbeat import Heartbeat
from vqa_train.pipelines.extract.plan import plan_videos
from vqa_train.pipelines.extract.remote import BackboneBuild, StoreSink, common_profile
from vqa_train.pipelines.extract.text import extract_text
from vqa_train.pipelines.extract.writer import SetWriter, failure_of, open_set
from vqa_train.store.store import FeatureStore

if TYPE_CHECKING:
    from vqa_train.backbones.base import Compute, VideoBackbone

__all__ = ["ExtractConfig", "ExtractReport", "extract_features"]

# On a CPU a run of this length is announced before it begins.
_LONG_S = 600


def extract_features(
    config: ExtractConfig, *, log: Callable[[str], None] = lambda _: None, stop: Event | None = None
) -> ExtractReport:
    """Bring the store up to date with the dataset: every video gets its rows or a failure with a reason.

    Only keys that a feature set lacks are decoded. Decoding runs in processes that may crash or hang without
    taking the run along.

    Args:
        config: what to extract and how.
        log: told what a person may want to know.
        stop: once set, no further video is begun; those under way are finished and committed, and the report says that
            the run was interrupted. KeyboardInterrupt commits what is ready and drops the videos under way.

    Raises:
        UsageError: no backbone named, or an unknown one.
        WeightsError: a backbone's weights are missing or wrong.
        ManifestError, ConfigError: the dataset cannot be loaded.
        StoreError, OSError: the store cannot be written (full disk, read-only); committed shards stay.
    """
    check_config(config)
    stop = stop or Event()
    started = time.monotonic()
    dataset = load_dataset(
        config.dataset,
        data_root=config.data_root,
        manifests_dir=config.manifests_dir,
        stores=[config.output],
        need_videos=bool(config.backbones),
    )
    store = FeatureStore(config.output)
    provenance = RunProvenance(entrypoint="extract-features", config=config.to_json())
    provenance.inputs["dataset"] = file_entry(dataset.path, "dataset-manifest")
    report = ExtractReport(run_id=provenance.run_id, sets=[])
    report.references = len(dataset.references) if config.backbones else 0
    report.duplicates = len(dataset.videos) - len({video.sha256 for video in dataset.videos})
    writers: list[SetWriter] = []
    with Heartbeat(config, provenance.run_id, log) as heartbeat:
        _extract(dataset, store, config, writers, provenance, log, stop, report, heartbeat)
        report.duration_s = time.monotonic() - started
        _conclude(writers, provenance, report)
        heartbeat.end(interrupted=report.interrupted)
    return report


def _extract(
    dataset: Dataset,
    store: FeatureStore,
    config: ExtractConfig,
    writers: list[SetWriter],
    provenance: RunProvenance,
    log: Callable[[str], None],
    stop: Event,
    report: ExtractReport,
    heartbeat: Heartbeat,
) -> None:
    """Extract prompts and videos; whatever ends it, what is ready is committed."""
    try:
        for name in config.text:
            extract_text(name, dataset, store, config, writers, provenance.run_id, log, stop, heartbeat)
        if config.backbones:
            _extract_videos(dataset, store, config, writers, provenance, log, stop, report, heartbeat)
    except KeyboardInterrupt:
        stop.set()
    except BaseException:
        # The error is what the caller must see; the snapshot of what was committed is only a courtesy.
        with suppress(OSError, VqaError):
            for writer in writers:
                writer.set.snapshot()
        raise
    for writer in writers:
        writer.flush()
    report.interrupted = stop.is_set()
    report.sets = [writer.report for writer in writers]
    for counts in report.sets if report.interrupted else ():
        counts.left = counts.inputs - counts.known - counts.done - counts.failed.total() - counts.skipped.total()


def _conclude(writers: list[SetWriter], provenance: RunProvenance, report: ExtractReport) -> None:
    """Write provenance and snapshots of the sets that the run added to."""
    provenance.counts = {r.name: r.to_json() for r in report.sets}
    for writer in writers:
        if writer.report.done or writer.report.failed:
            writer.set.write_run(provenance.to_json())
            writer.set.snapshot()


def check_config(config: ExtractConfig) -> None:
    """Refuse what cannot be meant.

    Raises:
        UsageError: no backbone and no text encoder.
    """
    if not config.backbones and not config.text:
        raise UsageError("nothing to extract", hint="name at least one --backbone or --text")


def _extract_videos(
    dataset: Dataset,
    store: FeatureStore,
    config: ExtractConfig,
    writers: list[SetWriter],
    provenance: RunProvenance,
    log: Callable[[str], None],
    stop: Event,
    report: ExtractReport,
    heartbeat: Heartbeat,
) -> None:
    """Plan what each set lacks, run the engine over it, and route rows and failures to the sets' writers."""
    from vqa_train.engines import ENGINES

    engine: Engine = ENGINES.get(config.engine)()
    # Where another machine computes, it finds out there what it computes with.
    compute = None if engine.elsewhere else _compute(config)
    extractors = build_extractors(config)
    mine = {
        backbone.spec.set_name: open_set(store, backbone, config, provenance.run_id, writers) for backbone in extractors
    }
    with HashCache() as cache:
        tasks, videos = plan_videos(dataset, mine, config, cache, log)
        beside = f" and {report.references} references beside them" if report.references else ""
        log(f"{len(dataset.videos)} videos{beside}: {len(tasks)} to decode")
        heartbeat.plan([writer.report for writer in writers], len(tasks))
        if not tasks or stop.is_set():
            return
        if compute is not None:
            configure(extractors, compute)
            _announce(extractors, compute, len(tasks), log)
        common = common_profile(config)
        profiles = {b.spec.set_name: {**common, **b.numerics()} for b in extractors}
        sets = {b.spec.set_name: (b.spec, b.license) for b in extractors}
        options = replace(
            engine_options(config, compute),
            stop=stop,
            build=BackboneBuild(config),
            sink=StoreSink(root=config.output, sets=sets, run_id=provenance.run_id),
        )
        results = engine.run(tasks, {b.spec.set_name: b for b in extractors}, options)
        with progress("videos", len(tasks)) as advance, one_thread_per_clip(), closing(results):
            for result in results:
                _route(result, videos[result.task.key], mine, profiles)
                heartbeat.result(result)
                report.retried += result.attempts > 1
                report.recovered += result.attempts > 1 and not result.failures
                if not result.failures:
                    # The bytes were hashed by a worker; its stat is remembered here so the next run need not.
                    cache.remember(result.task.path, result.task.key)
                for writer in mine.values():
                    # Whoever asked to stop may pull the plug next.
                    writer.flush() if stop.is_set() else writer.flush_if_due()
                advance()
    for writer in mine.values():
        writer.flush()
    if report.retried:
        log(f"{report.retried} videos that ended their decoding process were tried again: {report.recovered} are done")


def _compute(config: ExtractConfig) -> Compute:
    return resolve_compute(config.device, config.precision, config.batch, compiled=config.compiled)


def engine_options(config: ExtractConfig, compute: Compute | None) -> EngineOptions:
    """How the engine runs; to a GPU of this machine (`compute`) the stored planes go, half as many bytes as RGB."""
    return EngineOptions(
        decoder=config.decoder,
        workers=config.workers,
        threads=1 if config.workers else 0,
        compute=os.cpu_count() or 1,
        limits=config.limits,
        recycle=config.recycle,
        planar=compute is not None and compute.device != "cpu",
        device=config.device,
        batch=config.batch,
        shard_rows=config.shard_rows,
        shard_seconds=config.shard_seconds,
    )


def _announce(extractors: list[VideoBackbone], compute: Compute, videos: int, log: Callable[[str], None]) -> None:
    """Before hours on a CPU, say so."""
    seconds = network_seconds(extractors, compute) * videos if compute.device == "cpu" else 0.0
    if seconds > _LONG_S:
        log(
            f"warning: the networks will take about {in_words(seconds)} on this CPU for {videos} videos - a GPU is "
            "a hundred times faster; --limit 10 tries a few; interrupting loses nothing"
        )


@contextmanager
def one_thread_per_clip() -> Iterator[None]:
    """Cores are shared out by clip, not within one: threads that wait for each other cost more than they bring when
    decoders want the same cores, and the numbers then do not depend on how many cores there are."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _route(
    result: TaskResult, video: Video, writers: Mapping[str, SetWriter], profiles: Mapping[str, Mapping[str, str]]
) -> None:
    for name, rows in result.rows.items():
        if result.stored:
            writers[name].note_stored()
        else:
            writers[name].add(rows, profiles[name])
        writers[name].resolve(video.path)
    for name, (reason, message) in result.failures.items():
        if result.stored:
            writers[name].note_stored(reason)
        else:
            writers[name].fail(failure_of(video, reason, message))
