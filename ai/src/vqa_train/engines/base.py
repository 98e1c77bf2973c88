"""What an extraction engine is given and what it yields, whatever machines it runs on."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.errors import Reason
from vqa_train.core.types import Clip, FeatureSpec
from vqa_train.store.rows import FeatureRow
from vqa_train.video.job import DEFAULT_RECYCLE, DecodeLimits


class Extractor(Protocol):
    """The part of a video backbone that an engine needs."""

    spec: FeatureSpec

    def extract(self, clips: Sequence[Clip]) -> list[dict[str, NDArray[np.float32]]]:
        """Features of each clip by output name."""
        ...


@runtime_checkable
class BatchExtractor(Extractor, Protocol):
    """An extractor that is quicker with clips of several videos at once.

    `stage` (upload, preprocessing) and `run` (the network) may be called from different threads; `run` from one
    thread only.
    """

    @property
    def batch_size(self) -> int:
        """Clips that `run` should be given at once; may shrink."""
        ...

    def stage(self, clip: Clip) -> Any:
        """One clip, made ready for `run`."""
        ...

    def run(self, staged: Sequence[Any]) -> list[dict[str, NDArray[np.float32]]]:
        """Features of staged clips by output name, in order.

        Raises:
            DeviceError: ends the run; any other error is the clips'.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class VideoTask:
    """One video to extract.

    Attributes:
        key: sha256 of the bytes, from the manifest.
        path: the file.
        verify: re-hash the bytes before decoding (its stat is new or has changed since they were hashed).
        sets: names of the feature sets that lack this key.
        id, name: of the video in its dataset (`name` is its path there); what a failure row says.
    """

    key: str
    path: Path
    verify: bool
    sets: tuple[str, ...]
    id: str = ""
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class TaskResult:
    """What came of one task: rows by feature-set name and failures by feature-set name; never neither.

    `attempts` is 2 for a video that took its worker down and was decoded again alone. With `stored`, everything is in
    the store already, by way of `EngineOptions.sink`, and the rows are not brought along: `rows` names the sets that
    have them. `worker` says who computed it, where that was another process: host and process id.
    """

    task: VideoTask
    rows: Mapping[str, Sequence[FeatureRow]] = field(default_factory=dict)
    failures: Mapping[str, tuple[Reason, str]] = field(default_factory=dict)
    attempts: int = 1
    stored: bool = False
    worker: str = ""


@dataclass(frozen=True, kw_only=True)
class Built:
    """Extractors by feature-set name, configured for the machine they are on, and how each computes there."""

    extractors: Mapping[str, Extractor]
    profiles: Mapping[str, Mapping[str, str]]


class Sink(Protocol):
    """Puts results into the store from wherever they were computed. Engines send copies of it to other machines."""

    def commit(self, results: Sequence[TaskResult], profiles: Sequence[Mapping[str, Mapping[str, str]]]) -> None:
        """Write rows and failures durably.

        Args:
            results: with their rows.
            profiles: per result, by feature-set name: how its rows were computed.

        Raises:
            StoreError: the store cannot be written.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """How to run.

    Attributes:
        decoder: registry name.
        workers: decoding processes; 0 decodes in this process (no isolation).
        threads: decoding threads per worker; 0 divides the cores among the workers.
        compute: clips that the backbones work on at once.
        limits: what one video may cost.
        recycle: videos after which a decoding process is replaced by a fresh one.
        stop: once set, no further task is begun; those under way are finished and their results yielded.
        planar: stored planes go to the extractors instead of RGB where there are any; all of them must be
            `BatchExtractor`s, whose `stage` takes them.
        device: "auto", "cpu" or "cuda"; what an engine that computes elsewhere asks for there.
        batch: clips that a network is to be given at once; 0 where the extractor decides.
        build: makes the extractors in another process, as they are to be there; None sends copies of those given.
        sink: commits results where they are computed; engines that compute in this process leave that to the caller.
        shard_rows, shard_seconds: `sink` is called with so many rows or after so many seconds.
    """

    decoder: str
    workers: int
    threads: int = 0
    compute: int = 1
    limits: DecodeLimits = field(default_factory=DecodeLimits)
    recycle: int = DEFAULT_RECYCLE
    stop: Event = field(default_factory=Event)
    planar: bool = False
    device: str = "auto"
    batch: int = 0
    build: Callable[[], Built] | None = None
    sink: Sink | None = None
    shard_rows: int = 256
    shard_seconds: float = 60.0


class Engine(Protocol):
    """Runs tasks in any order; results do not depend on it.

    Attributes:
        elsewhere: it computes in other processes, perhaps on other machines, with extractors of `EngineOptions.build`;
            those handed to `run` only say what is wanted and need not be configured.
    """

    elsewhere: bool

    def run(
        self, tasks: Sequence[VideoTask], extractors: Mapping[str, Extractor], options: EngineOptions
    ) -> Generator[TaskResult, None, None]:
        """Yield one result per task as it is done; tasks not begun when `options.stop` is set have none."""
        ...
