"""How often `check drift` is wrong on real features: false alarms on rows like those of training, shifts that it misses.

    python tools/bench/bench_drift.py FEATURES.parquet [--draws 100] [--output docs/benchmarks/drift]

FEATURES has the columns `features` (a list per row) and `mos`, one row per content (KoNViD-1k with VIDEVAL's 60
features: https://github.com/vztu/VIDEVAL).
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from machine import describe_machine, markdown_machine
from numpy.typing import NDArray
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import Ridge

from vqa_train.pipelines.fit.training_statistics import training_statistics
from vqa_train.pipelines.gates.drift_columns import RowCollector, compare_columns
from vqa_train.pipelines.gates.drift_limits import DriftLimits
from vqa_train.pipelines.gates.drift_scores import compare_scores
from vqa_train.pipelines.gates.result import Check

SIZES = ((960, 240), (960, 50), (200, 200), (100, 1000), (100, 40))
SHIFT_ROWS = (30, 50, 100, 300)
SHIFTS = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2)
MODELS: dict[str, Callable[[int], Any]] = {
    "ridge": lambda columns: Ridge(10.0),
    "kernel ridge": lambda columns: KernelRidge(alpha=0.05, kernel="rbf", gamma=1 / columns),
}
LIMITS = DriftLimits()
Rows = NDArray[np.float32]


def draw(count: int, seed: int, training: int, rows: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows to train on and others."""
    order = np.random.default_rng(seed).permutation(count)
    return np.sort(order[:training]), order[training : training + rows]


def checks_of(x: Rows, scores: Rows, mos: NDArray[Any], train: Any, rows: Any, shift: Any = 0.0) -> list[Check]:
    """What the gate finds of some rows, moved by `shift`."""
    names = [str(i) for i in range(len(x))]
    known = training_statistics({"v": x}, scores, ["mos"], names, train)
    collector = RowCollector(known.inputs["v"], LIMITS.beyond_sd)
    collector.add((x[rows] + shift).astype(np.float32))
    observed = collector.observed(len(rows))
    columns = [str(i) for i in range(x.shape[1])]
    found, _ = compare_columns("v", columns, observed, known.inputs["v"], len(train), LIMITS)
    low, high = mos[train].min(), mos[train].max()
    margin = 0.1 * (high - low)
    some, _ = compare_scores(
        "mos", scores[rows, 0].astype(float), len(rows), known.scores["mos"], (low - margin, high + margin), LIMITS
    )  # fmt: skip
    return [*found, *some]


def predicted(x: Rows, mos: NDArray[Any], train: Any, model: Any) -> Rows:
    """Scores (N, 1) of a model fitted on the training rows."""
    known = np.nan_to_num(x)
    mean, std = known[train].mean(axis=0), known[train].std(axis=0) + 1e-9
    z = np.clip((known - mean) / std, -6, 6)
    model.fit(z[train], mos[train] - mos[train].mean())
    return (model.predict(z) + mos[train].mean()).astype(np.float32)[:, None]


def false_alarms(x: Rows, mos: NDArray[Any], draws: int) -> list[dict[str, Any]]:
    """Per model and size: draws in which a check failed that should not."""
    found = []
    for name, make in MODELS.items():
        for training, rows in SIZES:
            fails: Counter[str] = Counter()
            for seed in range(draws):
                train, others = draw(len(x), seed, training, rows)
                scores = predicted(x, mos, train, make(x.shape[1]))
                bad = [c.name for c in checks_of(x, scores, mos, train, others) if c.verdict != "pass"]
                fails.update(bad)
                fails["any"] += bool(bad)
            entry = {"model": name, "training": training, "rows": rows, "draws": draws, "alarms": dict(+fails)}
            print(entry, flush=True)
            found.append(entry)
    return found


def shifts_seen(x: Rows, mos: NDArray[Any], draws: int) -> list[dict[str, Any]]:
    """Per number of rows and shift of all columns, in standard deviations: draws in which it was seen."""
    std = np.nanstd(np.where(np.isfinite(x), x, np.nan), axis=0)
    found = []
    for rows in SHIFT_ROWS:
        for shift in SHIFTS:
            seen = 0
            for seed in range(draws):
                train, others = draw(len(x), seed, 900, rows)
                some = checks_of(x, mos[:, None].astype(np.float32), mos, train, others, shift * std)
                seen += any(c.verdict == "fail" and c.name.startswith("features.") for c in some)
            found.append({"rows": rows, "shift": shift, "draws": draws, "seen": seen})
        print(found[-len(SHIFTS) :], flush=True)
    return found


def page(result: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = ["# check drift on real features", "", markdown_machine(result["machine"]), ""]
    lines += ["Draws in which any check failed, of rows like those of training:", ""]
    lines += ["| model | training rows | rows looked at | alarms | which |", "|---|---|---|---|---|"]
    for e in result["false_alarms"]:
        which = ", ".join(f"{name} {n}" for name, n in e["alarms"].items() if name != "any") or "-"
        alarms = f"{e['alarms'].get('any', 0)} of {e['draws']}"
        lines.append(f"| {e['model']} | {e['training']} | {e['rows']} | {alarms} | {which} |")
    lines += ["", "Share of draws in which a shift of all columns was seen (900 training rows), by its size:", ""]
    lines += ["| rows | " + " | ".join(f"{s:g} sd" for s in SHIFTS) + " |", "|---" * (len(SHIFTS) + 1) + "|"]
    for rows in SHIFT_ROWS:
        cells = [f"{e['seen'] / e['draws']:.2f}" for e in result["shifts_seen"] if e["rows"] == rows]
        lines.append(f"| {rows} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("features", type=Path)
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--output", type=Path, help="without suffix; .md and .json are written")
    arguments = parser.parse_args()
    table = pl.read_parquet(arguments.features)
    x, mos = np.asarray(table["features"].to_list(), dtype=np.float32), table["mos"].to_numpy()
    result = {
        "machine": describe_machine(),
        "limits": LIMITS.model_dump(mode="json"),
        "rows": len(x),
        "columns": x.shape[1],
        "false_alarms": false_alarms(x, mos, arguments.draws),
        "shifts_seen": shifts_seen(x, mos, arguments.draws),
    }
    print(page(result))
    if arguments.output is not None:
        arguments.output.with_suffix(".md").write_text(page(result), encoding="utf-8")
        arguments.output.with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
