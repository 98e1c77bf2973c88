"""extract-features: runs frozen backbones over every video once and commits the features to a store."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vqa_train.core.errors import ExitCode, Reason, UsageError, VqaError
from vqa_train.core.files import confined, display_path
from vqa_train.core.hashcache import HashCache
from vqa_train.core.hashing import sha256_bytes
from vqa_train.core.progress import progress
from vqa_train.core.provenance import RunProvenance, file_entry, package_versions
from vqa_train.core.types import Video
from vqa_train.datasets.load import Dataset, load_dataset
from vqa_train.engines.base import Engine, EngineOptions, TaskResult, VideoTask
from vqa_train.store.rows import Failure, FeatureRow
from vqa_train.store.store import FeatureSet, FeatureStore

EXTRACT_SCHEMA = "vqa-train/extract-report/1"

# Failures of the surroundings, not of the video's bytes: kept by path and looked at again in every run.
_BY_PATH = {
    Reason.MISSING_FILE,
    Reason.UNREADABLE,
    Reason.PATH_ESCAPE,
    Reason.CHECKSUM_MISMATCH,
    Reason.NO_PROMPT,
}
_TEXT_BATCH = 512


@dataclass(frozen=True, kw_only=True)
class ExtractConfig:
    """What to extract and how.

    Attributes:
        dataset: manifest name or path.
        output: the store's folder.
        backbones, text: registry names; at least one of either.
        data_root, manifests_dir: where videos and manifests are; None as `load_dataset` finds them.
        decoder, engine: registry names.
        workers: decoding processes (0 decodes in this process, without isolation).
        timeout_s: seconds allowed per video before its length is counted in.
        shard_rows, shard_seconds: a shard is committed at whichever comes first.
        retry_failed: take up videos again that failed in an earlier run.
        limit: at most so many videos in this run.
    """

    dataset: str
    output: Path
    backbones: tuple[str, ...] = ()
    text: tuple[str, ...] = ()
    data_root: Path | None = None
    manifests_dir: Path | None = None
    decoder: str = "pyav"
    engine: str = "local"
    workers: int = 2
    timeout_s: float = 60.0
    shard_rows: int = 256
    shard_seconds: float = 60.0
    retry_failed: bool = False
    limit: int | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON values for provenance; paths without the home folder."""
        value = asdict(self)
        return {k: display_path(v) if isinstance(v, Path) else v for k, v in value.items()}


@dataclass
class SetReport:
    """Counts of one feature set in one run; `inputs` = known + done + failed + skipped + left."""

    name: str
    inputs: int = 0
    known: int = 0
    done: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    left: int = 0

    def to_json(self) -> dict[str, Any]:
        """Counts as JSON values."""
        return {**asdict(self), "failed": dict(self.failed), "skipped": dict(self.skipped)}


@dataclass
class ExtractReport:
    """What a run did.

    Attributes:
        run_id: names runs/<run_id>.json in every feature set of the run.
        sets: per feature set.
        duplicates: dataset rows whose bytes another row has too (extracted once).
        interrupted: the run was told to stop; what was committed is kept.
        duration_s: wall time.
    """

    run_id: str
    sets: list[SetReport]
    duplicates: int = 0
    interrupted: bool = False
    duration_s: float = 0.0

    @property
    def exit_code(self) -> int:
        """0, 4 when some inputs have no features, 130 when interrupted."""
        if self.interrupted:
            return 130
        failed = any(report.failed or report.skipped for report in self.sets)
        return ExitCode.SOME_INPUTS_FAILED if failed else ExitCode.DONE

    def to_json(self) -> dict[str, Any]:
        """The report under its versioned schema."""
        return {
            "schema": EXTRACT_SCHEMA,
            "run_id": self.run_id,
            "interrupted": self.interrupted,
            "duplicates": self.duplicates,
            "duration_s": round(self.duration_s, 3),
            "sets": [report.to_json() for report in self.sets],
        }


class _Writer:
    """Buffers the rows and failures of one feature set and commits them by count or age."""

    def __init__(self, feature_set: FeatureSet, config: ExtractConfig, run_id: str) -> None:
        self.set = feature_set
        self.report = SetReport(name=feature_set.name)
        standing = feature_set.failures()
        self.known = feature_set.known_keys()
        self.failed_keys = {f.key: f.reason for f in standing if f.key is not None}
        self.failed_paths = {f.path: f.reason for f in standing if f.key is None}
        self._config = config
        self._run_id = run_id
        self._rows: list[FeatureRow] = []
        self._profile: Mapping[str, str] = {}
        self._done = 0
        self._failures: list[Failure] = []
        self._resolved: list[str] = []
        self._since = time.monotonic()

    def add(self, rows: Sequence[FeatureRow], profile: Mapping[str, str]) -> None:
        """Take the rows of one video or prompt, to be committed together."""
        self._rows.extend(rows)
        self._profile = profile
        self._done += 1
        self.flush_if_due()

    def fail(self, failure: Failure) -> None:
        """Take a failure; one that stands already, of the same path for the same reason, is not written twice."""
        self.report.failed[failure.reason] += 1
        if failure.key is not None or self.failed_paths.get(failure.path) != failure.reason:
            self._failures.append(failure)
        self.flush_if_due()

    def resolve(self, path: str) -> None:
        """Note that a failure kept by path no longer stands."""
        if self.failed_paths.pop(path, None) is not None:
            self._resolved.append(path)

    def flush_if_due(self) -> None:
        """Commit when there are enough rows, or the oldest has waited long enough."""
        age = time.monotonic() - self._since
        if len(self._rows) + len(self._failures) >= self._config.shard_rows or age >= self._config.shard_seconds:
            self.flush()

    def flush(self) -> None:
        """Commit everything taken so far."""
        if self._rows:
            self.set.append(self._rows, profile=self._profile, run_id=self._run_id)
            self.report.done += self._done
            self._rows, self._done = [], 0
        if self._failures:
            self.set.add_failures(self._failures, run_id=self._run_id)
            self._failures = []
        if self._resolved:
            self.set.resolve_failures(self._resolved, run_id=self._run_id)
            self._resolved = []
        self._since = time.monotonic()


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
    if not config.backbones and not config.text:
        raise UsageError("nothing to extract", hint="name at least one --backbone or --text")
    started = time.monotonic()
    dataset = load_dataset(config.dataset, data_root=config.data_root, manifests_dir=config.manifests_dir)
    store = FeatureStore(config.output)
    provenance = RunProvenance(entrypoint="extract-features", config=config.to_json())
    provenance.inputs["dataset"] = file_entry(dataset.path, "dataset-manifest")
    report = ExtractReport(run_id=provenance.run_id, sets=[])
    report.duplicates = len(dataset.videos) - len({video.sha256 for video in dataset.videos})
    writers: list[_Writer] = []
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


def _extract_text(
    name: str,
    dataset: Dataset,
    store: FeatureStore,
    config: ExtractConfig,
    writers: list[_Writer],
    provenance: RunProvenance,
    log: Callable[[str], None],
) -> None:
    """Encode each distinct prompt that the set lacks; a video without a prompt is a failure row."""
    from vqa_train.backbones import TEXT_ENCODERS

    encoder = TEXT_ENCODERS.get(name)()
    writer = _open(store, encoder, config, provenance, writers)
    prompts: dict[str, str] = {}
    writer.report.inputs = len(dataset.videos)
    for video in dataset.videos:
        if video.prompt is None or not video.prompt.strip():
            writer.fail(_failure(video, Reason.NO_PROMPT, f"video {video.id!r} has no prompt"))
            continue
        writer.resolve(video.path)
        key = sha256_bytes(video.prompt.encode("utf-8"))
        if key in writer.known or key in prompts:
            writer.report.known += 1
        else:
            prompts[key] = video.prompt
    keys = sorted(prompts, key=lambda k: (len(prompts[k]), k))
    profile = {"device": "cpu", "precision": "float32", **_versions("sentence-transformers", "transformers", "torch")}
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
    writers: list[_Writer],
    provenance: RunProvenance,
    log: Callable[[str], None],
) -> None:
    """Plan what each set lacks, run the engine over it, and route rows and failures to the sets' writers."""
    from vqa_train.backbones import BACKBONES
    from vqa_train.engines import ENGINES

    extractors = {}
    mine: dict[str, _Writer] = {}
    for name in config.backbones:
        backbone = BACKBONES.get(name)()
        writer = _open(store, backbone, config, provenance, writers)
        extractors[writer.set.name] = backbone
        mine[writer.set.name] = writer
    with HashCache() as cache:
        tasks, videos = _plan(dataset, mine, config, cache, log)
        log(f"{len(dataset.videos)} videos: {len(tasks)} to decode")
        if not tasks:
            return
        engine: Engine = ENGINES.get(config.engine)()
        options = EngineOptions(
            decoder=config.decoder,
            workers=config.workers,
            threads=1 if config.workers else 0,
            compute=os.cpu_count() or 1,
            timeout_s=config.timeout_s,
        )
        profile = {"decoder": config.decoder, "device": "cpu", "precision": "float32", **_versions("av", "torch")}
        with progress("videos", len(tasks)) as advance, _one_thread_per_clip():
            for result in engine.run(tasks, extractors, options):
                _route(result, videos[result.task.key], mine, profile)
                if not result.failures:
                    # The bytes were hashed by a worker; its stat is remembered here so the next run need not.
                    cache.remember(result.task.path, result.task.key)
                for writer in mine.values():
                    writer.flush_if_due()
                advance()
    for writer in mine.values():
        writer.flush()


@contextmanager
def _one_thread_per_clip() -> Iterator[None]:
    """Cores are shared out by clip, not within one: threads that wait for each other cost more than they bring when
    decoders want the same cores, and the numbers then do not depend on how many cores there are."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _plan(
    dataset: Dataset,
    writers: Mapping[str, _Writer],
    config: ExtractConfig,
    cache: HashCache,
    log: Callable[[str], None],
) -> tuple[list[VideoTask], dict[str, Video]]:
    """Tasks for the keys that some set lacks, each key once; failures found without decoding are recorded."""
    tasks: list[VideoTask] = []
    videos: dict[str, Video] = {}
    changed = 0
    for video in dataset.videos:
        lacking = []
        for name, writer in writers.items():
            writer.report.inputs += 1
            if video.sha256 in writer.known or video.sha256 in videos:
                writer.report.known += 1
                writer.resolve(video.path)
            elif video.sha256 in writer.failed_keys and not config.retry_failed:
                writer.report.skipped[writer.failed_keys[video.sha256]] += 1
            elif config.limit is not None and len(tasks) >= config.limit:
                writer.report.left += 1
            else:
                lacking.append(name)
        if not lacking:
            changed += _has_changed(video, dataset.root, cache)
            continue
        located = _locate(video, dataset.root, cache)
        if isinstance(located, Failure):
            for name in lacking:
                writers[name].fail(located)
            continue
        path, verify = located
        videos[video.sha256] = video
        tasks.append(VideoTask(key=video.sha256, path=path, verify=verify, sets=tuple(lacking)))
    if changed:
        log(
            f"warning: {changed} known videos differ on disk from the manifest - "
            "scan the dataset again if that is meant"
        )
    return tasks, videos


def _has_changed(video: Video, root: Path, cache: HashCache) -> bool:
    """Whether a video that needs no decoding is, by its stat, not what the manifest says; absent is no change."""
    path = root / video.path
    try:
        return path.stat().st_size != video.bytes or cache.cached(path) not in (None, video.sha256)
    except OSError:
        return False


def _locate(video: Video, root: Path, cache: HashCache) -> tuple[Path, bool] | Failure:
    """The file and whether its bytes must be hashed again, or why it cannot be used."""
    try:
        path = confined(root, video.path)
        size = path.stat().st_size
        hashed = cache.cached(path)
    except VqaError as error:
        return _failure(video, error.reason or Reason.UNREADABLE, str(error))
    except FileNotFoundError:
        return _failure(video, Reason.MISSING_FILE, f"{video.path!r} is not in the data root")
    except OSError as error:
        return _failure(video, Reason.UNREADABLE, f"{video.path!r}: {error.strerror}")
    if size != video.bytes or (hashed is not None and hashed != video.sha256):
        found = f"{size} bytes" if size != video.bytes else f"sha256 {hashed}"
        expected = f"{video.bytes} bytes, sha256 {video.sha256}"
        return _failure(
            video,
            Reason.CHECKSUM_MISMATCH,
            f"{video.path!r}: manifest says {expected}, file has {found} - scan the dataset again if that is meant",
        )
    return path, hashed is None


def _route(result: TaskResult, video: Video, writers: Mapping[str, _Writer], profile: Mapping[str, str]) -> None:
    for name, rows in result.rows.items():
        writers[name].add(rows, profile)
        writers[name].resolve(video.path)
    for name, (reason, message) in result.failures.items():
        writers[name].fail(_failure(video, reason, message))


def _open(
    store: FeatureStore,
    backbone: Any,
    config: ExtractConfig,
    provenance: RunProvenance,
    writers: list[_Writer],
) -> _Writer:
    feature_set = store.create_set(backbone.spec, license=backbone.license)
    writer = _Writer(feature_set, config, provenance.run_id)
    writers.append(writer)
    return writer


def _failure(video: Video, reason: Reason, message: str) -> Failure:
    # A failure of the surroundings says nothing about the bytes, so it is kept by path.
    key = None if reason in _BY_PATH else video.sha256
    return Failure(key=key, id=video.id, path=video.path, reason=reason, message=message)


def _versions(*packages: str) -> dict[str, str]:
    installed = package_versions()
    return {name: installed[name] for name in packages if name in installed}
