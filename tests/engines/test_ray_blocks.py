"""Blocks between the stages of a Ray run: what is packed comes back bit for bit; Ray itself is not needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vqa_train.core.errors import Reason, WeightsError
from vqa_train.core.types import Clip, YuvFormat
from vqa_train.engines.base import TaskResult, VideoTask
from vqa_train.engines.ray_blocks import pack, pack_clips, unpack, unpack_clips
from vqa_train.engines.ray_cluster import Spread, spread
from vqa_train.engines.ray_results import pack_fatal, pack_result, unpack_results
from vqa_train.engines.ray_stages import Ledger
from vqa_train.store.rows import FeatureRow


def clip(frames: np.ndarray, view: int, yuv: YuvFormat | None = None) -> Clip:
    return Clip(
        frames=frames, times=np.arange(len(frames)) / 3, indices=np.arange(len(frames)) * 7, fps=29.97, num_frames=40,
        duration_s=1.3346, width=6, height=4, codec="h264", decoder="pyav 1", key="ab" * 32, view=view, yuv=yuv,
    )  # fmt: skip


def test_clips_come_back_as_they_were_and_shared_frames_travel_once() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3), np.uint8)
    planes = np.random.default_rng(1).integers(0, 256, (2, 6, 6), np.uint8)
    yuv = YuvFormat(matrix="bt709", full_range=False)
    given = {
        "a": [clip(frames[1:3], 0), clip(frames[::2], 1)],
        "b": [clip(frames[1:3], 0)],
        "c": [clip(planes, 0, yuv)],
    }
    header, arrays = pack_clips(given)
    assert sum(array.dtype == np.uint8 for array in arrays) == 3
    ((number, got_header, got_arrays),) = unpack(pack(12, header, arrays))
    found = unpack_clips(got_header, got_arrays)
    assert number == 12
    for name, views in given.items():
        for one, other in zip(views, found[name], strict=True):
            assert one.facts() == other.facts()
            assert (one.key, one.view, one.yuv) == (other.key, other.view, other.yuv)
            for a, b in ((one.frames, other.frames), (one.times, other.times), (one.indices, other.indices)):
                assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


def test_results_come_back_as_they_were() -> None:
    task = VideoTask(key="ab" * 32, path=Path("v.mp4"), verify=False, sets=("a", "b"))
    rows = [
        FeatureRow(
            key=task.key, view=i, facts={"fps": 29.97}, outputs={"x": np.float32(i), "y": np.ones((2, i + 1), "f4")}
        )
        for i in range(2)
    ]
    given = TaskResult(task=task, rows={"a": rows}, failures={"b": (Reason.CRASH, "ü")}, attempts=2, worker="h:1")
    table = pack_result(1, given, {"a": {"device": "cpu"}})
    ((number, found, profiles),) = unpack_results(table, [task, task])
    assert (number, found.failures, found.attempts, found.worker) == (1, given.failures, 2, "h:1")
    assert profiles == {"a": {"device": "cpu"}}
    for row, other in zip(rows, found.rows["a"], strict=True):
        assert (row.key, row.view, row.facts) == (other.key, other.view, other.facts)
        for name, array in row.outputs.items():
            assert other.outputs[name].dtype == np.float32
            assert (array.shape, array.tobytes()) == (other.outputs[name].shape, other.outputs[name].tobytes())


def test_an_error_that_ends_a_run_comes_back_as_itself() -> None:
    table = pack_fatal(0, WeightsError("no weights", hint="fetch them"))
    with pytest.raises(WeightsError, match="no weights - fetch them"):
        list(unpack_results(table, []))


def test_the_ledger_counts_who_did_not_come_to_an_end() -> None:
    ledger = Ledger()
    assert ledger.begin("alone", [1, 2]) == [0, 0]
    ledger.end("alone", [1])
    assert ledger.begin("alone", [1, 2]) == [0, 1]
    assert ledger.begin("decode", [2]) == [0]
    assert ledger.begin("alone", [2]) == [2]


@pytest.mark.parametrize(
    ("resources", "device", "expected"),
    [
        ({"CPU": 6.0}, "auto", Spread(gpus=0, actors=6, most=6, videos=1)),
        ({"CPU": 6.0, "GPU": 2.0}, "auto", Spread(gpus=1, actors=2, most=None, videos=8)),
        ({"CPU": 6.0, "GPU": 2.0}, "cpu", Spread(gpus=0, actors=6, most=6, videos=1)),
        ({"CPU": 6.0}, "cuda", Spread(gpus=1, actors=1, most=None, videos=8)),
    ],
)
def test_how_a_run_is_spread(resources: dict[str, float], device: str, expected: Spread) -> None:
    assert spread(resources, device, 0) == expected
