"""What a run costs that has nothing to do: finding out which keys of a store are known, against a Polars scan of the shards.

Usage: python tools/bench/bench_store_plan.py [--output docs/benchmarks] [--work DIR]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from machine import describe_machine, markdown_machine

from vqa_train.core.files import atomic_write_bytes, atomic_write_json
from vqa_train.core.hashing import sha256_bytes
from vqa_train.core.types import FeatureSpec, OutputSpec, Sampling
from vqa_train.store.rows import FeatureRow
from vqa_train.store.store import FeatureSet, FeatureStore
from vqa_train.store.verify import verify

CASES = ((1_000, 10), (10_000, 50), (10_000, 300), (100_000, 300))
DIM = 256
SPEC = FeatureSpec(
    backbone="bench",
    definition=1,
    modality="video",
    outputs=(OutputSpec(name="pooled", shape=(DIM,)),),
    sampling=Sampling(mode="uniform", n=8),
)
FACTS = {
    "num_frames": 240,
    "fps": 24.0,
    "width": 1280,
    "height": 720,
    "duration_s": 10.0,
    "codec": "h264",
    "decoder": "pyav",
}
# Interpreter and imports included: what a user waits for.
PROCESS = """
import sys; from pathlib import Path; from vqa_train.store.store import FeatureStore
features = FeatureStore.open(Path(sys.argv[1])).find("bench"); features.known_keys(); features.failures()
"""


def fill(root: Path, rows: int, shards: int) -> tuple[FeatureSet, list[str]]:
    """A store of `rows` rows in `shards` shards, and its keys."""
    features = FeatureStore(root).create_set(SPEC, license="none")
    keys = [sha256_bytes(str(number).encode()) for number in range(rows)]
    values = np.random.default_rng(0).normal(size=(rows, DIM)).astype(np.float32)
    for part in np.array_split(np.arange(rows), shards):
        batch = [FeatureRow(key=keys[i], outputs={"pooled": values[i]}, facts=FACTS) for i in part]
        features.append(batch, profile={"device": "cpu", "precision": "float32"}, run_id="bench")
    features.snapshot()
    return features, keys


def median_s(task: Callable[[], Any], repeats: int = 7) -> float:
    """Median wall time in seconds; the first run, which warms the page cache, is not counted."""
    task()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        task()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def measure(root: Path, rows: int, shards: int) -> dict[str, Any]:
    """Times in seconds of one case."""
    started = time.perf_counter()
    features, keys = fill(root, rows, shards)
    filled = time.perf_counter() - started
    shard_bytes = sum(commit.bytes for commit in features.commits())

    def plan() -> None:
        fresh = FeatureStore.open(root).find("bench")
        known = fresh.known_keys()
        if [key for key in keys if key not in known] or fresh.failures():
            raise SystemExit("the plan should have nothing to do")

    def peer() -> None:
        frame = pl.scan_parquet(features.folder / "shards" / "*.parquet").select("video_sha256", "view").collect()
        known = set(frame["video_sha256"])
        if [key for key in keys if key not in known]:
            raise SystemExit("the peer should find every key")

    times = {
        "plan_s": median_s(plan),
        "plan_again_s": median_s(lambda: len(features.known_keys())),
        "plan_process_s": median_s(lambda: subprocess.run([sys.executable, "-c", PROCESS, root], check=True), 3),
        "polars_scan_s": median_s(peer),
        "snapshot_again_s": median_s(features.snapshot, 3),
        "matrix_s": median_s(lambda: features.matrix("pooled", keys), 3),
        "verify_s": median_s(lambda: verify(root), 1),
    }
    return {
        "rows": rows,
        "shards": shards,
        "bytes": shard_bytes,
        "append_ms_per_shard": 1000 * filled / shards,
        **times,
        "ratio_to_polars_scan": times["polars_scan_s"] / times["plan_s"],
    }


def markdown(results: list[dict[str, Any]], machine: dict[str, Any]) -> str:
    """The page for the docs."""
    lines = [
        "# Store: the plan of a run that has nothing to do",
        "",
        "How long it takes to learn which keys a feature set already holds, and what else the store does in that time.",
        f"One pooled output of {DIM} float32 per row; page cache warm; medians.",
        "",
        "- **plan**: open the store, find the set, read every commit, check its seal, build the set of known keys, look up",
        "  every video, look for failures. Stat calls on the videos are not in it.",
        "- **again**: the same question asked of a `FeatureSet` that has been asked before (lists the folder, reads nothing).",
        "- **process**: the plan in a fresh Python process, interpreter and imports included.",
        "- **Polars scan**: the peer, in the same run: read the key column of all shards and look up every video; no check.",
        "- **matrix**: the pooled output of all keys as one array (shards hashed before: their stat has not changed).",
        "- **verify**: every byte of the store read and hashed, every row decoded and compared with its commit.",
        "",
        "| rows | shards | MB | plan | again | process | Polars scan | scan / plan | matrix | verify | append per shard |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for r in results:
        lines.append(
            f"| {r['rows']:,} | {r['shards']} | {r['bytes'] / 1e6:.0f} | {1000 * r['plan_s']:.0f} ms "
            f"| {1000 * r['plan_again_s']:.1f} ms | {1000 * r['plan_process_s']:.0f} ms "
            f"| {1000 * r['polars_scan_s']:.0f} ms | {r['ratio_to_polars_scan']:.1f} | {1000 * r['matrix_s']:.0f} ms "
            f"| {r['verify_s']:.1f} s | {r['append_ms_per_shard']:.0f} ms |"
        )
    lines += ["", markdown_machine(machine), "", "Made by `python tools/bench/bench_store_plan.py`.", ""]
    return "\n".join(lines)


def main() -> None:
    """Measure every case, print the table, write the page and its JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks"))
    parser.add_argument("--work", type=Path, default=None, help="folder for the stores [default: a temporary one]")
    arguments = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory(dir=arguments.work) as work:
        for rows, shards in CASES:
            results.append(measure(Path(work) / f"{rows}-{shards}", rows, shards))
            print(results[-1], file=sys.stderr)
    machine = describe_machine()
    page = markdown(results, machine)
    print(page)
    report = {"schema": "vqa-train/bench-store-plan/1", "dim": DIM, "machine": machine, "results": results}
    atomic_write_json(arguments.output / "store_plan.json", report)
    atomic_write_bytes(arguments.output / "store_plan.md", page.encode("utf-8"))


if __name__ == "__main__":
    main()
