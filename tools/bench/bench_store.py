"""What a feature store costs as it grows: append, snapshot, open, plan of a no-op run, lookup, scan, verify, compact.

Usage: python tools/bench/bench_store.py [--rows 1000 10000 100000 1000000] [--output docs/benchmarks] [--work DIR]

Every figure is taken in a fresh process (this file with --step), of synthetic video features of 64 float32 in shards of
256 rows, as extract-features writes them. Two figures are of wide rows: scan and verify at the speed of the disk cache.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from bench_store_page import exponents, markdown
from machine import describe_machine

DIM, SHARD_ROWS = 64, 256
WIDE_DIM, WIDE_SHARD_ROWS = 512, 4096
FACTS = {
    "num_frames": 240,
    "fps": 24.0,
    "width": 1280,
    "height": 720,
    "duration_s": 10.0,
    "codec": "h264",
    "decoder": "pyav",
}


def spec_of(dim: int) -> Any:
    """The spec of a made backbone; wide sets are imported ones, whose rows carry no facts."""
    from vqa_train.core.types import FeatureSpec, OutputSpec, Sampling

    return FeatureSpec(
        backbone="bench",
        definition=1,
        modality="video",
        outputs=(OutputSpec(name="pooled", shape=(dim,)),),
        sampling=Sampling(mode="uniform", n=8) if dim == DIM else None,
        preprocessing={"imported": {}} if dim != DIM else {},
    )


def key_of(number: int) -> str:
    """The key of row `number`."""
    from vqa_train.core.hashing import sha256_bytes

    return sha256_bytes(str(number).encode())


def timed(task: Callable[[], Any]) -> float:
    """Seconds of one call."""
    started = time.perf_counter()
    task()
    return time.perf_counter() - started


def open_set(root: Path) -> Any:
    """The store's only feature set."""
    from vqa_train.store.store import FeatureStore

    return FeatureStore.open(root).find("bench")


# Steps: each runs in its own process and gives {"seconds": ..., more}. What the clock covers is inside.


def step_append(root: Path, rows: int) -> dict[str, Any]:
    """Append `rows` rows, each shard durable before the next."""
    from vqa_train.store.rows import FeatureRow
    from vqa_train.store.store import FeatureStore

    features = FeatureStore(root).create_set(spec_of(DIM), license="none")
    rng, spent = np.random.default_rng(0), 0.0
    for start in range(0, rows, SHARD_ROWS):
        values = rng.normal(size=(min(SHARD_ROWS, rows - start), DIM)).astype(np.float32)
        batch = [
            FeatureRow(key=key_of(start + i), outputs={"pooled": values[i]}, facts=FACTS) for i in range(len(values))
        ]
        spent += timed(lambda batch=batch: features.append(batch, profile={"device": "cpu"}, run_id="bench"))
    return {"seconds": spent}


def step_snapshot(root: Path, rows: int) -> dict[str, Any]:
    """Bring manifest.json up to date."""
    features = open_set(root)
    return {"seconds": timed(features.snapshot)}


def step_index(root: Path, rows: int) -> dict[str, Any]:
    """Make and keep the row index: what the first question after a run costs."""
    features = open_set(root)
    return {"seconds": timed(features.index)}


def step_open(root: Path, rows: int) -> dict[str, Any]:
    """Open the store, find the set, and have its row index ready to be asked."""
    import vqa_train.store.store  # noqa: F401

    return {"seconds": timed(lambda: open_set(root).index())}


def step_plan(root: Path, rows: int) -> dict[str, Any]:
    """What extract-features asks a store before its first video, for a dataset that is done."""
    keys = [key_of(number) for number in range(rows)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    import vqa_train.store.store  # noqa: F401

    def plan() -> None:
        features = open_set(root)
        failures, known = features.failures(), features.known_keys()
        if failures or any(key not in known for key in keys):
            raise SystemExit("the plan should have nothing to do")

    return {"seconds": timed(plan), "before_mib": before}


def step_plan_videos(root: Path, rows: int) -> dict[str, Any]:
    """The same through pipelines.extract.plan, with `rows` records of videos, whose files are not there."""
    from vqa_train.core.hashcache import HashCache
    from vqa_train.core.types import Video
    from vqa_train.datasets.labels import LabelReport
    from vqa_train.datasets.load import Dataset
    from vqa_train.datasets.manifest import DatasetManifest
    from vqa_train.pipelines.extract.config import ExtractConfig
    from vqa_train.pipelines.extract.plan import plan_videos
    from vqa_train.pipelines.extract.writer import SetWriter

    videos = tuple(Video(id=str(n), path=f"{n}.mp4", sha256=key_of(n), bytes=1) for n in range(rows))
    dataset = Dataset(DatasetManifest.model_construct(name="bench"), root, "", root, videos, LabelReport())
    config = ExtractConfig(dataset="bench", output=root)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    def plan() -> None:
        writer = SetWriter(open_set(root), config, "bench")
        tasks, _ = plan_videos(dataset, {"bench": writer}, config, HashCache(), print)
        if tasks or writer.report.known != rows:
            raise SystemExit("the plan should have nothing to do")

    return {"seconds": timed(plan), "before_mib": before}


def step_lookup(root: Path, rows: int) -> dict[str, Any]:
    """One key's features, read and checked; the set is open. Median of 101 keys, after a first one."""
    features = open_set(root)
    numbers = np.random.default_rng(1).integers(0, rows, 102).tolist()
    times = [timed(lambda n=n: features.matrix("pooled", [key_of(n)])) for n in numbers]
    return {"seconds": float(np.median(times[1:])), "first_s": times[0], "p95_s": float(np.quantile(times[1:], 0.95))}


def step_scan(root: Path, rows: int) -> dict[str, Any]:
    """The mapped matrix of all keys into torch tensors, block by block: made first, then read from the page cache."""
    import torch

    features = open_set(root)
    keys = sorted(features.known_keys())
    started = time.perf_counter()
    mapped = features.mapped("pooled", keys)
    made = time.perf_counter() - started
    block = torch.empty((4096, *mapped.shape[1:]), dtype=torch.float32)

    def scan() -> None:
        for start in range(0, len(mapped), 4096):
            stop = min(start + 4096, len(mapped))
            mapped.read(start, stop, out=block[: stop - start].numpy())

    scan()
    seconds = float(np.median([timed(scan) for _ in range(5)]))
    size = mapped.path.stat().st_size
    return {"seconds": seconds, "state": mapped.state, "made_s": made, "bytes": size, "gb_per_s": size / seconds / 1e9}


def step_verify(root: Path, rows: int) -> dict[str, Any]:
    """Every byte of the store, against sha256sum over the same files; the page cache is warm for both."""
    from vqa_train.pipelines.store.look import verify

    files = sorted(str(path) for path in root.rglob("*") if path.is_file() and "cache" not in path.parts)
    size = sum(Path(path).stat().st_size for path in files)

    def sha256sum() -> None:
        subprocess.run(
            ["xargs", "-0", "sha256sum"], input="\0".join(files).encode(), stdout=subprocess.DEVNULL, check=True
        )

    sha256sum()
    peer = timed(sha256sum)
    report: dict[str, Any] = {}
    seconds = timed(lambda: report.update(verify(root)))
    if not report["ok"]:
        raise SystemExit(f"the store is damaged: {report['problems'][:3]}")
    return {"seconds": seconds, "bytes": size, "sha256sum_s": peer, "of_sha256sum": peer / seconds}


def step_compact(root: Path, rows: int) -> dict[str, Any]:
    """Merge every shard into larger ones, snapshot included."""
    features = open_set(root)
    report: list[Any] = []
    seconds = timed(lambda: report.append(features.compact()))
    return {"seconds": seconds, "shards_before": report[0].shards_before, "shards_after": report[0].shards_after}


def step_wide(root: Path, rows: int) -> dict[str, Any]:
    """Fill a store of wide rows."""
    from vqa_train.store.store import FeatureStore

    features = FeatureStore(root).create_set(spec_of(WIDE_DIM), license="none")
    rng, spent = np.random.default_rng(0), 0.0
    for start in range(0, rows, WIDE_SHARD_ROWS):
        values = rng.standard_normal((min(WIDE_SHARD_ROWS, rows - start), WIDE_DIM), dtype=np.float32)
        keys = [key_of(start + i) for i in range(len(values))]
        spent += timed(
            lambda keys=keys, values=values: features.append_arrays(
                keys, {"pooled": values}, profile={"device": "cpu"}, run_id="bench"
            )
        )
    features.snapshot()
    return {"seconds": spent}


STEPS = ("append", "index", "snapshot", "open", "plan", "plan_videos", "lookup", "scan", "verify", "compact")
WIDE_STEPS = ("wide", "scan", "verify")


def run_step(step: str, root: Path, rows: int) -> dict[str, Any]:
    """One step in this process, with the peak of its memory."""
    peak = 0

    def watch(done: threading.Event) -> None:
        nonlocal peak
        while not done.wait(0.01):
            peak = max(peak, _resident_kib())

    done = threading.Event()
    watcher = threading.Thread(target=watch, args=(done,), daemon=True)
    watcher.start()
    result = globals()[f"step_{step}"](root, rows)
    done.set()
    watcher.join()
    return {**result, "peak_mib": max(peak, _resident_kib()) / 1024, "anonymous_mib": _status("RssAnon") / 1024}


def _resident_kib() -> int:
    return _status("VmHWM")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def measure(step: str, root: Path, rows: int) -> dict[str, Any]:
    """`run_step` in a fresh process."""
    command = [sys.executable, __file__, "--step", step, "--root", str(root), "--rows", str(rows)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(rows, step, {name: round(v, 4) if isinstance(v, float) else v for name, v in result.items()}, file=sys.stderr)
    return result


def main() -> None:
    """Measure, print the page, write it and its JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--wide-rows", type=int, default=1_000_000)
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks"))
    parser.add_argument("--work", type=Path, default=None, help="folder for the stores [default: a temporary one]")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        print(json.dumps(run_step(arguments.step, arguments.root, arguments.rows[0])))
        return
    from vqa_train.core.files import atomic_write_bytes, atomic_write_json

    results, wide = [], {}
    with tempfile.TemporaryDirectory(dir=arguments.work) as work:
        for rows in arguments.rows:
            root = Path(work) / str(rows)
            results.append({"rows": rows, **{step: measure(step, root, rows) for step in STEPS}})
        if arguments.wide_rows:
            root = Path(work) / "wide"
            wide = {"rows": arguments.wide_rows, "dim": WIDE_DIM}
            wide |= {step: measure(step, root, arguments.wide_rows) for step in WIDE_STEPS}
    report = {
        "schema": "vqa-train/bench-store/1",
        "dim": DIM,
        "shard_rows": SHARD_ROWS,
        "machine": describe_machine(),
        "load_average": round(os.getloadavg()[2], 1),
        "results": results,
        "exponents": exponents(results, STEPS),
        "wide": wide,
    }
    page = markdown(report)
    print(page)
    atomic_write_json(arguments.output / "store.json", report)
    atomic_write_bytes(arguments.output / "store.md", page.encode("utf-8"))


if __name__ == "__main__":
    main()
