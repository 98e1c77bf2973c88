"""extract-features: runs frozen backbones over every video once and commits the features to a store."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from vqa_train.core.errors import Reason, UsageError, VqaError
from vqa_train.core.hashcache import HashCache
from vqa_train.core.hashing import sha256_bytes
from vqa_train.core.progress import progress
from vqa_train.core.provenance import RunProvenance, file_entry, package_versions
from vqa_train.core.types import Video
from vqa_train.datasets.load import Dataset, load_dataset
from vqa_train.engines.base import Engine, EngineOptions, TaskResult
from vqa_train.pipelines.compute import in_words, network_seconds, resolve_compute
from vqa_train.pipelines.extract_config import ExtractConfig, ExtractReport
from vqa_train.pipelines.extract_plan import plan_videos
from vqa_train.pipelines.extract_writer import SetWriter, failure_of
from vqa_train.store.rows import FeatureRow
from vqa_train.store.store import FeatureStore

if TYPE_CHECKING:
    from vqa_train.backbones.base import Compute, VideoBackbone

__all__ = ["ExtractConfig", "ExtractReport", "extract_features"]

_TEXT_BATCH = 512
# On a CPU a run of this length is announced before it begins.
_LONG_S = 600


def extract_features(config: ExtractConfig, *, log: Callable[[str], None] = lambda _: None) -> ExtractReport:
    """Bring the store up to date with the dataset: every video gets its rows or a failure with a reason.

    Only keys that a feature set lacks are decoded. Decoding runs in processes that may crash or hang without
    taking the run along. Interrupting (Ctrl-C) commits what is ready and returns a report that says so.

    Raises:
        UsageError: no backbone named, or an unknown one.
        WeightsError: a backbone's weights are missing or wrong.
        ManifestError, ConfigError: the dataset cannot be loaded.
        StoreError, OSError: the store cannot be written (full disk, read-only); committed shards stay.
    """
    check_config(config)
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
    report.duplicates = len(dataset.videos) - len({video.sha256 for video in dataset.videos})
    writers: list[SetWriter] = []
    try:
        for name in config.text:
            _extract_text(name, dataset, store, config, writers, provenance, log)
        if config.backbones:
            _extract_videos(dataset, store, config, writers, provenance, log)
    except KeyboardInterrupt:
        report.interrupted = True
        log("stopping: committing what is ready")
    except BaseException:
        # The error is what the caller must see; the snapshot of what was committed is only a courtesy.
        with suppress(OSError, VqaError):
            for writer in writers:
                writer.set.snapshot()
        raise
    for writer in writers:
        writer.flush()
    report.sets = [writer.report for writer in writers]
    report.duration_s = time.monotonic() - started
    provenance.counts = {r.name: r.to_json() for r in report.sets}
    for writer in writers:
        if writer.report.done or writer.report.failed:
            writer.set.write_run(provenance.to_json())
            writer.set.snapshot()
    return report


def check_config(config: ExtractConfig) -> None:
    """Refuse what cannot be meant.

    Raises:
        UsageError: no backbone and no text encoder, or a part that does not exist.
    """
    if not config.backbones and not config.text:
        raise UsageError("nothing to extract", hint="name at least one --backbone or --text")
    part, parts = config.part
    if not 0 <= part < parts:
        raise UsageError(f"part must be I/N with 0 <= I < N, got {part}/{parts}", hint="the first of two is 0/2")


def _extract_text(
    name: str,
    dataset: Dataset,
    store: FeatureStore,
    config: ExtractConfig,
    writers: list[SetWriter],
    provenance: RunProvenance,
    log: Callable[[str], None],
) -> None:
    """Encode each distinct prompt that the set lacks; a video without a prompt is a failure row."""
    from vqa_train.backbones.build import build_text_encoder

    encoder = build_text_encoder(name)
    writer = _open(store, encoder, config, provenance, writers)
    prompts: dict[str, str] = {}
    writer.report.inputs = len(dataset.videos)
    for video in dataset.videos:
        if video.prompt is None or not video.prompt.strip():
            writer.fail(failure_of(video, Reason.NO_PROMPT, f"video {video.id!r} has no prompt"))
            continue
        writer.resolve(video.path)
        key = sha256_bytes(video.prompt.encode("utf-8"))
        if key in writer.known or key in prompts:
            writer.report.known += 1
        else:
            prompts[key] = video.prompt
    keys = sorted(prompts, key=lambda k: (len(prompts[k]), k))
    if keys:
        encoder.configure(resolve_compute(config.device))
    profile = {**encoder.numerics(), **_versions("sentence-transformers", "transformers", "torch")}
    with progress(f"{name}: prompts", len(keys)) as advance:
        for start in range(0, len(keys), _TEXT_BATCH):
            batch = keys[start : start + _TEXT_BATCH]
            vectors = encoder.encode([prompts[key] for key in batch])
            for key, vector in zip(batch, vectors, strict=True):
                writer.add([FeatureRow(key=key, view=0, outputs={"pooled": vector}, facts={})], profile)
            advance(len(batch))
    writer.flush()
    log(f"{writer.set.name}: {len(keys)} distinct new prompts encoded")


def _extract_videos(
    dataset: Dataset,
    store: FeatureStore,
    config: ExtractConfig,
    writers: list[SetWriter],
    provenance: RunProvenance,
    log: Callable[[str], None],
) -> None:
    """Plan what each set lacks, run the engine over it, and route rows and failures to the sets' writers."""
    from vqa_train.engines import ENGINES

    compute = resolve_compute(config.device, config.precision, config.batch, compiled=config.compiled)
    extractors = build_extractors(config)
    mine = {backbone.spec.set_name: _open(store, backbone, config, provenance, writers) for backbone in extractors}
    with HashCache() as cache:
        tasks, videos = plan_videos(dataset, mine, config, cache, log)
        log(f"{len(dataset.videos)} videos: {len(tasks)} to decode")
        if not tasks:
            return
        configure(extractors, compute)
        _announce(extractors, compute, len(tasks), log)
        engine: Engine = ENGINES.get(config.engine)()
        common = {"decoder": config.decoder, **_versions("av", "torch", "transformers")}
        profiles = {b.spec.set_name: {**common, **b.numerics()} for b in extractors}
        with progress("videos", len(tasks)) as advance, one_thread_per_clip():
            for result in engine.run(tasks, {b.spec.set_name: b for b in extractors}, engine_options(config, compute)):
                _route(result, videos[result.task.key], mine, profiles)
                if not result.failures:
                    # The bytes were hashed by a worker; its stat is remembered here so the next run need not.
                    cache.remember(result.task.path, result.task.key)
                for writer in mine.values():
                    writer.flush_if_due()
                advance()
    for writer in mine.values():
        writer.flush()


def build_extractors(config: ExtractConfig) -> list[VideoBackbone]:
    """The video backbones of a run; a name that stands there twice is built once."""
    from vqa_train.backbones.build import build_backbone

    return [build_backbone(name, random_weights=config.random_weights) for name in dict.fromkeys(config.backbones)]


def configure(extractors: list[VideoBackbone], compute: Compute) -> None:
    """Tell every backbone that runs a network how to compute; the others are plain arithmetic on the CPU."""
    from vqa_train.backbones.batched import BatchedBackbone

    for extractor in extractors:
        if isinstance(extractor, BatchedBackbone):
            extractor.configure(compute)


def engine_options(config: ExtractConfig, compute: Compute) -> EngineOptions:
    """How the engine runs; to a GPU the stored planes go, half as many bytes as RGB."""
    return EngineOptions(
        decoder=config.decoder,
        workers=config.workers,
        threads=1 if config.workers else 0,
        compute=os.cpu_count() or 1,
        timeout_s=config.timeout_s,
        planar=compute.device != "cpu",
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
        writers[name].add(rows, profiles[name])
        writers[name].resolve(video.path)
    for name, (reason, message) in result.failures.items():
        writers[name].fail(failure_of(video, reason, message))


def _open(
    store: FeatureStore,
    backbone: Any,
    config: ExtractConfig,
    provenance: RunProvenance,
    writers: list[SetWriter],
) -> SetWriter:
    feature_set = store.create_set(backbone.spec, license=backbone.license)
    writer = SetWriter(feature_set, config, provenance.run_id)
    writers.append(writer)
    return writer


def _versions(*packages: str) -> dict[str, str]:
    installed = package_versions()
    return {name: installed[name] for name in packages if name in installed}
