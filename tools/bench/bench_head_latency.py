"""Latency of a head on one core: our exported graph, torch, and scikit-learn's SVR, in turns in one process.

Usage: python tools/bench/bench_head_latency.py [--rounds 10] [--seconds 0.25] [--output docs/benchmarks] [--check]
The head: 2,048 inputs, layers of 512, 256 and 5, its standardisation and the scale of its scores inside. It runs as scoring
runs it (`OnnxModel.run`, which checks names, dtypes and shapes). The SVRs: RBF, one per target, 1,000 training rows, inputs that
somebody else has standardised. The process is tied to one core. --check exits with 3 above the limit.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import describe_machine, markdown_machine
from numpy.typing import NDArray
from sklearn.svm import SVR

from vqa_train.core.files import atomic_write_bytes, atomic_write_json
from vqa_train.heads.base import ScalingStatistics
from vqa_train.heads.config import HeadConfig
from vqa_train.heads.ensemble import Ensemble
from vqa_train.heads.graph import ScoringGraph
from vqa_train.heads.mlp import MlpHead
from vqa_train.onnx.export import export_module
from vqa_train.onnx.runtime import OnnxModel

INPUTS, HIDDEN, TARGETS = 2048, (512, 256), ["overall", "sharpness", "motion", "colour", "noise"]
TRAINING_ROWS = 1000
BATCHES = (1, 8, 64, 512)
LIMIT_US = 60.0
OURS = "vqa-train, onnxruntime"
Call = Callable[[], object]


def make_head(seed: int = 0) -> ScoringGraph:
    """The network with drawn weights, as `export` traces it."""
    rng = np.random.default_rng(seed)
    head = MlpHead({"video": INPUTS}, TARGETS, HeadConfig(hidden=HIDDEN))
    head.initialise([torch.Generator().manual_seed(seed)])
    targets = len(TARGETS)
    head.set_statistics(
        [
            ScalingStatistics(
                input_mean=rng.normal(size=INPUTS).astype(np.float32),
                input_std=rng.uniform(0.5, 2, INPUTS).astype(np.float32),
                input_varies=np.ones(INPUTS, np.bool_),
                target_mean=np.full(targets, 3, np.float32),
                target_std=np.full(targets, 0.8, np.float32),
                target_min=np.full(targets, 1, np.float32),
                target_max=np.full(targets, 5, np.float32),
            )
        ]
    )
    return ScoringGraph(Ensemble([head.eval()])).eval()


def export(graph: ScoringGraph, path: Path) -> OnnxModel:
    """The file that `export` would write, opened as scoring opens it."""
    export_module(
        graph, torch.zeros(2, INPUTS), path, input_names=["video"], output_names=graph.output_names,
        dynamic_axes={name: {0: "batch"} for name in ("video", *graph.output_names)}, fold=False,
    )  # fmt: skip
    return OnnxModel(path, threads=1)


def fit_svrs(seed: int = 1) -> list[SVR]:
    """One RBF SVR per target, of rows whose score is a noisy function of a few columns."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(TRAINING_ROWS, INPUTS))
    signal = x[:, :8] @ rng.normal(size=(8, len(TARGETS)))
    y = 3 + 0.8 * np.tanh(signal / 3) + 0.2 * rng.normal(size=signal.shape)
    return [SVR(C=1.0).fit(x, y[:, target]) for target in range(len(TARGETS))]


def make_calls(folder: Path) -> tuple[dict[str, Callable[[NDArray[np.float32]], Call]], dict[str, Any]]:
    """Name -> maker of the call that scores given rows; and facts about the peers."""
    graph = make_head()
    model, svrs = export(graph, folder / "head.onnx"), fit_svrs()
    difference = _largest_difference(graph, model)

    def torch_call(module: Callable[..., Any]) -> Callable[[NDArray[np.float32]], Call]:
        def make(x: NDArray[np.float32]) -> Call:
            rows = torch.from_numpy(x)

            def call() -> object:
                return module(rows)[0].numpy()

            return call

        return make

    def svr_call(x: NDArray[np.float32]) -> Call:
        rows = x.astype(np.float64)  # what libsvm would convert to at each call
        return lambda: [svr.predict(rows) for svr in svrs]

    calls: dict[str, Callable[[NDArray[np.float32]], Call]] = {
        OURS: lambda x: lambda: model.run({"video": x}),
        "torch, eager": torch_call(graph),
    }
    if shutil.which("g++"):
        calls["torch.compile"] = torch_call(torch.compile(graph, dynamic=False))
    calls["scikit-learn, five SVRs"] = svr_call
    facts = {
        "onnx_bytes": (folder / "head.onnx").stat().st_size,
        "support_vectors": [int(svr.n_support_.sum()) for svr in svrs],
        "largest_difference_from_torch": difference,
    }
    return calls, facts


def _largest_difference(graph: ScoringGraph, model: OnnxModel) -> float:
    x = np.random.default_rng(5).normal(size=(64, INPUTS)).astype(np.float32)
    with torch.inference_mode():
        return float(np.abs(graph(torch.from_numpy(x))[0].numpy() - model.run({"video": x})["scores"]).max())


def measure(rounds: int, seconds: float) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Per rows in a call and peer: microseconds per call, over all rounds."""
    results = []
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        makers, facts = make_calls(Path(folder))
        for rows in BATCHES:
            x = np.random.default_rng(2).normal(size=(rows, INPUTS)).astype(np.float32)
            calls = {name: make(x) for name, make in makers.items()}
            times: dict[str, list[float]] = {name: [] for name in calls}
            spent = dict.fromkeys(calls, 0.0)
            made = dict.fromkeys(calls, 0)
            for call in calls.values():
                for _ in range(3):
                    call()
            for _ in range(rounds):
                for name, call in calls.items():
                    before = time.process_time()
                    found, count = timed(call, seconds)
                    spent[name], made[name] = spent[name] + time.process_time() - before, made[name] + count
                    times[name] += found
            core = {name: spent[name] / made[name] for name in calls}
            for name, found in times.items():
                p50, p95, p99 = np.quantile(found, [0.5, 0.95, 0.99]) * 1e6
                results.append(
                    {
                        "rows": rows, "peer": name, "calls": len(found), "p50_us": p50, "p95_us": p95, "p99_us": p99, "core_us": 1e6 * core[name],
                        "rows_per_s": rows / core[name], "ratio": core[name] / core[OURS],
                    }
                )  # fmt: skip
    return results, facts


def timed(call: Call, seconds: float) -> tuple[list[float], int]:
    """Seconds of each call, for so long and at least once, without the first few, which fill the caches again; and how
    many calls there were with them."""
    found = []
    end = time.perf_counter() + seconds
    while not found or time.perf_counter() < end:
        started = time.perf_counter()
        call()
        found.append(time.perf_counter() - started)
    return found[3:] or found[-1:], len(found)


def page(
    results: list[dict[str, Any]], facts: dict[str, Any], machine: dict[str, Any], options: argparse.Namespace
) -> str:
    """The benchmark's page."""
    one = [r for r in results if r["rows"] == 1]
    lines = [
        "# Latency of a head on one core", "",
        f"Made by `tools/bench/bench_head_latency.py`. {markdown_machine(machine)}", "",
        f"2,048 inputs, layers of 512, 256 and {len(TARGETS)} (GELU), input standardisation and score scale inside the graph; a file of",
        f"{facts['onnx_bytes'] / 1e6:.1f} MB. One process tied to one core, {options.rounds} rounds in turns. Ours is `OnnxModel.run`, with its checks of names, dtypes",
        f"and shapes; its scores are within {facts['largest_difference_from_torch']:.0e} of torch's. torch: `inference_mode`, one thread, the tensor made beforehand. The SVRs: RBF,",
        f"one per target, {TRAINING_ROWS:,} training rows of 2,048 columns ({min(facts['support_vectors'])} to {max(facts['support_vectors'])} support vectors), rows already standardised.", "",
        "## One row", "",
        "| | p50, µs | p95, µs | p99, µs | calls | core time, µs | against ours |", "|---|---|---|---|---|---|---|",
        *(f"| {r['peer']} | **{r['p50_us']:.1f}** | {r['p95_us']:.1f} | {r['p99_us']:.1f} | {r['calls']:,} | {r['core_us']:.1f} | {r['ratio']:.1f}x |" for r in one), "",
        f"Asked for: p50 of at most {LIMIT_US:.0f} µs. Core time is the processor time of a call on average, which does not grow when others take",
        f"turns on the core; the ratio is of it. Load of the machine at the end, on {machine['cores']} cores: {os.getloadavg()[0]:.1f}.", "",
        "## Rows per second of the core, by rows in a call", "",
        "| | " + " | ".join(map(str, BATCHES)) + " |", "|---" * (len(BATCHES) + 1) + "|",
    ]  # fmt: skip
    for name in dict.fromkeys(r["peer"] for r in results):
        rates = [r["rows_per_s"] for rows in BATCHES for r in results if r["peer"] == name and r["rows"] == rows]
        lines.append(f"| {name} | " + " | ".join(f"{rate:,.0f}" for rate in rates) + " |")
    lines += [
        "",
        "One row reads 4.7 MB of weights, more than a core's own cache holds: of the time, about four fifths are that reading. The rest",
        "is one start per operation, so the graph has eleven: six that standardise, three products, two activations.", "",
    ]  # fmt: skip
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=0.25, help="of each peer in each round")
    parser.add_argument("--output", type=Path, help="folder for head_latency.md and head_latency.json")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    results, facts = measure(options.rounds, options.seconds)
    machine = describe_machine()
    text = page(results, facts, machine, options)
    print(text)
    if options.output:
        document = {
            "schema": "vqa-train/bench-head-latency/1",
            "machine": machine,
            "limit_us": LIMIT_US,
            "facts": facts,
            "results": results,
        }
        atomic_write_json(options.output / "head_latency.json", document)
        atomic_write_bytes(options.output / "head_latency.md", text.encode())
    measured = next(r["p50_us"] for r in results if r["rows"] == 1 and r["peer"] == OURS)
    return 3 if options.check and measured > LIMIT_US else 0


if __name__ == "__main__":
    sys.exit(main())
