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

def work(paths, name):
    import torch
    from vqa_train.backbones.build import build_backbone
    from vqa_train.video.decode import read_clips
    torch.set_num_threads(1)
    backbone = build_backbone(name)
    rows = []
    for path in paths:
        (clips,) = read_clips(path, [backbone.spec.sampling], threads=1)
        rows.append(backbone.extract(clips)[0]["pooled"])
    return np.stack(rows)

if __name__ == "__main__":
    from pathlib import Path
    folder, name, processes, output = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
    paths = sorted(folder.glob("*.mp4"))
    with ProcessPoolExecutor(processes) as pool:
        parts = pool.map(work, [paths[i::processes] for i in range(processes)], [name] * processes)
        np.save(output, np.concatenate(list(parts)))
"""


def timed(command: list[str], cwd: Path) -> float:
    """Wall seconds of a process that must end well."""
    started = time.perf_counter()
    subprocess.run(command, cwd=cwd, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return time.perf_counter() - started


def measure(work: Path, videos: int, repeats: int, backbone: str, seconds: float) -> dict[str, Any]:
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
    pairs = []
    for number in range(repeats + 1):
        loop = timed([sys.executable, "loop.py", str(root), backbone, str(cores), "out.npy"], work)
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
    parser.add_argument("--videos", type=int, default=120)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--backbone", default="nss")
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), arguments.videos, arguments.repeats, arguments.backbone, arguments.seconds)
    document = {"schema": "vqa-train/bench-overhead/1", "machine": describe_machine(), **found}
    atomic_write_json(arguments.output / "overhead.json", document)
    atomic_write_bytes(arguments.output / "overhead.md", page(document).encode())
    print(json.dumps(found, indent=1))


def page(document: dict[str, Any]) -> str:
    """docs/benchmarks/overhead.md."""
    low, high = document["ratio_range"]
    width, height = document["size"]
    return "\n".join(
        [
            "# The local engine against a loop written by hand",
            "",
            "Made by `tools/bench/bench_overhead.py`. " + markdown_machine(document["machine"]),
            "",
            f"{document['videos']} made videos of {document['seconds_each']:g} s, {width} × {height}, backbone `{document['backbone']}`, "
            f"{document['cores']} cores. The loop: one process per core, each with its share of the files, PyAV, the backbone, one `.npy` at "
            "the end. `extract-features` also isolates the decoding, hashes every file, commits shards and can be killed at any moment. Whole "
            "processes, in turns.",
            "",
            "| | wall seconds, median |",
            "|---|---|",
            f"| the loop | {statistics.median(document['loop_s']):.1f} |",
            f"| `extract-features` | {statistics.median(document['extract_s']):.1f} |",
            "",
            f"Median of the ratios of neighbouring runs: **{document['ratio_median']:.3f}** ({low:.3f} to {high:.3f}).",
            "",
        ]
    )


if __name__ == "__main__":
    main()
