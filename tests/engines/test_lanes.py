"""Batches of several videos: the same rows as one by one, a poison clip fails alone, nothing waits for ever."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from vqa_train.core.errors import DeviceError, MediaError, Reason
from vqa_train.core.hashing import sha256_file
from vqa_train.core.types import Clip, FeatureSpec, OutputSpec, Sampling
from vqa_train.engines.base import BatchExtractor, EngineOptions, TaskResult, VideoTask
from vqa_train.engines.lanes import BatchLane, make_lane
from vqa_train.engines.local import LocalEngine


class Batched:
    """Mean colour, staged as float32; remembers the batches that it was given."""

    def __init__(self, batch_size: int, views: int = 1) -> None:
        self.spec = FeatureSpec(
            backbone="batched", definition=1, modality="video", sampling=Sampling(mode="uniform", n=2, views=views),
            outputs=(OutputSpec(name="pooled", shape=(3,)),),
        )  # fmt: skip
        self.batch_size = batch_size
        self.batches: list[int] = []
        self.threads: set[str] = set()

    def stage(self, clip: Clip) -> NDArray[np.float32]:
        self.threads.add(threading.current_thread().name)
        if clip.width == 96:
            raise MediaError("too small", reason=Reason.TOO_SHORT)
        return clip.frames.mean(axis=(0, 1, 2)).astype(np.float32)

    def run(self, staged: Sequence[NDArray[np.float32]]) -> list[dict[str, NDArray[np.float32]]]:
        self.batches.append(len(staged))
        if any(view[0] < 0 for view in staged):
            raise RuntimeError("poison")
        return [{"pooled": view} for view in staged]

    def extract(self, clips: Sequence[Clip]) -> list[dict[str, NDArray[np.float32]]]:
        raise AssertionError("clips must go through stage and run")


class Poisoned(Batched):
    """Stages a negative mean for the smallest video, at which `run` stumbles."""

    def stage(self, clip: Clip) -> NDArray[np.float32]:
        staged = super().stage(clip)
        return -staged if clip.width == 64 else staged


class Broken(Batched):
    """Fails as no extractor should."""

    def run(self, staged: Sequence[NDArray[np.float32]]) -> list[dict[str, NDArray[np.float32]]]:
        raise SystemExit(3)


@pytest.fixture
def tasks(tmp_path: Path, write_video: Callable[..., Path]) -> list[VideoTask]:
    widths = [128, 64, 160, 128, 192]
    paths = [write_video(tmp_path / f"{i}.mp4", frames=6, size=(64, w), seed=i) for i, w in enumerate(widths)]
    return [VideoTask(key=sha256_file(p), path=p, verify=False, sets=("a",)) for p in paths]


def run(tasks: Sequence[VideoTask], extractor: Batched) -> dict[str, TaskResult]:
    results = list(LocalEngine().run(tasks, {"a": extractor}, EngineOptions(decoder="pyav", workers=0)))
    assert len(results) == len(tasks)
    return {result.task.path.name: result for result in results}


def test_extractors_with_stage_and_run_are_batched() -> None:
    lane = make_lane(Batched(2), 1)
    assert isinstance(Batched(2), BatchExtractor)
    assert isinstance(lane, BatchLane)
    lane.close()


@pytest.mark.parametrize("views", [1, 2])
def test_rows_do_not_depend_on_the_batch(tasks: list[VideoTask], views: int) -> None:
    one, many = run(tasks, Batched(1, views)), run(tasks, Batched(3, views))
    for name, result in one.items():
        assert len(result.rows["a"]) == views
        for row, other in zip(result.rows["a"], many[name].rows["a"], strict=True):
            assert (row.key, row.view, row.facts) == (other.key, other.view, other.facts)
            assert row.outputs["pooled"].tobytes() == other.outputs["pooled"].tobytes()


def test_clips_of_several_videos_go_through_together_and_the_last_ones_do_not_wait(tasks: list[VideoTask]) -> None:
    extractor = Batched(2)
    run(tasks, extractor)
    assert extractor.batches == [2, 2, 1]
    assert all(name.startswith("ThreadPoolExecutor") for name in extractor.threads)


def test_a_clip_that_cannot_be_staged_fails_alone(
    tasks: list[VideoTask], tmp_path: Path, write_video: Callable[..., Path]
) -> None:
    path = write_video(tmp_path / "narrow.mp4", frames=6, size=(64, 96))
    narrow = VideoTask(key=sha256_file(path), path=path, verify=False, sets=("a",))
    results = run([*tasks[:1], narrow, *tasks[1:2]], Batched(3))
    assert results["narrow.mp4"].failures["a"][0] is Reason.TOO_SHORT
    assert results["0.mp4"].rows.keys() == results["1.mp4"].rows.keys() == {"a"}


def test_a_clip_that_spoils_its_batch_fails_alone(tasks: list[VideoTask]) -> None:
    results = run(tasks, Poisoned(5))
    assert {name: bool(result.failures) for name, result in results.items()} == {f"{i}.mp4": i == 1 for i in range(5)}
    assert results["1.mp4"].failures["a"] == (Reason.BACKBONE_ERROR, "'1.mp4': RuntimeError: poison")


class Lost(Batched):
    """Its device fails at the second batch."""

    def run(self, staged: Sequence[NDArray[np.float32]]) -> list[dict[str, NDArray[np.float32]]]:
        if self.batches:
            raise DeviceError("device lost")
        return super().run(staged)


def test_a_lost_device_ends_the_run_and_is_no_videos_failure(tasks: list[VideoTask]) -> None:
    results = LocalEngine().run(tasks, {"a": Lost(1)}, EngineOptions(decoder="pyav", workers=0))
    seen: list[TaskResult] = []
    with pytest.raises(DeviceError, match="device lost"):
        seen.extend(results)
    assert not any(result.failures for result in seen)


def test_an_error_that_is_no_exception_reaches_the_caller(tasks: list[VideoTask]) -> None:
    with pytest.raises(SystemExit):
        run(tasks, Broken(2))
