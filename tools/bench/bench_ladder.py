"""Leave-one-source-out on the distortion ladder: `nss` + MLP against pseudo_mos, per source and per kind, with a peer.

Usage: python tools/bench/bench_ladder.py --sources DIR_OF_CLIPS [--work DIR] [--scenes 8]
The peer is scikit-learn's SVR (RBF, C = 4, gamma = 1 / features) on the same features and folds.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe_machine, markdown_machine
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR

from vqa_train.core.files import atomic_write_bytes, atomic_write_json
from vqa_train.core.progress import progress
from vqa_train.core.types import Video
from vqa_train.datasets.ladder import make_ladder
from vqa_train.datasets.ladder.config import LadderConfig
from vqa_train.datasets.ladder.scenes import SCENES
from vqa_train.datasets.load import load_dataset
from vqa_train.datasets.protocols import LeaveOneGroupOut, plan_splits
from vqa_train.evaluation.plcc import plcc
from vqa_train.evaluation.srocc import srocc
from vqa_train.heads.trainer import fit_head, predict
from vqa_train.pipelines.extract.run import ExtractConfig, extract_features
from vqa_train.pipelines.fit.run import load_fit_config
from vqa_train.pipelines.table import FeatureInput, Table, join
from vqa_train.store.store import FeatureStore

TARGET = "pseudo_mos"


def prepare(
    work: Path, sources: Path | None, scenes: int, size: tuple[int, int], seconds: float
) -> tuple[Table, dict[str, float]]:
    """Render the ladder, extract `nss`, and join; seconds of each step."""
    started = time.monotonic()
    config = LadderConfig(scenes=scenes, size=size, seconds=seconds)
    manifest = make_ladder(work / "ladder", sources=sources, config=config, workers=2)
    rendered = time.monotonic()
    extract_features(ExtractConfig(dataset=str(manifest), output=work / "store", backbones=("nss",)), log=print)
    extracted = time.monotonic()
    data = load_dataset(str(manifest))
    table = join(data.videos, FeatureStore.open(work / "store"), {"nss": FeatureInput(set="nss")}, [TARGET])
    return table, {"render_and_label_s": rendered - started, "extract_s": extracted - rendered}


def leave_one_out(table: Table, videos: Sequence[Video], seeds: int) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
    """Predictions of each source by heads and by SVRs that never saw it, both (N,)."""
    train = load_fit_config(Path("ai/configs/nss-mlp.yaml")).train
    labels = table.targets[:, 0].astype(np.float64)
    ours, peer = np.full(len(labels), np.nan), np.full(len(labels), np.nan)
    seconds = {"mlp_s": 0.0, "svr_s": 0.0}
    names = [""] * len(videos)
    plan = plan_splits(LeaveOneGroupOut(), names, videos)
    folds = plan.placed(plan.positions(names, videos))
    with progress("folds", len(folds)) as advance:
        for fold in folds:
            part, held_out = table.take(fold.train), table.take(fold.test)
            clock = time.monotonic()
            scores = []
            for seed in range(seeds):
                fitted = fit_head(
                    part.features, part.targets, part.groups, [TARGET], train.model_copy(update={"seed": seed}),
                    metric=srocc, keys=[f"{v.sha256}/{v.id}" for v in part.videos],
                )  # fmt: skip
                scores.append(predict(fitted.module, held_out.features)[:, 0])
            ours[list(fold.test)] = np.mean(scores, axis=0)
            seconds["mlp_s"] += time.monotonic() - clock
            clock = time.monotonic()
            model = make_pipeline(StandardScaler(), SVR(C=4.0, gamma="auto"))
            model.fit(part.features["nss"], part.targets[:, 0])
            peer[list(fold.test)] = model.predict(held_out.features["nss"])
            seconds["svr_s"] += time.monotonic() - clock
            advance()
    return ours, peer, seconds


def family(group: str) -> str:
    """Kind of a made scene ("foliage" of "foliage-2"); a real clip is its own."""
    return group.rpartition("-")[0] if is_made(group) else group


def is_made(group: str) -> bool:
    """Whether a source is a procedural scene."""
    return group.rpartition("-")[0] in SCENES


def breakdown(table: Table, name: str, values: list[str], ours: np.ndarray, peer: np.ndarray) -> list[dict[str, Any]]:
    """SROCC and PLCC over the rows of each value (source or kind)."""
    labels = table.targets[:, 0].astype(np.float64)
    rows = []
    for value in sorted(set(values)):
        chosen = np.asarray([v == value for v in values])
        rows.append(
            {
                name: value, "n": int(chosen.sum()), "srocc": srocc(ours[chosen], labels[chosen]),
                "plcc": plcc(ours[chosen], labels[chosen]), "svr_srocc": srocc(peer[chosen], labels[chosen]),
                "rmse": float(np.sqrt(np.mean((ours[chosen] - labels[chosen]) ** 2))),
                "bias": float(np.mean(ours[chosen] - labels[chosen])),
            }
        )  # fmt: skip
    rows = [{k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()} for row in rows]
    # Undefined (the pristine clips all have one label) comes last.
    return sorted(rows, key=lambda row: (row["srocc"] is None, row["srocc"]))


def markdown(name: str, rows: list[dict[str, Any]]) -> str:
    """The breakdown as a table, worst first."""
    lines = [f"| {name} | n | SROCC | PLCC | RMSE | mean error | SVR SROCC |", "|---|---|---|---|---|---|---|"]
    for r in rows:
        cells = [f"{r[key]:.3f}" if r[key] is not None else "undefined" for key in ("srocc", "plcc", "svr_srocc")]
        lines.append(
            f"| {r[name]} | {r['n']} | {cells[0]} | {cells[1]} | {r['rmse']:.2f} | {r['bias']:+.2f} | {cells[2]} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Parse, render, extract, fit, write docs/benchmarks/ladder.md and .json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sources", type=Path)
    parser.add_argument("--scenes", type=int, default=30)
    parser.add_argument("--size", type=lambda text: tuple(int(x) for x in text.split("x")), default=(480, 270))
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--work", type=Path, help="keep the ladder and the store here")
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = options.work or Path(folder)
        table, seconds = prepare(work, options.sources, options.scenes, options.size, options.seconds)
        ours, peer, fit_seconds = leave_one_out(table, table.videos, options.seeds)
        # Stricter: with one foliage scene out, another may be in; here all scenes of a kind are out together.
        families = [replace(v, group=family(v.group or "")) for v in table.videos]
        ours_family, peer_family, _ = leave_one_out(table, families, 1)
    labels = table.targets[:, 0].astype(np.float64)
    kinds = [video.attributes["kind"] for video in table.videos]
    by_source = breakdown(table, "source", table.groups, ours, peer)
    by_kind = breakdown(table, "kind", kinds, ours, peer)
    overall = {
        "n": len(labels), "sources": len(by_source), "srocc": srocc(ours, labels), "plcc": plcc(ours, labels),
        "svr_srocc": srocc(peer, labels), "svr_plcc": plcc(peer, labels),
        "mean_srocc_within_source": float(np.mean([row["srocc"] for row in by_source])),
    }  # fmt: skip
    real = np.asarray([not is_made(v.group or "") for v in table.videos])
    overall |= {
        "family_out_srocc": srocc(ours_family, labels), "family_out_svr_srocc": srocc(peer_family, labels),
        "real_n": int(real.sum()),
        "real_srocc": srocc(ours[real], labels[real]) if real.any() else None,
        "real_svr_srocc": srocc(peer[real], labels[real]) if real.any() else None,
    }  # fmt: skip
    machine = describe_machine()
    result = {
        "schema": "vqa-train/bench-ladder/1", "machine": machine, "seeds": options.seeds, "overall": overall,
        "sources": by_source, "kinds": by_kind, "seconds": {**seconds, **fit_seconds},
        "without_features": list(table.without_features),
    }  # fmt: skip
    atomic_write_json(options.output / "ladder.json", result)
    real_rows = ""
    if real.any():
        real_rows = (
            f"| nss + MLP, the {overall['real_n']} clips of real sources pooled | {overall['real_srocc']:.4f} | |\n"
        )
        real_rows += f"| nss + SVR, the same | {overall['real_svr_srocc']:.4f} | |"
    text = f"""# Leave one source out on the distortion ladder

`python tools/bench/bench_ladder.py --sources DIR --scenes {options.scenes}`: {overall["n"]} clips of {overall["sources"]} sources (real clips
by file name, made scenes by kind), {len(by_kind)} kinds with the pristine one. Each source is predicted by heads
(ai/configs/nss-mlp.yaml, {options.seeds} seeds averaged) that never saw it. The peer is scikit-learn's SVR
(RBF, C = 4, gamma = 1 / features, standardised), same features and folds.

| | SROCC | PLCC |
|---|---|---|
| nss + MLP, all clips | **{overall["srocc"]:.4f}** | {overall["plcc"]:.4f} |
| nss + SVR, all clips | {overall["svr_srocc"]:.4f} | {overall["svr_plcc"]:.4f} |
| nss + MLP, mean over sources of the SROCC within each | {overall["mean_srocc_within_source"]:.4f} | |
| nss + MLP, all scenes of a kind left out together (one seed) | {overall["family_out_srocc"]:.4f} | |
| nss + SVR, all scenes of a kind left out together | {overall["family_out_svr_srocc"]:.4f} | |
{real_rows}

`pseudo_mos` is a full-reference measure, not an opinion score: docs/ladder.md says how it is computed.

## By source, worst first

{markdown("source", by_source)}

## By kind, worst first

{markdown("kind", by_kind)}

Seconds: rendering and labelling {seconds["render_and_label_s"]:.0f}, extraction {seconds["extract_s"]:.0f}, {options.seeds} MLP heads a fold
{fit_seconds["mlp_s"]:.0f} in all, SVRs {fit_seconds["svr_s"]:.0f} in all.

{markdown_machine(machine)}
"""
    atomic_write_bytes(options.output / "ladder.md", text.encode())
    print(text)


if __name__ == "__main__":
    main()
