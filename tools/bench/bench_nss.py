"""`nss` over 720p clips of growing length, decode included: wall, CPU and peak memory in fresh processes, with a peer.

Usage: python tools/bench/bench_nss.py [--runs 5]
The peer is the usual way to write such an extractor: luma MSCN, GGD and AGGD statistics at two scales (BRISQUE's 36
features) with SciPy, frame by frame, on the same eight key frames out of a decode of the whole clip.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from machine import describe_machine, markdown_machine
from made_video import write_made_video

from vqa_train.core.files import atomic_write_bytes, atomic_write_json

TORCH = """
import torch
torch.set_num_threads({threads})
from vqa_train.backbones.nss import NssBackbone
backbone = NssBackbone()
def extract(path):
    clips = read_clips(path, [backbone.spec.sampling])[0]
    return backbone.extract(clips)[0]["pooled"]
"""
ONNX = """
import json
from vqa_train.core.types import Sampling
from vqa_train.onnx.runtime import OnnxModel
model = OnnxModel(Path({onnx!r}), threads={threads})
sampling = Sampling(**json.loads({sampling!r}))
def extract(path):
    clip = read_clips(path, [sampling])[0][0]
    return model.run({{"frames": clip.frames}})["pooled"]
"""
PEER = """
import av
import numpy as np
from scipy.ndimage import gaussian_filter, zoom
from scipy.special import gamma
SHAPES = np.arange(0.2, 10, 0.001)
RATIO = gamma(2 / SHAPES) ** 2 / (gamma(1 / SHAPES) * gamma(3 / SHAPES))
def ggd(x):
    shape = SHAPES[np.argmin((np.mean(np.abs(x)) ** 2 / np.mean(x * x) - RATIO) ** 2)]
    return [shape, np.sqrt(np.mean(x * x))]
def aggd(x):
    left, right = np.sqrt(np.mean(x[x < 0] ** 2)), np.sqrt(np.mean(x[x > 0] ** 2))
    g = left / right
    r = np.mean(np.abs(x)) ** 2 / np.mean(x * x) * (g**3 + 1) * (g + 1) / (g**2 + 1) ** 2
    shape = SHAPES[np.argmin((RATIO - r) ** 2)]
    mean = (right - left) * gamma(2 / shape) / np.sqrt(gamma(1 / shape) * gamma(3 / shape))
    return [shape, mean, left, right]
def brisque(luma):
    features = []
    for scale in (1, 2):
        y = luma if scale == 1 else zoom(luma, 0.5, order=1)
        mu = gaussian_filter(y, 7 / 6, truncate=3)
        sigma = np.sqrt(np.abs(gaussian_filter(y * y, 7 / 6, truncate=3) - mu * mu))
        m = (y - mu) / (sigma + 1)
        features += ggd(m)
        for a, b in ((m[:, :-1], m[:, 1:]), (m[:-1], m[1:]), (m[:-1, :-1], m[1:, 1:]), (m[:-1, 1:], m[1:, :-1])):
            features += aggd(a * b)
    return features
def extract(path):
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "AUTO"
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    wanted = [frames[(2 * i + 1) * len(frames) // 16] for i in range(8)]
    return np.mean([brisque(f @ np.array([0.299, 0.587, 0.114])) for f in wanted], axis=0)
"""
MEASURE = """
import json, os, resource, sys, time
from pathlib import Path
from vqa_train.video.decode import read_clips
{body}
path = Path({clip!r})
extract(path)
start, before = time.monotonic(), time.process_time()
values = extract(path)
print(json.dumps({{"wall_s": time.monotonic() - start, "cpu_s": time.process_time() - before,
    "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "numbers": len(values)}}))
"""


def run(body: str, clip: Path) -> dict[str, float]:
    """Second extraction of a fresh process: imports and first-call set-up are not counted."""
    code = MEASURE.format(body=body, clip=str(clip))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def write_onnx(path: Path) -> tuple[str, str]:
    """The backbone's ONNX file and its sampling as JSON."""
    from vqa_train.backbones.nss import NssBackbone
    from vqa_train.onnx.export import export_module

    backbone = NssBackbone()
    export_module(
        backbone,
        backbone.onnx_example(),
        path,
        input_names=["frames"],
        output_names=[output.name for output in backbone.spec.outputs],
        dynamic_axes=backbone.onnx_inputs(),
    )
    assert backbone.spec.sampling is not None
    return str(path), json.dumps(backbone.spec.sampling.to_json())


def main() -> None:
    """Parse, measure, write docs/benchmarks/nss.md and .json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=int, nargs="+", default=[10, 30, 120])
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks"))
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        onnx, sampling = write_onnx(Path(folder) / "nss.onnx")
        bodies = {
            "nss, torch, 1 thread": TORCH.format(threads=1),
            "nss, torch, 2 threads": TORCH.format(threads=2),
            "nss, onnxruntime, 2 threads": ONNX.format(onnx=onnx, sampling=sampling, threads=2),
            "SciPy BRISQUE, 8 frames": PEER,
        }
        for seconds in options.seconds:
            started = time.monotonic()
            clip = write_made_video(Path(folder) / f"{seconds}.mp4", seconds=seconds)
            print(f"{seconds} s clip made in {time.monotonic() - started:.0f} s", flush=True)
            for name, body in bodies.items():
                if name.startswith("SciPy") and seconds > options.seconds[0]:
                    continue
                runs = [run(body, clip) for _ in range(options.runs)]
                row = {key: statistics.median(r[key] for r in runs) for key in runs[0]}
                rows.append({"what": name, "clip_s": seconds, **row, "walls_s": [round(r["wall_s"], 3) for r in runs]})
                print(rows[-1], flush=True)
    machine = describe_machine()
    atomic_write_json(
        options.output / "nss.json", {"schema": "vqa-train/bench-nss/1", "machine": machine, "rows": rows}
    )
    peer = next(row for row in rows if row["what"].startswith("SciPy"))
    lines = [
        "| what | clip | numbers | wall s | CPU s | peak MiB | wall against the peer's |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ratio = f"{row['wall_s'] / peer['wall_s']:.2f}"
        lines.append(
            f"| {row['what']} | {row['clip_s']} s | {row['numbers']:.0f} | **{row['wall_s']:.2f}** | {row['cpu_s']:.2f} | "
            f"{row['peak_mib']:.0f} | {ratio} |"
        )
    text = "\n".join(
        [
            "# `nss` over a 720p clip, decode included", "",
            f"`python tools/bench/bench_nss.py`: medians of {options.runs} fresh processes, the second extraction in each; made 1280x720 clips at 30",
            "frames per second, x264. Asked for: at most 2 s and 1 GB for 10 s of video on 2 cores, both flat as the clip gets longer. It is flat",
            "because a view decodes at most 320 frames however long the clip is (docs/decoding.md); probing reads every packet's header and",
            "grows by milliseconds a minute. The peer gives 36 luma features of 8 frames and no temporal ones.", "",
            *lines, "", markdown_machine(machine), "",
        ]
    )  # fmt: skip
    atomic_write_bytes(options.output / "nss.md", text.encode())
    print(text)


if __name__ == "__main__":
    main()
