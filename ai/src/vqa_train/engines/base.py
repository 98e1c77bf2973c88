"""What an extraction engine is given and what it yields, whatever machines it runs on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.errors import Reason
from vqa_train.core.types import Clip, FeatureSpec
from vqa_train.store.rows import FeatureRow


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
    """

    key: str
    path: Path
    verify: bool
    sets: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class TaskResult:
    """What came of one task: rows by feature-set name and failures by feature-set name; never neither."""

    task: VideoTask
    rows: Mapping[str, Sequence[FeatureRow]] = field(default_factory=dict)
    failures: Mapping[str, tuple[Reason, str]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """How to run.

    Attributes:
        decoder: registry name.
        workers: decoding processes; 0 decodes in this process (no isolation).
        threads: decoding threads per worker; 0 divides the cores among the workers.
        compute: clips that the backbones work on at once.
        timeout_s: seconds that a video may take to decode, before its length is counted in.
        planar: stored planes go to the extractors instead of RGB where there are any; all of them must be
            `BatchExtractor`s, whose `stage` takes them.
    """

    decoder: str
    workers: int
    threads: int = 0
    compute: int = 1
    timeout_s: float = 60.0
    planar: bool = False


class Engine(Protocol):
    """Runs tasks in any order; results do not depend on it."""

    def run(
        self, tasks: Sequence[VideoTask], extractors: Mapping[str, Extractor], options: EngineOptions
    ) -> Iterator[TaskResult]:
        """Yield one result per task as it is done."""
        ...
