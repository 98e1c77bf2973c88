"""What the local engine costs over a loop that somebody writes by hand around the same backbone, on the same cores.

Usage: python tools/bench/bench_overhead.py [--videos 120] [--repeats 5] [--backbone nss] [--output docs/benchmarks]
The loop: as many processes as cores, each with its share of the files and one thread, PyAV, the backbone, one .npy at the
end; no isolation, no hashes, no resume. Both sides are whole processes, timed in turns; the median of the ratios of
neighbours counts.
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

from machine import describe_machine, markdown_machine
from made_video import write_made_video

from vqa_train.core.files import atomic_write_bytes, atomic_write_json

LOOP = """
import sys
from concurrent.futures import ProcessPoolExecutor
import numpy as np

def work(paths, name, seed):
    import torch
    from vqa_train.backbones.build import build_backbone
    from vqa_train.video.decode import read_clips
    torch.set_num_threads(1)
    backbone = build_backbone(name, random_weights=seed)
    rows = []
    for path in paths:
        (clips,) = read_clips(path, [backbone.spec.sampling], threads=1, key="0" * 64)
        rows.append(np.concatenate([np.ravel(part) for part in backbone.extract(clips)[0].values()]))
    return np.stack(rows)

if __name__ == "__main__":
    from pathlib import Path
    folder, name, processes, output = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
    seed = int(sys.argv[5]) if len(sys.argv) > 5 else None
    paths = sorted(folder.glob("*.mp4"))
    with ProcessPoolExecutor(processes) as pool:
        parts = pool.map(work, [paths[i::processes] for i in range(processes)], [name] * processes, [seed] * processes)
        np.save(output, np.concatenate(list(parts)))
"""


def timed(command: list[str], cwd: Path) -> float:
    """Wall seconds of a process that must end well."""
    started = time.perf_counter()
    subprocess.run(command, cwd=cwd, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return time.perf_counter() - started


def measure(
    work: Path, videos: int, repeats: int, backbone: str, seconds: float, seed: int | None = None
) -> dict[str, Any]:
    """Both sides in turns."""
    program = str(Path(sys.executable).parent / "vqa-train")
    root, cores = work / "videos", os.cpu_count() or 1
    for i in range(videos):
        write_made_video(root / f"v{i:04d}.mp4", seconds=seconds, size=(640, 360), seed=i)
    labels = root / "labels.csv"
    labels.write_text("id,mos\n" + "".join(f"v{i:04d},{1 + i % 5}\n" for i in range(videos)))
    scan = [program, "datasets", "scan", str(root), "--labels", "labels.csv", "--name", "made", "--id-column", "id"]
    scan += ["--target", "mos=mos", "--mos-min", "1", "--mos-max", "5", "--license", "CC0-1.0"]
    timed([*scan, "--output", str(work / "made.yaml")], work)
    (work / "loop.py").write_text(LOOP)
    extract = [program, "extract-features", "--dataset", str(work / "made.yaml"), "--backbone", backbone]
    if seed is not None:
        extract += ["--random-weights", str(seed)]
    extra = [] if seed is None else [str(seed)]
    pairs = []
    for number in range(repeats + 1):
        loop = timed([sys.executable, "loop.py", str(root), backbone, str(cores), "out.npy", *extra], work)
        ours = timed([*extract, "--output", str(work / f"store-{number}")], work)
        # The first pair warms the page cache.
        if number:
            pairs.append((loop, ours))
        print(f"loop {loop:.2f} s, extract-features {ours:.2f} s, ratio {ours / loop:.3f}", flush=True)
    ratios = [ours / loop for loop, ours in pairs]
    return {
        "backbone": backbone,
        "videos": videos,
        "seconds_each": seconds,
        "size": [640, 360],
        "cores": cores,
        "loop_s": [loop for loop, _ in pairs],
        "extract_s": [ours for _, ours in pairs],
        "ratio_median": statistics.median(ratios),
        "ratio_range": [min(ratios), max(ratios)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--backbone", action="append", metavar="NAME[=SEED]", help="SEED of random weights; again for more"
    )
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks"))
    arguments = parser.parse_args()
    runs = []
    for text in arguments.backbone or ["nss", "dover-mobile=1"]:
        name, _, seed = text.partition("=")
        with tempfile.TemporaryDirectory() as folder:
            found = measure(
                Path(folder), arguments.videos, arguments.repeats, name, arguments.seconds, int(seed) if seed else None
            )
        runs.append(found)
        print(json.dumps(found, indent=1))
    document = {"schema": "vqa-train/bench-overhead/1", "machine": describe_machine(), "runs": runs}
    atomic_write_json(arguments.output / "overhead.json", document)
    atomic_write_bytes(arguments.output / "overhead.md", page(document).encode())


def page(document: dict[str, Any]) -> str:
    """docs/benchmarks/overhead.md."""
    first = document["runs"][0]
    width, height = first["size"]
    lines = [
        "# The local engine against a loop written by hand",
        "",
        "Made by `tools/bench/bench_overhead.py`. " + markdown_machine(document["machine"]),
        "",
        f"{first['videos']} made videos of {first['seconds_each']:g} s, {width} × {height}, {first['cores']} cores. The loop: one process per "
        "core, each with its share of the files and one thread, PyAV, the backbone, one `.npy` at the end. `extract-features` also isolates the "
        "decoding, hashes every file, commits shards and can be killed at any moment. Whole processes, start-up included, in turns; medians.",
        "",
        "| backbone | the loop, s | `extract-features`, s | median of the ratios of neighbours |",
        "|---|---|---|---|",
    ]
    for run in document["runs"]:
        low, high = run["ratio_range"]
        lines.append(
            f"| `{run['backbone']}` | {statistics.median(run['loop_s']):.1f} | {statistics.median(run['extract_s']):.1f} | "
            f"{run['ratio_median']:.2f} ({low:.2f} to {high:.2f}) |"
        )
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
