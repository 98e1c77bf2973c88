"""DOVER's and DOVER-Mobile's networks on a CPU: one video's views, block by block against plain modules.

Usage: python tools/bench/bench_dover.py [--output docs/benchmarks] [--threads 2] [--repeats 3]
The ways take turns in one process, at one thread and at `--threads`; peak memory is of fresh processes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from machine import describe_machine, markdown_machine
from torch import Tensor

from vqa_train.backbones import dover_cpu
from vqa_train.backbones.dover_network import DoverNetwork
from vqa_train.core.files import atomic_write_bytes, atomic_write_json

MODELS = {"dover": "DOVER, DOVER++", "dover-mobile": "DOVER-Mobile"}
WAYS = {
    "blocks": "block by block",
    "blocks-mkl": "block by block, `F.linear` and SDPA",
    "modules": "plain modules",
}
SHAPE = (3, 32, 224, 224)
TECHNICAL_CLIPS = 3
# Of the official code for one video, on another machine: two free cores of a Xeon, torch 2.15.
OFFICIAL = {"dover": "21 to 22 s of CPU time, 11.2 s at two threads", "dover-mobile": "3.3 to 4.2 s and 1.7 s"}


def built(model: str) -> tuple[DoverNetwork, Tensor, Tensor]:
    """A network with random weights, and noise for both branches."""
    torch.manual_seed(0)
    network = DoverNetwork(mobile=model == "dover-mobile").eval().requires_grad_(False)
    return network, torch.randn(TECHNICAL_CLIPS, *SHAPE), torch.randn(1, *SHAPE)


def score(way: str, network: DoverNetwork, technical: Tensor, aesthetic: Tensor) -> Tensor:
    """Both raw scores of one video, computed in one of the ways."""
    found = dover_cpu._ONEDNN
    dover_cpu._ONEDNN = found and way == "blocks"
    try:
        with torch.inference_mode():
            if way == "modules":
                maps = (
                    network.technical_head(network.technical_backbone(technical)),
                    network.aesthetic_head(network.aesthetic_backbone(aesthetic)),
                )
            else:
                maps = network.technical(technical)[1], network.aesthetic(aesthetic)[1]
            return torch.stack([scores.mean() for scores in maps])
    finally:
        dover_cpu._ONEDNN = found


def gflops() -> dict[str, float]:
    """Speed of one thread's matrix product with each library, on a layer of the last stage."""
    torch.set_num_threads(1)
    rows, weight, bias = torch.randn(784, 768), torch.randn(3072, 768), torch.randn(3072)
    found = {}
    for name, multiply in {"oneDNN": dover_cpu.linear, "F.linear": F.linear}.items():
        spent = []
        for _ in range(20):
            started = time.process_time()
            with torch.inference_mode():
                multiply(rows, weight, bias)
            spent.append(time.process_time() - started)
        found[name] = 2 * rows.numel() * len(weight) / statistics.median(spent) / 1e9
    return found


def measure(model: str, threads: int, repeats: int) -> dict[str, Any]:
    """Way -> medians of its CPU and wall time, after one run that is not counted."""
    torch.set_num_threads(threads)
    network, technical, aesthetic = built(model)
    runs: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    scores = {}
    for repeat in range(repeats + 1):
        for way, results in runs.items():
            wall, cpu = time.perf_counter(), time.process_time()
            scores[way] = score(way, network, technical, aesthetic)
            spent = time.process_time() - cpu, time.perf_counter() - wall
            if repeat:
                results.append(spent)
    for way, values in scores.items():
        torch.testing.assert_close(values, scores["modules"], rtol=0, atol=1e-5, msg=f"{model}, {way}")
    ways = {}
    for way, results in runs.items():
        cpu, wall = zip(*results, strict=True)
        against = statistics.median(x[0] / y[0] for x, y in zip(results, runs["modules"], strict=True))
        ways[way] = {"cpu_s": statistics.median(cpu), "wall_s": statistics.median(wall), "fastest_wall_s": min(wall)}
        ways[way]["cpu_over_modules"] = against
    return ways


def child(model: str, way: str, threads: int) -> None:
    """Peak resident memory with the weights and inputs alone, and after one video, MiB as JSON on stdout."""
    torch.set_num_threads(threads)
    network, technical, aesthetic = built(model)
    loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    score(way, network, technical, aesthetic)
    print(json.dumps({"loaded_mib": loaded, "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))


def memory(model: str, way: str, threads: int) -> dict[str, float]:
    """`child` in a fresh process."""
    command = [sys.executable, __file__, "--child", model, way, str(threads)]
    found: dict[str, float] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return found


def markdown(report: dict[str, Any]) -> str:
    """The page for the docs."""
    lines = [
        "# DOVER on a CPU: time and memory",
        "",
        f"The networks alone, float32, for one video's views: {TECHNICAL_CLIPS} technical clips and 1 aesthetic one of "
        f"32 x 224 x 224. Medians of {report['repeats']} rounds in which the ways take turns in one process; their "
        "scores agree within 1e-5.",
        "`plain modules` is the peer: the same networks from the same modules as one would write them (convolutions, "
        "`F.linear`, rolled and masked windows, SDPA over all windows of a clip). The ratio is of CPU times, round by "
        "round. Peak is resident memory of a fresh process; `loaded` is that process before the first forward.",
        "",
        "| network | threads | way | CPU | wall | fastest | CPU over plain | loaded MiB | peak MiB |",
        "|---|---:|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in report["rows"]:
        for way, r in row["ways"].items():
            kept = row["memory"][way]
            lines.append(
                f"| {MODELS[row['model']]} | {row['threads']} | {WAYS[way]} | {r['cpu_s']:.2f} s | {r['wall_s']:.2f} s "
                f"| {r['fastest_wall_s']:.2f} s | {r['cpu_over_modules']:.2f} | {kept['loaded_mib']:.0f} "
                f"| {kept['peak_mib']:.0f} |"
            )
    lines += [
        "",
        "Why it is fast: a few windows or frames at a time go through a whole block while they are in the processor's "
        "second-level cache, matrices go through oneDNN with the GELU in the same pass, and what a shifted window's "
        "mask would hide is not computed.",
        "",
        "``block by block, `F.linear` and SDPA`` is what a build of torch without oneDNN takes. On this processor a core "
        f"multiplies matrices at {report['gflops']['oneDNN']:.0f} GFLOP/s through oneDNN and at "
        f"{report['gflops']['F.linear']:.0f} through `F.linear`, that is MKL; where MKL is faster, as it should be on "
        "Intel's processors (not measured), the ratios to the plain modules come closer to that way's.",
        "",
        "With more than one thread, each thread takes blocks of its own. The times then hold on a busy machine; plain "
        "modules share every operation between the threads, and one that waits for a core makes the others spin.",
        "",
        "The official code was measured on another machine (two free cores of a Xeon, torch 2.15): DOVER "
        f"{OFFICIAL['dover']}; DOVER-Mobile {OFFICIAL['dover-mobile']}.",
        "",
        "Nothing derived from weights is kept between forwards. Kept are positions of windows: 16 grids at most, "
        f"{report['positions_mib']:.1f} MiB for the 8 of a 224 x 224 clip.",
        "",
        f"{markdown_machine(report['machine'])} Load average at the start: {report['load_average']}.",
        "",
        "Made by `python tools/bench/bench_dover.py`.",
        "",
    ]
    return "\n".join(lines)


def positions_mib() -> float:
    """What the networks keep of a 224 x 224 clip's windows."""
    from vqa_train.backbones.dover_boxes import boxes_of
    from vqa_train.backbones.dover_positions import windows_of

    total = 0
    for side in (56, 28, 14, 7):
        for shifted in (False, True):
            windows, boxes = windows_of((16, side, side), shifted=shifted), boxes_of((16, side, side), shifted=shifted)
            held = [windows.tokens, windows.rows, windows.columns, windows.regions, *boxes.kinds]
            for part in boxes.parts:
                held += [part.tokens, *(axis for p in part.patterns for axis in (p.rows, p.columns))]
            total += sum(tensor.numel() * tensor.element_size() for tensor in held)
    return total / 2**20


def main() -> None:
    """Measure, print the table, write the page and its JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    load = round(os.getloadavg()[0], 1)
    cases = [(model, threads) for model in MODELS for threads in (1, arguments.threads)]
    # Memory first: a process begins with the peak of the one that started it.
    rows: list[dict[str, Any]] = [
        {"model": model, "threads": threads, "memory": {way: memory(model, way, threads) for way in WAYS}}
        for model, threads in cases
    ]
    for row in rows:
        row["ways"] = measure(row["model"], row["threads"], arguments.repeats)
        print(json.dumps(row), file=sys.stderr)
    report = {
        "schema": "vqa-train/bench-dover/1",
        "machine": describe_machine(),
        "load_average": load,
        "repeats": arguments.repeats,
        "gflops": gflops(),
        "rows": rows,
        "positions_mib": positions_mib(),
    }
    page = markdown(report)
    print(page)
    atomic_write_json(arguments.output / "dover_cpu.json", report)
    atomic_write_bytes(arguments.output / "dover_cpu.md", page.encode("utf-8"))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        main()
