"""extract-features --dry-run: what would be extracted, about how long it would take and how many bytes it would add."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vqa_train.core.hashcache import HashCache
from vqa_train.core.types import FeatureSpec
from vqa_train.datasets.load import load_dataset
from vqa_train.engines.base import VideoTask
from vqa_train.pipelines.extract.build import build_extractors, configure
from vqa_train.pipelines.extract.compute import network_seconds, resolve_compute
from vqa_train.pipelines.extract.config import ExtractConfig, SetReport
from vqa_train.pipelines.extract.plan import plan_videos
from vqa_train.pipelines.extract.run import check_config, one_thread_per_clip
from vqa_train.store.store import FeatureStore
from vqa_train.video.workers import DecodeJob, DecodeOutcome, decode_many

if TYPE_CHECKING:
    from vqa_train.backbones.base import Compute, VideoBackbone

ESTIMATE_SCHEMA = "vqa-train/extract-estimate/1"

_SAMPLE = 3


@dataclass(frozen=True, kw_only=True)
class SetEstimate:
    """One feature set: videos that lack it, the bytes of their features before compression, what it has already."""

    name: str
    videos: int
    bytes: int
    known: int
    failed_before: int


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a run would do.

    Attributes:
        videos: files to decode.
        seconds: rough wall time; NaN when no file of the sample could be decoded.
        decode_seconds: of one core per video, measured on a few of them.
        network_seconds: per video, from the backbones' operations and this device's speed, or measured.
        device, precision: what would compute.
        sets: per feature set.
    """

    videos: int
    seconds: float
    decode_seconds: float
    network_seconds: float
    device: str
    precision: str
    sets: tuple[SetEstimate, ...]

    def to_json(self) -> dict[str, Any]:
        """The estimate under its versioned schema; a number that is not known is null."""

        def number(value: float) -> float | None:
            return None if math.isnan(value) else round(value, 3)

        return {
            "schema": ESTIMATE_SCHEMA,
            "videos": self.videos,
            "seconds": number(self.seconds),
            "decode_seconds_per_video": number(self.decode_seconds),
            "network_seconds_per_video": number(self.network_seconds),
            "device": self.device,
            "precision": self.precision,
            "sets": [vars(item) for item in self.sets],
        }


class _ReadOnlyWriter:
    """What `plan_videos` asks of a set's writer, for a set that may not exist and is not to be written."""

    def __init__(self, spec: FeatureSpec, store: Path) -> None:
        self.report = SetReport(name=spec.set_name)
        self.known: set[str] = set()
        self.failed_keys: dict[str, Any] = {}
        if (store / spec.set_name).is_dir():
            found = FeatureStore.open(store).find(spec.set_name)
            self.known = set(found.known_keys())
            self.failed_keys = {f.key: f.reason for f in found.failures() if f.key is not None}

    def resolve(self, path: str) -> None:
        """Nothing is written."""

    def resolve_label(self, video_id: str) -> None:
        """Nothing is written."""

    def fail(self, failure: Any) -> None:
        """Nothing is written."""
        self.report.failed[failure.reason] += 1


def estimate(config: ExtractConfig, *, log: Callable[[str], None] = lambda _: None) -> Estimate:
    """Plan a run of `config` without writing anything; decodes a few videos to time them.

    Prompts are not counted: a text encoder takes milliseconds each.

    Raises:
        as `extract_features` before it begins.
    """
    check_config(config)
    dataset = load_dataset(
        config.dataset,
        data_root=config.data_root,
        manifests_dir=config.manifests_dir,
        stores=[config.output],
        need_videos=bool(config.backbones),
    )
    compute = resolve_compute(config.device, config.precision, config.batch, compiled=config.compiled)
    backbones = build_extractors(config)
    writers: dict[str, Any] = {b.spec.set_name: _ReadOnlyWriter(b.spec, config.output) for b in backbones}
    with HashCache() as cache:
        tasks, _ = plan_videos(dataset, writers, config, cache, log)
    sets = []
    for backbone in backbones:
        name = backbone.spec.set_name
        count = sum(name in task.sets for task in tasks)
        report = writers[name].report
        sets.append(
            SetEstimate(
                name=name,
                videos=count,
                bytes=count * _row_bytes(backbone.spec),
                known=report.known,
                failed_before=sum(report.skipped.values()),
            )
        )
    decode, network = _time(tasks, backbones, compute, config.decoder) if tasks else (0.0, 0.0)
    return Estimate(
        videos=len(tasks),
        seconds=len(tasks) * _wall(decode, network, compute, config.workers),
        decode_seconds=decode,
        network_seconds=network,
        device=compute.device,
        precision=compute.precision,
        sets=tuple(sets),
    )


def _row_bytes(spec: FeatureSpec) -> int:
    """Bytes of all views of one video, float32."""
    views = spec.sampling.views if spec.sampling else 1
    return views * sum(4 * math.prod(output.shape) for output in spec.outputs)


def _wall(decode: float, network: float, compute: Compute, workers: int) -> float:
    """Seconds per video when decoders and networks share the cores of a CPU, or overlap with a GPU."""
    cores = os.cpu_count() or 1
    if compute.device == "cpu":
        return decode / cores + network
    return max(decode / max(1, min(workers, cores)), network)


def _time(
    tasks: Sequence[VideoTask], backbones: Sequence[VideoBackbone], compute: Compute, decoder: str
) -> tuple[float, float]:
    """Seconds per video on one core for decoding, and for the backbones; the mean over a few videos."""
    samplings = [b.spec.sampling for b in backbones if b.spec.sampling is not None]
    chosen = [tasks[i * len(tasks) // _SAMPLE] for i in range(min(_SAMPLE, len(tasks)))]
    jobs = [DecodeJob(key=task.key, path=task.path) for task in chosen]
    plain = [b for b in backbones if not getattr(b, "flops_per_clip", 0.0)]
    configure(plain, compute)
    decode: list[float] = []
    measured: list[float] = []
    with one_thread_per_clip(), closing(decode_many(jobs, samplings, decoder=decoder, threads=1)) as outcomes:
        for outcome in outcomes:
            if outcome.reason is None:
                decode.append(outcome.seconds)
                measured.append(_run(plain, backbones, outcome))
    if not decode:
        return math.nan, math.nan
    cores = (os.cpu_count() or 1) if compute.device == "cpu" else 1
    known = network_seconds(backbones, compute)
    return sum(decode) / len(decode), known + sum(measured) / len(measured) / cores


def _run(plain: Sequence[VideoBackbone], backbones: Sequence[VideoBackbone], outcome: DecodeOutcome) -> float:
    """Seconds of the backbones whose operations are not known, on one decoded video."""
    start = time.perf_counter()
    for backbone, clips in zip(backbones, outcome.clips, strict=True):
        if backbone in plain:
            backbone.extract(clips)
    return time.perf_counter() - start
