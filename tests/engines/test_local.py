"""The local engine: one decode for all backbones, failures stay with the backbone and the video that caused them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from vqa_train.core.errors import MediaError, Reason
from vqa_train.core.hashing import sha256_file
from vqa_train.core.types import Clip, FeatureSpec, OutputSpec, Sampling
from vqa_train.engines.base import EngineOptions, TaskResult, VideoTask
from vqa_train.engines.local import LocalEngine


class Mean:
    """Mean colour; raises or gives NaN for clips whose first pixel says so."""

    def __init__(self, name: str, n: int, broken: Callable[[Clip], Exception | None] = lambda _: None) -> None:
        self.spec = FeatureSpec(
            backbone=name, definition=1, modality="video", sampling=Sampling(mode="uniform", n=n, views=2),
            outputs=(OutputSpec(name="pooled", shape=(3,)),),
        )  # fmt: skip
        self._broken = broken

    def extract(self, clips: Sequence[Clip]) -> list[dict[str, NDArray[np.float32]]]:
        for clip in clips:
            error = self._broken(clip)
            if isinstance(error, FloatingPointError):
                return [{"pooled": np.full(3, np.nan, np.float32)} for _ in clips]
            if error is not None:
                raise error
        return [{"pooled": clip.frames.mean(axis=(0, 1, 2)).astype(np.float32)} for clip in clips]


@pytest.fixture
def tasks(tmp_path: Path, write_video: Callable[..., Path]) -> list[VideoTask]:
    paths = [write_video(tmp_path / f"{i}.mp4", frames=8, size=(64, 64 + 32 * i), seed=i) for i in range(3)]
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    paths.append(tmp_path / "bad.mp4")
    return [VideoTask(key=sha256_file(p), path=p, verify=True, sets=("a", "b")) for p in paths]


def run(
    tasks: Sequence[VideoTask], extractors: Mapping[str, Mean], *, workers: int = 1, compute: int = 2
) -> dict[str, TaskResult]:
    options = EngineOptions(decoder="pyav", workers=workers, compute=compute)
    results = list(LocalEngine().run(tasks, extractors, options))
    assert len(results) == len(tasks)
    return {result.task.path.name: result for result in results}


def test_every_backbone_gets_its_own_sampling_of_one_decode(tasks: list[VideoTask]) -> None:
    results = run(tasks, {"a": Mean("a", 2), "b": Mean("b", 4)})
    rows = results["1.mp4"].rows
    assert [row.view for row in rows["a"]] == [0, 1]
    assert rows["a"][0].facts["width"] == 96
    assert rows["a"][0].key == tasks[1].key
    assert results["bad.mp4"].failures.keys() == {"a", "b"}
    assert results["bad.mp4"].failures["a"][0] is Reason.DECODE_ERROR


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("shape mismatch"), Reason.BACKBONE_ERROR),
        (MediaError("too small", reason=Reason.TOO_SHORT), Reason.TOO_SHORT),
        (MemoryError(), Reason.OUT_OF_MEMORY),
        (FloatingPointError(), Reason.NON_FINITE),
    ],
)
def test_a_backbone_that_fails_on_a_video_fails_alone(tasks: list[VideoTask], error: Exception, reason: Reason) -> None:
    results = run(tasks, {"a": Mean("a", 2, lambda clip: error if clip.width == 96 else None), "b": Mean("b", 2)})
    assert results["1.mp4"].failures["a"][0] is reason
    assert results["1.mp4"].rows.keys() == {"b"}
    assert results["0.mp4"].rows.keys() == {"a", "b"}
    assert not results["0.mp4"].failures


def test_rows_do_not_depend_on_how_many_clips_run_at_once(tasks: list[VideoTask]) -> None:
    one, many = (run(tasks, {"a": Mean("a", 3), "b": Mean("b", 2)}, workers=w, compute=c) for w, c in ((0, 1), (2, 4)))
    for name, result in one.items():
        for key, rows in result.rows.items():
            for row, other in zip(rows, many[name].rows[key], strict=True):
                assert row.outputs["pooled"].tobytes() == other.outputs["pooled"].tobytes()


def test_only_the_sets_that_lack_a_key_get_rows(tasks: list[VideoTask]) -> None:
    partly = [VideoTask(key=t.key, path=t.path, verify=False, sets=("b",)) for t in tasks[:1]]
    results = run(partly + tasks[1:], {"a": Mean("a", 2), "b": Mean("b", 2)})
    assert results["0.mp4"].rows.keys() == {"b"}
    assert results["1.mp4"].rows.keys() == {"a", "b"}
