"""decord against PyAV, in one run: all frames, 32 of them, and a few far into long GOPs; times and peak memory.

Usage: python tools/bench/bench_decode.py [--clips DIR] [--output docs/benchmarks] [--threads 2] [--repeats 7]
Both decoders go through their adapters, which check that they give the same pixels before any time is taken.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe_machine, markdown_machine
from made_video import write_made_video

from vqa_train.core.files import atomic_write_bytes, atomic_write_json
from vqa_train.core.types import Sampling
from vqa_train.video.decode import make_decoder, read_clips
from vqa_train.video.probe import VideoInfo, probe
from vqa_train.video.sampling import select_frames

DECODERS = ("pyav", "decord", "bare decord")
CASES = {
    "all frames": None,
    "32 uniform": Sampling(mode="uniform", n=32),
    "4 far apart": Sampling(mode="uniform", n=4),
}


class BareDecord:
    """decord as its README uses it, without our checks and copies: the peer."""

    def read(self, path: Path, info: VideoInfo, indices: np.ndarray, threads: int) -> np.ndarray:
        """The frames, as they come."""
        import decord

        frames: np.ndarray = decord.VideoReader(str(path), num_threads=threads).get_batch(indices.tolist()).asnumpy()
        return frames


def reader_of(name: str) -> Any:
    """A decoder by its name in the table."""
    return BareDecord() if name == "bare decord" else make_decoder(name)


def indices_of(case: str, info: VideoInfo) -> np.ndarray:
    """Frames of a case."""
    sampling = CASES[case]
    if sampling is None:
        return np.arange(info.num_frames)
    return select_frames(sampling, info.times, info.keyframes)[0]


def peak_mib(decoder: str, path: Path, case: str, threads: int) -> float:
    """Highest resident memory of a fresh process that decodes a case once, in MiB."""
    arguments = [sys.executable, __file__, "--child", decoder, str(path), case, str(threads)]
    return float(json.loads(subprocess.run(arguments, capture_output=True, check=True).stdout))


def child(decoder: str, path: Path, case: str, threads: int) -> None:
    """Decode once and print the peak."""
    info = probe(path)
    reader_of(decoder).read(path, info, indices_of(case, info), threads)
    # Not getrusage: its maximum survives exec, so a child would show its parent's.
    status = Path("/proc/self/status").read_text()
    print(int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024)


def measure(path: Path, threads: int, repeats: int) -> list[dict[str, Any]]:
    """One row per case: median seconds and peak MiB per decoder, and their ratios."""
    info = probe(path)
    probes = []
    for _ in range(repeats):
        started = time.perf_counter()
        probe(path)
        probes.append(time.perf_counter() - started)
    rows = []
    for case in CASES:
        indices = indices_of(case, info)
        readers = {name: reader_of(name) for name in DECODERS}
        expected = readers["pyav"].read(path, info, indices, threads)
        for name, reader in readers.items():
            if not np.array_equal(reader.read(path, info, indices, threads), expected):
                raise SystemExit(f"{path.name}, {case}: {name} differs from PyAV")
        del expected
        times: dict[str, list[float]] = {name: [] for name in DECODERS}
        for _ in range(repeats):
            # Turn about, so that a slow spell of the machine hits both.
            for name, reader in readers.items():
                started = time.perf_counter()
                reader.read(path, info, indices, threads)
                times[name].append(time.perf_counter() - started)
        medians = {name: statistics.median(values) for name, values in times.items()}
        rows.append(
            {
                "clip": f"{info.width}x{info.height}, {info.num_frames} frames, {len(info.keyframes)} key frames",
                "case": case,
                "frames": len(indices),
                "probe_s": statistics.median(probes),
                "seconds": medians,
                "spread_s": {name: [min(values), max(values)] for name, values in times.items()},
                "ratio_to_pyav": {name: medians[name] / medians["pyav"] for name in DECODERS[1:]},
                "peak_mib": {name: peak_mib(name, path, case, threads) for name in DECODERS},
            }
        )
        print(json.dumps(rows[-1]), file=sys.stderr)
    return rows


def clip_seconds(paths: dict[str, Path], repeats: int) -> list[dict[str, Any]]:
    """The whole way of `read_clips`, probing included, with and without a decode budget, as videos get longer."""
    samplings = {
        "16 bursts of 3": Sampling(mode="uniform", n=16, burst=3),
        "16 bursts of 3, budget 256": Sampling(mode="uniform", n=16, burst=3, decode_budget=256),
    }
    rows = []
    for length, path in paths.items():
        for name, sampling in samplings.items():
            times = []
            for _ in range(repeats):
                started = time.perf_counter()
                read_clips(path, [sampling], threads=2)
                times.append(time.perf_counter() - started)
            rows.append({"video": length, "sampling": name, "seconds": statistics.median(times)})
            print(json.dumps(rows[-1]), file=sys.stderr)
    return rows


def markdown(report: dict[str, Any]) -> str:
    """The page for the docs."""
    lines = [
        "# Decoding: decord 0.6.0 against PyAV",
        "",
        f"Frames to RGB in memory, {report['threads']} threads, page cache warm, medians of {report['repeats']} runs taken",
        "turn about. Probing (once per video, the same for both) is a column of its own. Peak: resident memory of a fresh",
        "process that does it once, interpreter, libraries and frames included. All gave the same pixels in every row.",
        "`decord` is our adapter, `bare decord` its own `get_batch` without the adapter's checks and chunks.",
        "",
        "| video | frames read | probe | PyAV | decord (ratio) | bare decord (ratio) | peak PyAV, decord, bare (MiB) |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for r in report["decoders"]:
        peaks = ", ".join(f"{r['peak_mib'][name]:.0f}" for name in DECODERS)
        lines.append(
            f"| {r['clip']} | {r['case']} | {1000 * r['probe_s']:.0f} ms | {1000 * r['seconds']['pyav']:.0f} ms "
            + "".join(f"| {1000 * r['seconds'][n]:.0f} ms ({r['ratio_to_pyav'][n]:.2f}) " for n in DECODERS[1:])
            + f"| {peaks} |"
        )
    lines += [
        "",
        "The whole way to a clip (probe, choose, decode) of 1280x720 video with PyAV, one key frame per 250 frames, as the",
        "video gets longer. With a budget the decoding stays flat; what still grows is demuxing every packet once for its time.",
        "",
        "| video | sampling | seconds |",
        "|---|---|---:|",
    ]
    lines += [f"| {r['video']} | {r['sampling']} | {r['seconds']:.2f} |" for r in report["lengths"]]
    lines += [
        "",
        f"{markdown_machine(report['machine'])} Load average at the start: {report['load_average']}.",
        "",
        "Made by `python tools/bench/bench_decode.py`.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure, print the table, write the page and its JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=Path, default=Path("../shared/videos"), help="folder of further MP4 files")
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    load = round(os.getloadavg()[0], 1)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        made = write_made_video(work / "made.mp4", seconds=10, size=(1920, 1080), fps=30)
        rows: list[dict[str, Any]] = []
        for path in [*sorted(arguments.clips.glob("*.mp4")), made]:
            rows += measure(path, arguments.threads, arguments.repeats)
        lengths = {
            f"{seconds} s": write_made_video(work / f"{seconds}.mp4", seconds=seconds, fps=30) for seconds in (10, 60)
        }
        report = {
            "schema": "vqa-train/bench-decode/1",
            "machine": describe_machine(),
            "load_average": load,
            "threads": arguments.threads,
            "repeats": arguments.repeats,
            "decoders": rows,
            "lengths": clip_seconds(lengths, arguments.repeats),
        }
    page = markdown(report)
    print(page)
    atomic_write_json(arguments.output / "decode.json", report)
    atomic_write_bytes(arguments.output / "decode.md", page.encode("utf-8"))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], Path(sys.argv[3]), sys.argv[4], int(sys.argv[5]))
    else:
        main()
