"""Extraction of network features: the forward alone against the usual path, from files to committed shards, agreement
between ways to compute, and memory over 1,000 clips.

Usage: python tools/bench/bench_extract.py [--device auto] [--videos 8] [--leak-clips 1000] [--output docs/benchmarks]
On a GPU it runs ViT-L/256 and ViT-g/384 at full size, on a CPU a small network of the same layers; weights are random.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import psutil
import torch
from machine import describe_machine, markdown_machine
from made_video import write_made_video

from vqa_train.backbones.base import BackboneOptions, Compute
from vqa_train.backbones.vjepa2 import SIZES, Vjepa2Backbone
from vqa_train.core.files import atomic_write_bytes, atomic_write_json
from vqa_train.core.hashing import sha256_file
from vqa_train.engines.base import EngineOptions, VideoTask
from vqa_train.engines.local import LocalEngine
from vqa_train.pipelines.extract.compute import resolve_compute
from vqa_train.store.store import FeatureStore
from vqa_train.video.workers import DecodeJob, decode_many

LARGE = ("vjepa2-vitl-fpc64-256", "vjepa2-vitg-fpc64-384")
SMALL = replace(SIZES[LARGE[0]], hidden=384, layers=12, heads=6, mlp=1536, frames=16)
TINY = replace(SMALL, hidden=48, layers=2, heads=2, mlp=96, crop=64)


def synchronize(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


def clips_per_second(call: Any, clips: int, device: str, repeats: int) -> float:
    """Median over repeats, after one call that warms up."""
    call()
    synchronize(device)
    rates = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        synchronize(device)
        rates.append(clips / (time.perf_counter() - start))
    return statistics.median(rates)


def usual_rate(size: Any, device: str, repeats: int) -> float:
    """Clips per second of what users run: transformers' whole model in float32, predictor and all."""
    from transformers import VJEPA2Config, VJEPA2Model

    config = VJEPA2Config(
        crop_size=size.crop, frames_per_clip=size.frames, hidden_size=size.hidden, num_hidden_layers=size.layers,
        num_attention_heads=size.heads, mlp_ratio=size.mlp / size.hidden,
    )  # fmt: skip
    model = VJEPA2Model(config).eval().to(device)
    pixels = torch.zeros(1, size.frames, 3, size.crop, size.crop, device=device)
    return clips_per_second(lambda: model(pixels), 1, device, repeats)


@torch.inference_mode()
def forward(name: str, size: Any, compute: Compute, repeats: int) -> dict[str, Any]:
    """Clips per second of the usual path and of ours, in turns in one run."""
    theirs = usual_rate(size, compute.device, repeats)
    ours: dict[str, float] = {}
    backbone = Vjepa2Backbone(name, size, BackboneOptions(random_weights=1))
    variants = {"float32": replace(compute, precision="float32")}
    if compute.precision == "bfloat16":
        variants["bfloat16"] = compute
    if compute.compile:
        variants["bfloat16, compiled"] = compute
        variants["bfloat16"] = replace(compute, compile=False)
    chosen: dict[str, Any] = {}
    for label, how in variants.items():
        backbone.configure(how)
        batch = backbone.batch_size
        views = torch.zeros(batch, size.frames, 3, size.crop, size.crop, dtype=torch.uint8, device=compute.device)
        ours[label] = clips_per_second(
            lambda views=views: backbone._computed([views], backbone._attention), batch, compute.device, repeats
        )
        chosen[label] = {"batch": batch, **backbone.numerics()}
    best = max(ours.values())
    return {
        "network": name, "flops_per_clip": size.flops, "usual_clips_per_s": theirs, "ours_clips_per_s": ours,
        "chosen": chosen, "best_clips_per_s": best, "ratio": best / theirs,
    }  # fmt: skip


class Timed:
    """Seconds spent in a method, over all threads."""

    def __init__(self, call: Any) -> None:
        self.call, self.seconds, self.lock = call, 0.0, threading.Lock()

    def __call__(self, *args: Any) -> Any:
        start = time.perf_counter()
        try:
            return self.call(*args)
        finally:
            with self.lock:
                self.seconds += time.perf_counter() - start


def to_shards(name: str, size: Any, compute: Compute, videos: list[Path], workers: int, rate: float) -> dict[str, Any]:
    """From files on disk to committed shards; the share of the time in which the network did nothing."""
    backbone = Vjepa2Backbone(name, size, BackboneOptions(random_weights=1))
    backbone.configure(compute)
    stage, run = Timed(backbone.stage), Timed(backbone.run)
    backbone.stage, backbone.run = stage, run  # type: ignore[method-assign]
    key = backbone.spec.set_name
    tasks = [VideoTask(key=sha256_file(p), path=p, verify=True, sets=(key,)) for p in videos]
    commit = 0.0
    with tempfile.TemporaryDirectory() as folder:
        feature_set = FeatureStore(Path(folder)).create_set(backbone.spec, license=backbone.license)
        options = EngineOptions(decoder="pyav", workers=workers, threads=1, compute=1, planar=compute.device != "cpu")
        start = time.perf_counter()
        for result in LocalEngine().run(tasks, {key: backbone}, options):
            assert not result.failures, result.failures
            before = time.perf_counter()
            feature_set.append(result.rows[key], profile=backbone.numerics(), run_id="bench")
            commit += time.perf_counter() - before
        wall = time.perf_counter() - start
    start = time.perf_counter()
    jobs = (DecodeJob(key=t.key, path=t.path, verify=True) for t in tasks)
    for outcome in decode_many(jobs, [backbone.spec.sampling], workers=workers, threads=1):
        outcome.release()
    decode = time.perf_counter() - start
    return {
        "network": name, "videos": len(videos), "clips_per_s": len(videos) / wall, "forward_clips_per_s": rate,
        "share_of_forward": len(videos) / wall / rate, "idle_share": max(0.0, 1 - run.seconds / wall),
        "wall_s": wall, "network_s": run.seconds, "stage_s": stage.seconds, "commit_s": commit,
        "decode_alone_s": decode, "workers": workers,
    }  # fmt: skip


def agreement(compute: Compute, videos: list[Path]) -> dict[str, float]:
    """Largest difference of `pooled`, relative to its largest size, from one way to compute to another."""
    backbone = Vjepa2Backbone("vjepa2-vitl-fpc64-256", TINY, BackboneOptions(random_weights=1))

    def features(batch: int = 1, decoder: str = "pyav", workers: int = 0) -> np.ndarray:
        backbone.configure(replace(compute, batch=batch))
        tasks = [VideoTask(key=f"{i:064x}", path=p, verify=False, sets=("a",)) for i, p in enumerate(videos)]
        options = EngineOptions(decoder=decoder, workers=workers, threads=1)
        rows = {r.task.key: r.rows["a"][0] for r in LocalEngine().run(tasks, {"a": backbone}, options)}
        return np.stack([rows[task.key].outputs["pooled"] for task in tasks])

    reference = features()
    others = {
        "batch 8 against batch 1": features(batch=8),
        "decord against PyAV": features(decoder="decord"),
        "2 workers against none": features(workers=2),
    }
    return {name: float(np.abs(other - reference).max() / np.abs(reference).max()) for name, other in others.items()}


def leak(clips: int, video: Path) -> dict[str, Any]:
    """Resident memory of this process and of a decoding worker, every tenth of the way."""
    backbone = Vjepa2Backbone("vjepa2-vitl-fpc64-256", TINY, BackboneOptions(random_weights=1))
    backbone.configure(Compute(threads=1))
    jobs = (DecodeJob(key=f"{i:064x}", path=video) for i in range(clips))
    me = psutil.Process()
    seen: list[dict[str, float]] = []
    for done, outcome in enumerate(decode_many(jobs, [backbone.spec.sampling], workers=1, threads=1), 1):
        with outcome:
            backbone.run([backbone.stage(clip) for clip in outcome.clips[0]])
        if done % max(1, clips // 10) == 0:
            [worker] = me.children() or [me]
            seen.append({"clips": done, "main_mib": _mib(me), "worker_mib": _mib(worker)})
    return {"clips": clips, "seen": seen}


def _mib(process: psutil.Process) -> float:
    return process.memory_info().rss / 2**20


def page(result: dict[str, Any]) -> str:
    lines = [
        "# Extraction", "",
        f"Device: {result['device']}. Random weights. " + markdown_machine(result["machine"]), "",
        result["note"], "",
        "## Forward", "",
        "| network | usual path, float32 with predictor | ours | ratio | chosen |", "|---|---|---|---|---|",
    ]  # fmt: skip
    for row in result["forward"]:
        ours = ", ".join(f"{label} {rate:.3g}" for label, rate in row["ours_clips_per_s"].items())
        how = "; ".join(f"{label}: batch {c['batch']}" + (f", {c['attention']}" if "attention" in c else "")
                        for label, c in row["chosen"].items())  # fmt: skip
        lines.append(
            f"| {row['label']} | {row['usual_clips_per_s']:.3g} clips/s | {ours} clips/s | {row['ratio']:.2f} | {how} |"
        )
    lines += ["", "## From 720p files to committed shards", "",
              "| network | clips/s | of the forward rate | network idle | network | stage | commit | decoding alone |",
              "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for row in result["to_shards"]:
        lines.append(
            f"| {row['label']} | {row['clips_per_s']:.3g} | {row['share_of_forward']:.0%} | {row['idle_share']:.0%} "
            f"| {row['network_s']:.1f} s | {row['stage_s']:.1f} s | {row['commit_s']:.2f} s "
            f"| {row['decode_alone_s']:.1f} s, {row['workers']} workers |"
        )
    lines += ["", "## Agreement", "", "Largest difference of `pooled`, relative to its largest size.", ""]
    lines += [f"- {name}: {value:.1e}" for name, value in result["agreement"].items()]
    seen = result["leak"]["seen"]
    lines += ["", f"## Memory over {result['leak']['clips']} clips", "",
              "| clips | main process | decoding worker |", "|---|---|---|"]  # fmt: skip
    lines += [f"| {row['clips']} | {row['main_mib']:.0f} MiB | {row['worker_mib']:.0f} MiB |" for row in seen]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--videos", type=int, default=8)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--leak-clips", type=int, default=1000)
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks"))
    arguments = parser.parse_args()
    compute = resolve_compute(arguments.device, compiled=arguments.compile)
    on_gpu = torch.device(compute.device).type == "cuda"
    if on_gpu:
        networks = [(name, name, SIZES[name]) for name in LARGE]
        note = "Full size, 64 frames."
    else:
        networks = [("small: 384 wide, 12 layers, 16 frames of 256", LARGE[0], SMALL)]
        note = (
            "No GPU: a small network of V-JEPA 2's layers stands in for ViT-L and ViT-g, so these are no figures of "
            "theirs. Decoders and network share the cores here, so the rate to shards cannot reach the forward's. The "
            "usual path's predictor is as large as this small encoder, so the ratio is larger than it would be for ViT-L."
        )
    result: dict[str, Any] = {
        "schema": "vqa-train/bench-extract/1", "machine": describe_machine(), "note": note,
        "device": torch.cuda.get_device_name() if on_gpu else "CPU", "forward": [], "to_shards": [],
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        videos = [
            write_made_video(Path(folder) / f"{i}.mp4", seconds=8, seed=i, fps=30) for i in range(arguments.videos)
        ]
        for label, name, size in networks:
            row = forward(name, size, compute, arguments.repeats)
            result["forward"].append({"label": label, **row})
            rate = row["best_clips_per_s"]
            row = to_shards(name, size, compute, videos, arguments.workers, rate)
            result["to_shards"].append({"label": label, **row})
        result["agreement"] = agreement(compute, videos[:8])
        short = write_made_video(Path(folder) / "short.mp4", seconds=1, size=(160, 96))
        result["leak"] = leak(arguments.leak_clips, short)
    stem = arguments.output / ("extract_gpu" if on_gpu else "extract")
    atomic_write_json(stem.with_suffix(".json"), result)
    atomic_write_bytes(stem.with_suffix(".md"), page(result).encode())
    print(page(result))


if __name__ == "__main__":
    main()
