"""Scoring beside extraction over the same clips with the same backbone (`nss`), in turns, and the cold start of one clip.

Usage: python tools/bench/bench_scoring.py [--clips 8] [--rounds 7] [--cold 7] [--output docs/benchmarks]
Both go from files to results: extraction to committed shards, scoring to scores. Both start their decoding processes anew
in every round. The head is a made one; what it says means nothing.
"""

from __future__ import annotations

import argparse
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

import torch
from machine import describe_machine, markdown_machine
from made_video import write_made_video
from torch import Tensor, nn

from vqa_train.backbones.base import Readout
from vqa_train.backbones.build import build_backbone
from vqa_train.core.files import atomic_write_bytes, atomic_write_json
from vqa_train.core.hashing import sha256_file
from vqa_train.engines.base import EngineOptions, VideoTask
from vqa_train.engines.local import LocalEngine
from vqa_train.pipelines.extract.run import one_thread_per_clip
from vqa_train.pipelines.models.publish import publish
from vqa_train.pipelines.models.ready import _write
from vqa_train.registry.registry import ModelRegistry
from vqa_train.scoring import Score, Scorer
from vqa_train.store.store import FeatureStore


class MadeHead(nn.Module):
    """307 numbers to two scores."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(307, 64), nn.ReLU(), nn.Linear(64, 2))

    def forward(self, pooled: Tensor) -> Tensor:
        return 3 + torch.tanh(self.layers(pooled))


def make_model(root: Path) -> None:
    """Register a model over nss, backbone and all."""
    readout = Readout(
        outputs=("pooled",), module=MadeHead(), targets=("overall", "sharpness"), range=(1.0, 5.0),
        trained_on="nothing", formula="made",
    )  # fmt: skip
    staging = root / ".staging"
    staging.mkdir(parents=True)
    sidecar = _write(build_backbone("nss"), readout, staging, 17, lambda _: None)
    publish(ModelRegistry(root), staging, sidecar, overwrite=True)


def cpu_seconds() -> float:
    """Of this process and of the children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def timed(call: Callable[[], None], clips: int) -> dict[str, float]:
    """Clips per second of wall time, and seconds of processor time per clip."""
    wall, cpu = time.perf_counter(), cpu_seconds()
    call()
    return {"clips_per_s": clips / (time.perf_counter() - wall), "cpu_s_per_clip": (cpu_seconds() - cpu) / clips}


def compare(videos: list[Path], registry: Path, rounds: int) -> dict[str, Any]:
    cores = os.cpu_count() or 1
    backbone = build_backbone("nss")
    name = backbone.spec.set_name
    tasks = [VideoTask(key=sha256_file(path), path=path, verify=True, sets=(name,)) for path in videos]
    scorer = Scorer("nss", registry=registry, isolated=True)

    def extract() -> None:
        with tempfile.TemporaryDirectory() as folder, one_thread_per_clip():
            feature_set = FeatureStore(Path(folder)).create_set(backbone.spec, license=backbone.license)
            options = EngineOptions(decoder="pyav", workers=cores, threads=1, compute=cores)
            rows = []
            for result in LocalEngine().run(tasks, {name: backbone}, options):
                assert not result.failures, result.failures
                rows += result.rows[name]
            feature_set.append(rows, profile=backbone.numerics(), run_id="bench")

    def score() -> None:
        assert all(isinstance(result, Score) for result in scorer.score_many(videos))
        scorer.close()

    extract(), score()
    rows = []
    for turn in range(rounds):
        # Who goes first changes, so that a machine that slows down favours neither.
        order = [("extract", extract), ("score", score)][:: 1 if turn % 2 else -1]
        rows.append({what: timed(call, len(videos)) for what, call in order})
    ratio = [row["score"]["clips_per_s"] / row["extract"]["clips_per_s"] for row in rows]
    cpu = [row["extract"]["cpu_s_per_clip"] / row["score"]["cpu_s_per_clip"] for row in rows]
    return {"rounds": rows, "ratio": ratio, "cpu_ratio": cpu, "lanes": scorer._lanes, "threads": scorer._threads}


def cold(video: Path, registry: Path, runs: int) -> list[dict[str, float]]:
    """Fresh processes: wall and processor seconds, and peak memory of the larger process in MiB."""
    code = "from vqa_train.cli.score import main; main()"
    command = [sys.executable, "-c", code, str(video), "--model", "nss", "--registry", str(registry)]
    found = []
    for _ in range(runs + 1):
        before, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        wall, after = time.perf_counter() - wall, resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        found.append({"wall_s": wall, "cpu_s": cpu, "load": os.getloadavg()[0]})
    return found[1:]


def page(result: dict[str, Any]) -> str:
    found, starts = result["throughput"], result["cold"]
    middle = statistics.median

    def rate(what: str, key: str) -> str:
        values = [row[what][key] for row in found["rounds"]]
        return f"{middle(values):.2f} ({min(values):.2f} to {max(values):.2f})"

    wall, cpu = ([row[key] for row in starts] for key in ("wall_s", "cpu_s"))
    lines = [
        "# Scoring", "", markdown_machine(result["machine"]), "",
        f"Other work shared the cores: load {result['load'][0]:.1f} at the start, {result['load'][1]:.1f} at the end.", "",
        "## Throughput", "",
        f"`nss` on {result['clips']} made clips of {result['seconds']:g} s, 1280 x 720 at 30 fps, h264; {len(found['rounds'])} rounds in "
        "turns, median (lowest to highest). Extraction goes from files to committed shards, scoring from files to scores; both "
        f"decode in processes of their own, on {found['threads']} cores.", "",
        "| | clips/s | processor seconds per clip |", "|---|---|---|",
        f"| extraction pipeline | {rate('extract', 'clips_per_s')} | {rate('extract', 'cpu_s_per_clip')} |",
        f"| `Scorer.score_many` | {rate('score', 'clips_per_s')} | {rate('score', 'cpu_s_per_clip')} |",
        f"| scoring / extraction, round by round | **{middle(found['ratio']):.2f}** ({min(found['ratio']):.2f} to {max(found['ratio']):.2f}) | |", "",
        f"Why: {found['lanes']} videos are under way at once, each in a thread that decodes with one thread and then runs the graph "
        "with one, so that no core waits for another and no more threads run than there are cores; and the graph takes the interleaved "
        "channels apart in one operation: picked one by one they took a quarter of its time.", "",
        "## Cold start", "",
        f"`vqa-score CLIP --model nss` on one of the clips, {len(starts)} fresh processes: {middle(wall):.2f} s wall "
        f"({min(wall):.2f} to {max(wall):.2f}), {middle(cpu):.2f} s of processor time over both processes "
        f"({min(cpu):.2f} to {max(cpu):.2f}).",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cold", type=int, default=7)
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks"))
    args = parser.parse_args()
    load = [os.getloadavg()[0]]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_model(folder / "model")
        videos = [write_made_video(folder / f"{i}.mp4", seconds=args.seconds, seed=i) for i in range(args.clips)]
        result: dict[str, Any] = {
            "schema": "vqa-train/bench-scoring/1", "machine": describe_machine(), "clips": args.clips,
            "seconds": args.seconds, "throughput": compare(videos, folder / "model", args.rounds),
            "cold": cold(videos[0], folder / "model", args.cold),
        }  # fmt: skip
    result["load"] = [*load, os.getloadavg()[0]]
    atomic_write_json(args.output / "scoring.json", result)
    atomic_write_bytes(args.output / "scoring.md", page(result).encode("utf-8"))
    print(page(result))


if __name__ == "__main__":
    main()
