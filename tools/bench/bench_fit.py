"""Training and protocols measured: published SVR row against a recipe, grouped against row-wise splits, batched
against one by one, streaming from a file, wide features. Both sides of each ratio run in this one process.

Usage: python tools/bench/bench_fit.py --data DIR [--parts konvid,cvd,batched,stream,wide] [--splits 100] [--work DIR]
DIR holds konvid1k_videval.parquet (1,200 x 60, MOS) and cvd2014_resnet50.parquet (234 x 4,096, MOS, content_id).
Every part writes its own entry of docs/benchmarks/fit.json; the page fit.md is made of all entries there.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
from bench_fit_page import write_page
from machine import describe_machine
from published_svr import fit_predict, published_splits

from vqa_train.core.config import parse
from vqa_train.core.files import atomic_write_bytes, atomic_write_json
from vqa_train.core.hashing import canonical_json
from vqa_train.datasets.protocols import parse_protocol, read_plan
from vqa_train.evaluation import METRICS
from vqa_train.evaluation.summary import fold_metrics, summarise
from vqa_train.heads.config import TrainConfig
from vqa_train.heads.table import TrainingTable, build_table
from vqa_train.heads.trainer import HeadJob, fit_heads
from vqa_train.pipelines.fit.run import FitConfig, FitOptions, fit, load_fit_config
from vqa_train.pipelines.importing.config import ImportConfig
from vqa_train.pipelines.importing.run import import_features

RECIPE = Path("ai/configs/features.yaml")
OUTPUT = Path("docs/benchmarks")
SHOWN = ("srocc", "plcc", "plcc_mapped", "krocc", "rmse", "rmse_mapped")


def timed(function: Callable[[], Any]) -> tuple[Any, float, float]:
    """Result, wall seconds and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = function()
    return result, time.perf_counter() - wall, time.process_time() - cpu


def recipe(dataset: str, protocol: str) -> FitConfig:
    """The recipe with the imported set of this name, measured by this protocol, without intervals."""
    values = load_fit_config(RECIPE).model_dump(mode="json", by_alias=True)
    values |= {
        "features": {"features": {"set": dataset}},
        "dataset": dataset,
        "protocol": protocol,
        "calibration": None,
    }
    values["protocol"] = parse_protocol(protocol).model_dump(mode="json")
    return parse(FitConfig, values, str(RECIPE))


def imported(work: Path, file: Path, name: str, group: str | None = None) -> Path:
    """A store with the file's features and labels."""
    store = work / "store"
    import_features(
        ImportConfig(
            file=file,
            name=name,
            output=store,
            id_column="video_id",
            features_column="features",
            labels={"mos": "mos"},
            group_column=group,
        )
    )
    return store


def summary(per_fold: list[Any]) -> dict[str, dict[str, float]]:
    """Median and deviation of what papers print."""
    found = summarise(per_fold)["mos"]
    return {name: {"median": found[name].median, "std": found[name].std} for name in SHOWN}


def konvid(data: Path, work: Path, splits: int) -> dict[str, Any]:
    """The published protocol: SVR and recipe on the same splits, both through our splits file and metrics."""
    import polars as pl

    file = data / "konvid1k_videval.parquet"
    frame = pl.read_parquet(file)
    x, y = np.stack(frame["features"].to_numpy()).astype(np.float64), frame["mos"].to_numpy().astype(np.float64)
    ids = frame["video_id"].to_list()
    store = imported(work, file, "konvid1k")
    plan = work / "published.json"
    drawn = published_splits(len(y), splits)
    document = {
        "schema": "vqa-train/splits/1",
        "protocol": parse_protocol(f"repeated:repeats={splits},test_fraction=0.2,by=row").model_dump(mode="json"),
        "rows": [{"dataset": "konvid1k", "id": name} for name in ids],
        "folds": [
            {"name": f"split-{i:03d}", "train": train.tolist(), "test": test.tolist()}
            for i, (train, test) in enumerate(drawn, start=1)
        ],
    }
    atomic_write_bytes(plan, canonical_json(document).encode())
    folds = read_plan(plan).folds

    def ours(run: int) -> tuple[float, float]:
        output = work / f"run-{run}"
        options = FitOptions(threads=1)
        _, wall, cpu = timed(
            lambda: fit(recipe("konvid1k", f"file:{plan}"), features=store, output=output, options=options)
        )
        return wall, cpu

    first = ours(0)
    per_fold = []

    def svr() -> None:
        for i, fold in enumerate(folds, start=1):
            test, predicted = fit_predict(x, y, i)
            assert np.array_equal(np.sort(test), fold.test)
            order = np.argsort(test)
            per_fold.append(fold_metrics(predicted[order, None], y[fold.test, None], ["mos"]))
            print(f"\rSVR split {i} of {len(folds)}", end="", file=sys.stderr)

    _, wall, cpu = timed(svr)
    runs = [first, ours(1), ours(2)]
    report = json.loads((work / "run-0" / "protocol.json").read_text())["summary"]["mos"]
    mean = statistics.median(run[0] for run in runs)
    return {
        "splits": splits,
        "svr": {"wall_s": wall, "cpu_s": cpu, "metrics": summary(per_fold)},
        "recipe": {
            "wall_s": mean,
            "cpu_s": statistics.median(run[1] for run in runs),
            "walls_s": [run[0] for run in runs],
            "metrics": {name: {k: report[name][k] for k in ("median", "std")} for name in SHOWN},
        },
        "ratio_wall": wall / mean,
    }


def cvd(data: Path, work: Path) -> dict[str, Any]:
    """What row-wise splits promise and what unseen content gets."""
    store = imported(work, data / "cvd2014_resnet50.parquet", "cvd2014", "content_id")
    result: dict[str, Any] = {}
    for name, protocol in (
        ("row-wise 80/20, 20 times", "repeated:repeats=20,test_fraction=0.2,by=row"),
        ("row-wise 5-fold", "kfold:k=5,by=row"),
        ("5-fold by content", "kfold:k=5,by=group"),
    ):
        output = work / f"cvd-{len(result)}"
        _, wall, _ = timed(lambda p=protocol, o=output: fit(recipe("cvd2014", p), features=store, output=o))
        report = json.loads((output / "protocol.json").read_text())["summary"]["mos"]
        result[name] = {k: report[k]["median"] for k in ("srocc", "plcc")} | {
            "std": report["srocc"]["std"],
            "wall_s": wall,
        }
    return result


def made_table(rows: int, columns: int) -> TrainingTable:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((rows, columns), dtype=np.float32)
    y = (x[:, :8].sum(axis=1, keepdims=True) + rng.standard_normal((rows, 1))).astype(np.float32)
    names = [f"{i:07d}" for i in range(rows)]
    return build_table({"x": x}, y, ["mos"], names, names)


def plain(**changes: Any) -> TrainConfig:
    """The network of the recipe."""
    (values,) = (m.train.model_dump(mode="json") for m in load_fit_config(RECIPE).recipes if m.name == "mlp")
    return parse(TrainConfig, values | changes, str(RECIPE))


def batched(single: int) -> dict[str, Any]:
    """500 heads (100 splits x 5 seeds) of 960 rows x 60 columns at once, against single fits by the same trainer."""
    table = made_table(1200, 60)
    rng = np.random.default_rng(1)
    parts = [np.sort(rng.permutation(1200)[:960]) for _ in range(100)]
    jobs = [HeadJob(config=plain(seed=seed), train=part, name=f"{seed}") for seed in range(5) for part in parts]
    srocc = METRICS.get("srocc")
    few = jobs[:: max(1, len(jobs) // single)]
    _, alone, _ = timed(lambda: [fit_heads(table, [job], metric=srocc) for job in few[: len(few) // 2]])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _, one, cpu = timed(lambda: fit_heads(table, jobs, metric=srocc, threads=1))
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _, two, _ = timed(lambda: fit_heads(table, jobs, metric=srocc, threads=os.cpu_count() or 1))
    _, rest, _ = timed(lambda: [fit_heads(table, [job], metric=srocc) for job in few[len(few) // 2 :]])
    each = (alone + rest) / len(few)
    return {
        "heads": len(jobs),
        "single_fits_timed": len(few),
        "one_by_one_s": each * len(jobs),
        "batched_s": one,
        "batched_cpu_s": cpu,
        "batched_all_cores_s": two,
        "ratio": each * len(jobs) / one,
        "ratio_all_cores": each * len(jobs) / two,
        "peak_mib_before": before / 1024,
        "peak_mib_after": after / 1024,
    }


STREAM = """
import os, sys, time, json
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
import numpy as np
from vqa_train.core.config import parse
from vqa_train.heads.config import TrainConfig
from vqa_train.heads.table import build_table
from vqa_train.heads.trainer import HeadJob, fit_heads
from vqa_train.evaluation import METRICS
from vqa_train.store.matrix import MappedMatrix

path, rows, columns, hidden = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), json.loads(sys.argv[4])

class Rows:
    shape, dtype = (rows, columns), np.dtype(np.float16)
    def __init__(self):
        self.fd = os.open(path, os.O_RDONLY)
        self.bytes = 0
    def read(self, start, stop, out=None):
        out = np.empty((stop - start, columns), np.float16) if out is None else out
        view = memoryview(out).cast("B")
        done = 0
        while done < len(view):
            done += os.preadv(self.fd, [view[done:]], start * columns * 2 + done)
        self.bytes += done
        return out

def peak():
    text = open("/proc/self/status").read()
    return int(text.split("VmHWM:")[1].split()[0]) / 1024

source = Rows()
y = np.random.default_rng(0).standard_normal((rows, 1)).astype(np.float32)
names = [f"{i:07d}" for i in range(rows)]
table = build_table({"x": source}, y, ["mos"], names, names)
marks = []
config = parse(TrainConfig, {"patience": None, "validation": {"fraction": 0}, "epochs": 3, "batch_size": 1024,
    "head": {"hidden": hidden, "dropout": 0.0}, "loss": {"smooth_l1": 0.5, "rank": 0, "plcc": 1.0}}, "stream")
started = time.perf_counter()
fit_heads(table, [HeadJob(config=config, train=np.arange(rows))], metric=METRICS.get("srocc"),
    on_epoch=lambda *_: marks.append(time.perf_counter()))
print(json.dumps({"epochs_s": [b - a for a, b in zip(marks, marks[1:])], "all_s": marks[-1] - started, "peak_mib": peak()}))
"""


def stream(work: Path, rows: int, columns: int) -> dict[str, Any]:
    """One epoch over a file that is larger than what training may hold, against reading the file."""
    path = work / "rows.f16"
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        for start in range(0, rows, 8192):
            block = rng.standard_normal((min(8192, rows - start), columns), dtype=np.float32).astype(np.float16)
            file.write(block.tobytes())

    def read_all() -> float:
        buffer = bytearray(1024 * columns * 2)
        started = time.perf_counter()
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
        return time.perf_counter() - started

    def forget() -> None:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    result: dict[str, Any] = {"rows": rows, "columns": columns, "gib": path.stat().st_size / 2**30}
    forget()
    result["read_cold_s"] = read_all()
    result["read_cached_s"] = statistics.median(read_all() for _ in range(3))
    for name, hidden in (("linear", []), ("64-32", [64, 32])):
        done = subprocess.run(
            [sys.executable, "-c", STREAM, str(path), str(rows), str(columns), json.dumps(hidden)],
            capture_output=True,
            text=True,
            check=True,
        )
        result[name] = json.loads(done.stdout.strip().splitlines()[-1])
        epoch = statistics.median(result[name]["epochs_s"])
        result[name] |= {
            "epoch_s": epoch,
            "of_cold_rate": result["read_cold_s"] / epoch,
            "of_cached_rate": result["read_cached_s"] / epoch,
        }
    path.unlink()
    return result


def wide(device: str) -> dict[str, Any]:
    """50 heads x 30,000 rows x 2,432 columns: seconds per epoch."""
    table = made_table(30_000, 2432)
    rng = np.random.default_rng(1)
    jobs = [
        HeadJob(config=plain(seed=seed, epochs=2, batch_size=256), train=np.sort(rng.permutation(30_000)[:24_000]))
        for seed in range(50)
    ]
    marks: list[float] = []
    started = time.perf_counter()
    fit_heads(
        table,
        jobs,
        metric=METRICS.get("srocc"),
        device=device,
        threads=os.cpu_count() or 1,
        on_epoch=lambda *_: marks.append(time.perf_counter()),
    )
    total = time.perf_counter() - started
    return {
        "device": device,
        "epochs": 2,
        "all_s": total,
        "epoch_s": total / 2,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--parts", default="konvid,cvd,batched,stream,wide")
    parser.add_argument("--splits", type=int, default=100)
    parser.add_argument("--single", type=int, default=20, help="single fits that are timed")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--columns", type=int, default=2048)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        work = arguments.work or Path(made)
        work.mkdir(parents=True, exist_ok=True)
        parts: dict[str, Callable[[], dict[str, Any]]] = {
            "konvid": lambda: konvid(arguments.data, work, arguments.splits),
            "cvd": lambda: cvd(arguments.data, work),
            "batched": lambda: batched(arguments.single),
            "stream": lambda: stream(work, arguments.rows, arguments.columns),
            "wide": lambda: wide(arguments.device),
        }
        path = arguments.output / "fit.json"
        document = json.loads(path.read_text()) if path.is_file() else {"schema": "vqa-train/bench-fit/1", "parts": {}}
        document["machine"] = describe_machine()
        for name in arguments.parts.split(","):
            document["parts"][name] = parts[name]()
            print(f"\n{name}: {json.dumps(document['parts'][name], indent=1)}", flush=True)
            atomic_write_json(path, document)
        write_page(arguments.output / "fit.md", document)


if __name__ == "__main__":
    main()
