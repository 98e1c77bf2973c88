"""Rows from files: the same weights as from memory, bit for bit, in bounded memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from vqa_train.core.config import parse
from vqa_train.core.errors import ConfigError
from vqa_train.evaluation import METRICS
from vqa_train.heads import order
from vqa_train.heads.config import TrainConfig
from vqa_train.heads.source import FeatureRows
from vqa_train.heads.table import build_table, scaling_statistics
from vqa_train.heads.trainer import HeadJob, fit_heads, predict_many

SROCC = METRICS.get("srocc")


class Rows:
    """Rows that can only be read piece by piece, and how many were."""

    def __init__(self, values: np.ndarray) -> None:
        self._values, self.shape, self.dtype = values, values.shape, values.dtype
        self.reads: list[tuple[int, int]] = []

    def read(self, start: int, stop: int, out: np.ndarray | None = None) -> np.ndarray:
        assert 0 <= start <= stop <= len(self._values)
        self.reads.append((start, stop))
        rows = self._values[start:stop]
        if out is None:
            return rows.copy()
        assert out.shape == rows.shape and out.dtype == rows.dtype and out.flags.c_contiguous
        out[...] = rows
        return out


def parts(rows: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    wide = rng.normal(size=(rows, 5)).astype(np.float16)
    wide[rng.random(rows) < 0.01, 2] = np.nan
    wide[3, 1], wide[:, 4] = np.inf, 2
    return {"wide": wide, "narrow": rng.normal(10, 3, size=(rows, 3)).astype(np.float16)}


def labels(features: dict[str, np.ndarray]) -> np.ndarray:
    y = 3 + features["wide"][:, :1].astype(np.float32) + 0.1 * features["narrow"][:, :1].astype(np.float32)
    y[::11] = np.nan
    return y


def tables(rows: int):
    """The same rows in memory and in files."""
    features = parts(rows)
    keys = [f"{i:07d}" for i in range(rows)]
    stored = {name: Rows(part) for name, part in features.items()}
    return [build_table(f, labels(features), ["mos"], keys, keys) for f in (features, stored)]


def jobs(rows: int, epochs: int = 2) -> list[HeadJob]:
    recipe = {"epochs": epochs, "head": {"hidden": [4]}, "batch_size": 512, "patience": None}
    every = np.arange(rows)
    return [
        HeadJob(config=parse(TrainConfig, recipe, "r"), train=every[every % 5 != 0], validation=every[::5]),
        HeadJob(config=parse(TrainConfig, {**recipe, "seed": 1, "drop_sets": 0.1}, "r"), train=every[: rows // 2]),
    ]


def assert_same_bits(one, two) -> None:
    a, b = one.module.state_dict(), two.module.state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert (one.history, one.nonfinite, one.constant) == (two.history, two.nonfinite, two.constant)


def test_rows_in_files_give_the_weights_of_rows_in_memory_bit_for_bit():
    rows = 140_000
    assert rows > 2 * order.WINDOW
    memory, files = tables(rows)
    assert memory.rows.resident
    assert not files.rows.resident
    one, two = (fit_heads(table, jobs(rows, 1), metric=SROCC) for table in (memory, files))
    for a, b in zip(one, two, strict=True):
        assert_same_bits(a, b)
    assert one[0].history[-1]["validation_metric"] > 0.5
    wanted = [np.arange(100, 90_000, 7), np.array([139_999, 3, 3])]
    for a, b in zip(predict_many(one, memory, wanted), predict_many(two, files, wanted), strict=True):
        np.testing.assert_array_equal(a, b)


def test_many_small_windows_too_and_one_head_alone_is_the_one_beside_another(monkeypatch):
    monkeypatch.setattr(order, "WINDOW", 2 * order.BLOCK)
    rows = 9_500
    memory, files = tables(rows)
    one, two = (fit_heads(table, jobs(rows), metric=SROCC) for table in (memory, files))
    for a, b in zip(one, two, strict=True):
        assert_same_bits(a, b)
    alone = fit_heads(files, jobs(rows)[1:], metric=SROCC)[0]
    wanted = [np.arange(rows)]
    distance = np.abs(predict_many([alone], memory, wanted)[0] - predict_many(two[1:], memory, wanted)[0])
    assert distance.max() < 1e-4
    assert alone.counts["steps"] == two[1].counts["steps"]


def test_windows_without_training_rows_are_not_read(monkeypatch):
    monkeypatch.setattr(order, "WINDOW", order.BLOCK)
    rows = 6 * order.BLOCK
    _, files = tables(rows)
    config = parse(TrainConfig, {"epochs": 1, "head": {"hidden": [4]}, "patience": None}, "r")
    train = np.arange(2 * order.BLOCK, 3 * order.BLOCK)
    fit_heads(files, [HeadJob(config=config, train=train)], metric=SROCC)
    stored = files.features["wide"]
    block = (2 * order.BLOCK, 3 * order.BLOCK)
    # Once for its statistics, once for its epoch, beside the one pass that counts broken values.
    assert stored.reads.count(block) == 2
    assert all(stop - start > order.BLOCK or (start, stop) == block for start, stop in stored.reads)


@pytest.mark.parametrize("stored", [False, True])
def test_rows_are_taken_in_the_order_asked_for_with_repeats(stored):
    features = parts(20_000)
    rows = FeatureRows({name: Rows(part) if stored else part for name, part in features.items()})
    both = np.concatenate(list(features.values()), axis=1)
    wanted = np.array([19_999, 0, 7, 7, 12_345, 3])
    np.testing.assert_array_equal(rows.take(wanted), both[wanted])
    assert rows.take(wanted[:0]).shape == (0, 8)
    np.testing.assert_array_equal(rows.read([(5, 9), (2, 3)]), both[[5, 6, 7, 8, 2]])
    np.testing.assert_array_equal(rows.block(100, 120), both[100:120])
    assert rows.count_nonfinite() == {"wide": int((~np.isfinite(features["wide"])).sum()), "narrow": 0}


def test_inputs_over_time_lie_side_by_side():
    steps = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    rows = FeatureRows({"steps": steps, "one": np.ones((2, 1), dtype=np.float16)})
    assert (rows.columns, rows.widths, rows.dtype) == (13, [12, 1], np.float32)
    np.testing.assert_array_equal(rows.whole()[1], [*range(12, 24), 1])


def test_statistics_of_rows_in_a_file_are_numpys(monkeypatch):
    monkeypatch.setattr(order, "WINDOW", order.BLOCK)
    _, files = tables(5_000)
    rows = np.arange(0, 5_000, 3)
    got = scaling_statistics(files, rows)
    both = np.concatenate(list(parts(5_000).values()), axis=1)[rows].astype(np.float64)
    both[~np.isfinite(both)] = np.nan
    np.testing.assert_allclose(got.input_mean, np.nanmean(both, axis=0), rtol=1e-6)
    np.testing.assert_allclose(got.input_std[got.input_varies], np.nanstd(both, axis=0)[got.input_varies], rtol=1e-6)
    assert got.input_varies.tolist() == [True, True, True, True, False, True, True, True]


def test_rows_in_a_file_need_sorted_keys():
    with pytest.raises(ConfigError, match="'wide' are rows in a file, and their keys are not sorted"):
        build_table({"wide": Rows(np.zeros((2, 3), np.float16))}, np.ones((2, 1)), ["mos"], ["a", "b"], ["y", "x"])


# Trains one small head for an epoch on a raw file; prints its size and the most memory that was its own.
PROGRAM = """
import json, sys, threading, time
import numpy as np
from vqa_train.core.config import parse
from vqa_train.evaluation import METRICS
from vqa_train.heads.config import TrainConfig
from vqa_train.heads.table import build_table
from vqa_train.heads.trainer import HeadJob, fit_heads
from vqa_train.store.mapped import MappedMatrix
from pathlib import Path

rows, columns = 400_000, 256
matrix = MappedMatrix(Path(sys.argv[1]), (rows, columns), np.dtype(np.float16))
labels = np.random.default_rng(0).normal(size=(rows, 1)).astype(np.float32)
keys = [f"{i:07d}" for i in range(rows)]
recipe = {"epochs": 1, "head": {"hidden": [8]}, "batch_size": 4096, "patience": None, "loss": {"rank": 0}}
config = parse(TrainConfig, recipe, "r")
every = np.arange(rows)
job = HeadJob(config=config, train=every[every % 10 > 0], validation=every[::10])

def own():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))

peak, done = [0], threading.Event()
def watch():
    while not done.is_set():
        peak[0] = max(peak[0], own())
        time.sleep(0.005)

table = build_table({"x": matrix}, labels, ["mos"], keys, keys)
# What the first training loads for good is not counted.
few = build_table({"x": np.arange(100, dtype=np.float32).reshape(50, 2)}, labels[:50], ["mos"], keys[:50], None)
first = HeadJob(config=config, train=np.arange(40), validation=np.arange(40, 50))
fit_heads(few, [first], metric=METRICS.get("srocc"))
before = own()
thread = threading.Thread(target=watch)
thread.start()
head = fit_heads(table, [job], metric=METRICS.get("srocc"))[0]
done.set()
thread.join()
print(json.dumps({"before": before, "peak": peak[0], "bytes": rows * columns * 2, "steps": head.counts["steps"]}))
"""


def test_memory_does_not_grow_with_the_file(tmp_path):
    if not Path("/proc/self/status").exists():
        pytest.skip("needs /proc to watch a process's memory")
    path = tmp_path / "rows.f16"
    block = np.random.default_rng(0).normal(size=(10_000, 256)).astype(np.float16)
    with path.open("wb") as file:
        for number in range(40):
            np.roll(block, number, axis=1).tofile(file)
    # One arena: with one per thread, what is freed in another thread stays resident as it happens.
    environment = {**os.environ, "MALLOC_ARENA_MAX": "1"}
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path)], capture_output=True, text=True, check=False, env=environment
    )
    assert run.returncode == 0, run.stderr
    report = json.loads(run.stdout)
    assert report["steps"] == pytest.approx(360_000 / 4096, abs=7)
    # Two windows of 32 MiB, one batch, and what a window is worked on with; the file has 195 MiB.
    assert report["bytes"] == 204_800_000
    assert report["peak"] - report["before"] < 185e6
