"""`nss` over 720p clips of 10, 30 and 120 s, decode included: torch, onnxruntime, and the usual NumPy way as the peer.

Usage: python tools/bench/bench_nss.py [--clip FILE] [--output docs/benchmarks] [--threads 2] [--repeats 3]
Every measurement is a fresh process; the ways take turns, so that a slow spell of the machine hits all of them.
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

import numpy as np
from machine import describe_machine, markdown_machine
from made_video import write_made_video

from vqa_train.core.files import atomic_write_bytes, atomic_write_json
from vqa_train.core.types import Sampling

SECONDS = (10, 30, 120)
WAYS = {
    "torch": "`nss`, torch",
    "onnx": "`nss`, onnxruntime",
    "numpy": "NumPy and SciPy, 8 frames",
    "numpy-all": "NumPy and SciPy, every second frame",
}
Features = Callable[[np.ndarray], Any]


def peer_features(frames: np.ndarray) -> np.ndarray:
    """BRISQUE's 36 features of each frame, and SI and TI, written in the usual way: one frame after the other."""
    from scipy import ndimage, special

    table = np.arange(0.2, 10, 0.001)
    ratios = special.gamma(2 / table) ** 2 / (special.gamma(1 / table) * special.gamma(3 / table))

    def aggd(values: np.ndarray) -> tuple[float, float, float, float]:
        left = np.sqrt(np.mean(values[values < 0] ** 2))
        right = np.sqrt(np.mean(values[values > 0] ** 2))
        gamma = left / right
        ratio = np.mean(np.abs(values)) ** 2 / np.mean(values**2)
        ratio *= (gamma**3 + 1) * (gamma + 1) / (gamma**2 + 1) ** 2
        alpha = table[np.argmin((ratios - ratio) ** 2)]
        return alpha, (right - left) * special.gamma(2 / alpha) / special.gamma(1 / alpha), left, right

    rows, previous = [], None
    for frame in frames:
        luma = frame @ np.array([0.299, 0.587, 0.114])
        row = []
        plane = luma
        for _ in range(2):
            mean = ndimage.gaussian_filter(plane, 7 / 6, radius=3)
            deviation = np.sqrt(np.abs(ndimage.gaussian_filter(plane**2, 7 / 6, radius=3) - mean**2))
            mscn = (plane - mean) / (deviation + 1)
            row += list(aggd(mscn))[:2]
            for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):
                row += list(aggd(mscn * np.roll(mscn, shift, (0, 1))))
            plane = ndimage.zoom(plane, 0.5, order=1)
        row.append(np.hypot(ndimage.sobel(luma, 0), ndimage.sobel(luma, 1)).std())
        row.append(0.0 if previous is None else (luma - previous).std())
        previous = luma
        rows.append(row)
    return np.mean(rows, 0)


def reader(way: str, threads: int, model: Path) -> tuple[Features, Sampling]:
    """What turns frames into features, and which frames it wants; libraries are loaded here."""
    if way == "onnx":
        from vqa_train.onnx.runtime import OnnxModel

        session = OnnxModel(model, threads=threads)
        sampling = Sampling(**json.loads(session.metadata["sampling"]))
        return lambda frames: session.run({"frames": frames}), sampling
    if way == "torch":
        import torch

        from vqa_train.backbones.nss import NssBackbone

        torch.set_num_threads(threads)
        backbone = NssBackbone().eval()
        assert backbone.spec.sampling is not None

        def extract(frames: np.ndarray) -> Any:
            with torch.inference_mode():
                return backbone(torch.from_numpy(frames))

        return extract, backbone.spec.sampling
    # The same number of frames as `nss` measures at full size; or, as the published extractors do, of the whole video.
    every = Sampling(mode="frame_step", n=150, step=2, short="circulant")
    return peer_features, Sampling(mode="uniform", n=8) if way == "numpy" else every


def child(way: str, clip: Path, threads: int, model: Path) -> None:
    """One measurement, as JSON on stdout: the libraries loaded first, then file to features twice."""
    started = time.perf_counter()
    features, sampling = reader(way, threads, model)
    from vqa_train.video.decode import read_clips

    report: dict[str, Any] = {"load_s": time.perf_counter() - started}
    # The second pass is the steady state of an extraction; the first pays for memory touched for the first time.
    for key in ("first", "second"):
        wall, before = time.perf_counter(), os.times()
        frames = read_clips(clip, [sampling], threads=threads)[0][0].frames
        decoded = time.perf_counter()
        features(frames)
        after = os.times()
        report[key] = {
            "decode_s": decoded - wall,
            "wall_s": time.perf_counter() - wall,
            "user_s": after.user - before.user,
            "system_s": after.system - before.system,
        }
        if way == "numpy-all":
            report["second"] = report["first"]
            break
    report["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(report))


def measure(way: str, clip: Path, threads: int, model: Path) -> dict[str, Any]:
    """`child` in a fresh process."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, __file__, "--child", way, str(clip), str(threads), str(model)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def summary(runs: list[dict[str, Any]]) -> dict[str, float]:
    """Medians over the repeats, and the fastest wall time."""
    second = [run["second"] for run in runs]
    return {
        "wall_s": statistics.median(run["wall_s"] for run in second),
        "fastest_wall_s": min(run["wall_s"] for run in second),
        "first_wall_s": statistics.median(run["first"]["wall_s"] for run in runs),
        "decode_s": statistics.median(run["decode_s"] for run in second),
        "user_s": statistics.median(run["user_s"] for run in second),
        "system_s": statistics.median(run["system_s"] for run in second),
        "load_s": statistics.median(run["load_s"] for run in runs),
        "peak_mib": max(run["peak_mib"] for run in runs),
    }


def write_model(path: Path) -> None:
    """The backbone as ONNX, with its sampling in the file."""
    from vqa_train.backbones.nss import NssBackbone
    from vqa_train.onnx.export import export_module

    backbone = NssBackbone().eval()
    assert backbone.spec.sampling is not None
    export_module(
        backbone,
        backbone.onnx_example(),
        path,
        input_names=["frames"],
        output_names=[output.name for output in backbone.spec.outputs],
        dynamic_axes=backbone.onnx_inputs(),
        metadata={"sampling": backbone.spec.sampling.to_json()},
    )


def markdown(report: dict[str, Any]) -> str:
    """The page for the docs."""
    lines = [
        "# `nss`: time and memory",
        "",
        f"From a file to features, probing and decoding included, {report['threads']} threads, medians of "
        f"{report['repeats']} fresh processes.",
        "`time` is the second video of a process, `first` the first one, both without loading libraries (`load`); "
        "`decode` is part of `time`.",
        "CPU is user time. Peak is resident memory of the process: interpreter, libraries, frames and all.",
        "The peers are the usual way to write such features, BRISQUE's 36 and SI and TI, with NumPy and SciPy: of 8 "
        "frames, as many as `nss` looks at in full, and of every second frame up to 150, as published extractors do.",
        "",
        "| clip | way | time | first | fastest | decode | CPU | load | peak MiB | time over `nss`, torch |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in report["rows"]:
        base = row["ways"]["torch"]["wall_s"]
        for way, r in row["ways"].items():
            lines.append(
                f"| {row['clip']} | {WAYS[way]} | {r['wall_s']:.2f} s | {r['first_wall_s']:.2f} s "
                f"| {r['fastest_wall_s']:.2f} s | {r['decode_s']:.2f} s | {r['user_s']:.2f} s | {r['load_s']:.2f} s "
                f"| {r['peak_mib']:.0f} | {r['wall_s'] / base:.1f} |"
            )
    lines += [
        "",
        f"{markdown_machine(report['machine'])} Load average at the start: {report['load_average']}.",
        "",
        "Made by `python tools/bench/bench_nss.py`.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure, print the table, write the page and its JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clip", type=Path, help="measure this video too")
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    load = round(os.getloadavg()[0], 1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "nss.onnx"
        write_model(model)
        clips = {
            f"{seconds} s of 1280x720": write_made_video(Path(folder) / f"{seconds}.mp4", seconds=seconds)
            for seconds in SECONDS
        }
        if arguments.clip:
            clips["given clip"] = arguments.clip
        for name, clip in clips.items():
            runs: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
            for repeat in range(arguments.repeats):
                for way, results in runs.items():
                    # The long peer takes a minute and more: once is enough.
                    if way != "numpy-all" or not (rows or repeat):
                        results.append(measure(way, clip, arguments.threads, model))
            rows.append({"clip": name, "ways": {way: summary(results) for way, results in runs.items() if results}})
            print(json.dumps(rows[-1]), file=sys.stderr)
    report = {
        "schema": "vqa-train/bench-nss/1",
        "machine": describe_machine(),
        "load_average": load,
        "threads": arguments.threads,
        "repeats": arguments.repeats,
        "rows": rows,
    }
    page = markdown(report)
    print(page)
    atomic_write_json(arguments.output / "nss.json", report)
    atomic_write_bytes(arguments.output / "nss.md", page.encode("utf-8"))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]))
    else:
        main()
