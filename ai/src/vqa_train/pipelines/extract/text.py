"""The prompts' half of an extraction: each distinct prompt that a feature set lacks is encoded once."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event

from vqa_train.core.errors import Reason
from vqa_train.core.hashing import sha256_bytes
from vqa_train.core.progress import progress
from vqa_train.datasets.load import Dataset
from vqa_train.pipelines.extract.compute import resolve_compute
from vqa_train.pipelines.extract.config import ExtractConfig
from vqa_train.pipelines.extract.heartbeat import Heartbeat
from vqa_train.pipelines.extract.remote import versions
from vqa_train.pipelines.extract.writer import SetWriter, failure_of, open_set
from vqa_train.store.rows import FeatureRow
from vqa_train.store.store import FeatureStore

_TEXT_BATCH = 512


def extract_text(
    name: str,
    dataset: Dataset,
    store: FeatureStore,
    config: ExtractConfig,
    writers: list[SetWriter],
    run_id: str,
    log: Callable[[str], None],
    stop: Event,
    heartbeat: Heartbeat,
) -> None:
    """Encode each distinct prompt that the set lacks; a video without a prompt is a failure row."""
    from vqa_train.backbones.build import build_text_encoder

    encoder = build_text_encoder(name)
    writer = open_set(store, encoder, config, run_id, writers)
    prompts: dict[str, str] = {}
    writer.report.inputs = len(dataset.videos)
    for video in dataset.videos:
        if video.prompt is None or not video.prompt.strip():
            if not config.shard.holds(video.sha256):
                writer.report.left += 1
                continue
            writer.fail(failure_of(video, Reason.NO_PROMPT, f"video {video.id!r} has no prompt"))
            continue
        writer.resolve(video.path)
        key = sha256_bytes(video.prompt.encode("utf-8"))
        if key in writer.known or key in prompts:
            writer.report.known += 1
        elif not config.shard.holds(key):
            writer.report.left += 1
        else:
            prompts[key] = video.prompt
    heartbeat.plan([writer.report for writer in writers])
    keys = sorted(prompts, key=lambda k: (len(prompts[k]), k))
    if keys:
        encoder.configure(resolve_compute(config.device))
    profile = {**encoder.numerics(), **versions("sentence-transformers", "transformers", "torch")}
    with progress(f"{name}: prompts", len(keys)) as advance:
        for start in range(0, len(keys), _TEXT_BATCH):
            if stop.is_set():
                break
            batch = keys[start : start + _TEXT_BATCH]
            vectors = encoder.encode([prompts[key] for key in batch])
            for key, vector in zip(batch, vectors, strict=True):
                writer.add([FeatureRow(key=key, view=0, outputs={"pooled": vector}, facts={})], profile)
            advance(len(batch))
    writer.flush()
    log(f"{writer.set.name}: {writer.report.done} distinct new prompts encoded")
