"""Size and latency of exported heads: one MLP, ten averaged with spread and interval, ten and a kernel ridge.

Usage: python tools/bench/bench_head_onnx.py [--rows 1000] [--repeats 300] [--json PATH]
Each graph runs one row at a time and 256 at once, in one thread; its ratio is to the single MLP in the same run.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import describe_machine, markdown_machine

from vqa_train.core.files import atomic_write_json
from vqa_train.evaluation import METRICS
from vqa_train.heads.base import Head
from vqa_train.heads.config import HeadConfig, TrainConfig, ValidationConfig
from vqa_train.heads.ensemble import Ensemble
from vqa_train.heads.graph import ScoringGraph
from vqa_train.heads.trainer import fit_head
from vqa_train.onnx.export import export_module
from vqa_train.onnx.runtime import OnnxModel

COLUMNS = (60, 2432)


def trained(x: np.ndarray, y: np.ndarray, config: TrainConfig) -> Head:
    groups = [str(i) for i in range(len(x))]
    return fit_head({"video": x}, y, groups, ["mos"], config, metric=METRICS.get("srocc"), keys=groups).module


def members(columns: int, rows: int) -> tuple[list[Head], Head]:
    """Ten MLPs that differ by their seed, and a kernel ridge of `rows` centres."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, columns)).astype(np.float32)
    y = (3 + x[:, :1] + 0.3 * rng.normal(size=(rows, 1))).astype(np.float32)
    quick: dict[str, Any] = {"epochs": 2, "patience": None, "validation": ValidationConfig(fraction=0)}
    mlps = [trained(x, y, TrainConfig(**quick, seed=seed)) for seed in range(10)]
    return mlps, trained(x, y, TrainConfig(head=HeadConfig(kind="kernel_ridge"), **quick))


def batched(heads: list[Head]) -> Head:
    """Heads of one architecture as one, as `fit` keeps the seeds of a member."""
    states = [head.state_dict() for head in heads]
    head = heads[0].like(len(heads))
    head.load_state_dict({name: torch.cat([state[name] for state in states]) for name in states[0]})
    return head.eval()


def measure(graph: ScoringGraph, folder: Path, repeats: int) -> dict[str, float]:
    """Bytes of the file, median milliseconds of one row and of 256."""
    (columns,) = graph.ensemble.inputs["video"]
    path = folder / "m.onnx"
    exported = export_module(
        graph.eval(),
        torch.zeros(2, columns),
        path,
        input_names=["video"],
        output_names=graph.output_names,
        dynamic_axes={name: {0: "batch"} for name in ("video", *graph.output_names)},
        fold=False,
    )
    model = OnnxModel(path, threads=1)
    found: dict[str, float] = {"bytes": exported.bytes}
    for rows in (1, 256):
        x = {"video": np.random.default_rng(1).normal(size=(rows, columns)).astype(np.float32)}
        seconds = []
        for i in range(repeats + 10):
            started = time.perf_counter()
            model.run(x)
            if i >= 10:
                seconds.append(time.perf_counter() - started)
        found[f"ms_{rows}"] = 1000 * statistics.median(seconds)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1000, help="training rows, which are the kernel ridge's centres")
    parser.add_argument("--repeats", type=int, default=300)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results = []
    print("| input columns | heads | file | one row | 256 rows | one row against one head |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for columns in COLUMNS:
            mlps, ridge = members(columns, options.rows)
            graphs = {
                "one MLP, scores": ScoringGraph(Ensemble([mlps[0]])),
                "ten MLPs, spread and interval": ScoringGraph(Ensemble([batched(mlps)]), {"mos": 0.7}),
                f"ten MLPs and kernel ridge of {options.rows} rows": ScoringGraph(
                    Ensemble([batched(mlps), ridge]), {"mos": 0.7}
                ),
            }
            first = None
            for name, graph in graphs.items():
                found = measure(graph, Path(folder), options.repeats)
                first = first or found["ms_1"]
                results.append({"columns": columns, "heads": name, **found, "ratio": found["ms_1"] / first})
                print(
                    f"| {columns} | {name} | {found['bytes'] / 1e6:.2f} MB | {found['ms_1']:.3f} ms "
                    f"| {found['ms_256']:.2f} ms | {found['ms_1'] / first:.1f}x |"
                )
    machine = describe_machine()
    print("\n" + markdown_machine(machine))
    if options.json:
        atomic_write_json(options.json, {"machine": machine, "rows": options.rows, "results": results})


if __name__ == "__main__":
    main()
