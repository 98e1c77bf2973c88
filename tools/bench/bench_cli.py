"""Wall time of whole commands: `vqa-train --help`, `vqa-score` of one 720p clip without torch, a no-op extraction of 10,000 videos.

Usage: python tools/bench/bench_cli.py [--clip CLIP.mp4] [--videos 10000] [--runs 7]
Peers in the same run: `python -c pass`, importing torch, and one stat per file.
"""

from __future__ import annotations

import argparse
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

from vqa_train.backbones import BACKBONES
from vqa_train.core.files import atomic_write_bytes, atomic_write_json
from vqa_train.datasets.draft import ScanConfig
from vqa_train.datasets.load import load_dataset
from vqa_train.datasets.scan import scan
from vqa_train.pipelines.export.run import export_run
from vqa_train.pipelines.fit.run import fit, load_fit_config
from vqa_train.pipelines.models.register import RegisterConfig, register
from vqa_train.store.store import FeatureRow, FeatureStore

BIN = Path(sys.executable).parent
NO_TORCH = (
    "import sys\n"
    "for name in ('torch', 'transformers', 'sentence_transformers', 'sklearn', 'scipy', 'decord', 'onnx'): sys.modules[name] = None\n"
    "sys.argv[0] = 'vqa-score'\n"
    "from vqa_train.cli.score import main\n"
    "main()\n"
)


def timed(command: list[str], runs: int, expect: int = 0) -> dict[str, float]:
    """Median, lowest and highest wall seconds of `runs` runs after one that is not counted; CPU seconds of the last."""
    seconds, cpu = [], 0.0
    for i in range(runs + 1):
        before, started = os.times(), time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != expect:
            sys.exit(f"{command} ended with {done.returncode}: {done.stderr}")
        after = os.times()
        cpu = after.children_user + after.children_system - before.children_user - before.children_system
        if i:
            seconds.append(time.monotonic() - started)
    return {"median_s": statistics.median(seconds), "min_s": min(seconds), "max_s": max(seconds), "cpu_s": cpu}


def make_known(root: Path, videos: int) -> tuple[Path, Path]:
    """A dataset of small files and a store that holds made features for all of them; (manifest, store)."""
    folder = root / "known"
    folder.mkdir()
    for i in range(videos):
        (folder / f"v{i:06d}.mp4").write_bytes(b"video %d" % i)
    labels = "id,mos,scene\n" + "".join(f"v{i:06d},{1 + i % 5},s{i // 4}\n" for i in range(videos))
    (folder / "labels.csv").write_text(labels, encoding="utf-8")
    manifest = root / "known.yaml"
    scan(
        ScanConfig(
            root=folder, output=manifest, name="known", license="CC0-1.0", labels=(("labels.csv", None),),
            columns={"id": "id", "group": "scene"}, targets={"overall": "mos"}, mos_min=1, mos_max=5,
        )
    )  # fmt: skip
    backbone = BACKBONES.get("nss")()
    feature_set = FeatureStore(root / "store").create_set(backbone.spec, license=backbone.license)
    rng = np.random.default_rng(0)
    facts = {"num_frames": 9, "fps": 25.0, "width": 8, "height": 8, "duration_s": 0.4, "codec": "h264", "decoder": "x"}
    rows = []
    for video in load_dataset(str(manifest)).videos:
        outputs = {o.name: rng.normal(size=o.shape).astype(np.float32) for o in backbone.spec.outputs}
        outputs["pooled"][0] = video.labels["overall"]
        rows.append(FeatureRow(key=video.sha256, outputs=outputs, facts=facts))
    for start in range(0, len(rows), 256):
        feature_set.append(rows[start : start + 256], profile={"device": "made"}, run_id="bench")
    feature_set.snapshot()
    return manifest, root / "store"


def make_model(root: Path, manifest: Path, store: Path) -> None:
    """A registered model with the real `nss` backbone; what it learnt does not matter for its time."""
    recipe = load_fit_config(Path("ai/configs/nss-mlp.yaml"))
    recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"epochs": 2})})
    fit(recipe, features=store, output=root / "run", dataset=str(manifest))
    export_run(root / "run", root / "model" / "bench.onnx")
    register(
        RegisterConfig(
            model=root / "model" / "bench.onnx", kind="nr", dataset="known", license="CC0-1.0",
            train_commit="unknown", registry=root / "model",
        )
    )  # fmt: skip


def measure(root: Path, clip: Path, videos: int, runs: int) -> list[dict[str, Any]]:
    """Every row of the table."""
    manifest, store = make_known(root, videos)
    make_model(root, manifest, store)
    extract = [
        str(BIN / "vqa-train"), "extract-features", "--dataset", str(manifest), "--backbone", "nss", "--output", str(store),
    ]  # fmt: skip
    score = [sys.executable, "-c", NO_TORCH, str(clip), "--model", "bench", "--registry", str(root / "model")]
    stat = f"import os\nfor e in os.scandir({str(root / 'known')!r}): os.stat(e.path)"
    return [
        {"what": "python -c pass", "limit_s": None, **timed([sys.executable, "-c", "pass"], runs)},
        {"what": "vqa-train --help", "limit_s": 0.3, **timed([str(BIN / "vqa-train"), "--help"], runs)},
        {"what": "python -c 'import torch'", "limit_s": None, **timed([sys.executable, "-c", "import torch"], runs)},
        {"what": "vqa-score of one 720p clip, torch not importable", "limit_s": 3.0, **timed(score, runs)},
        {"what": f"stat of {videos} files", "limit_s": None, **timed([sys.executable, "-c", stat], runs)},
        {"what": f"extract-features, {videos} known videos", "limit_s": 2.0, **timed(extract, runs)},
    ]


def main() -> None:
    """Parse, measure, write docs/benchmarks/cli.md and .json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clip", type=Path, help="a 720p clip [default: a made one of 10 s]")
    parser.add_argument("--videos", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        os.environ["VQA_TRAIN_CACHE"] = str(root / "cache")
        clip = options.clip or write_made_video(root / "clip.mp4", seconds=10.0)
        rows = measure(root, clip, options.videos, options.runs)
    machine = describe_machine()
    atomic_write_json(
        options.output / "cli.json", {"schema": "vqa-train/bench-cli/1", "machine": machine, "rows": rows}
    )
    lines = ["| command | wall s, median | lowest | highest | CPU s | asked for |", "|---|---|---|---|---|---|"]
    for r in rows:
        limit = f"<= {r['limit_s']} s" if r["limit_s"] else ""
        lines.append(
            f"| {r['what']} | **{r['median_s']:.2f}** | {r['min_s']:.2f} | {r['max_s']:.2f} | {r['cpu_s']:.2f} | {limit} |"
        )
    text = "\n".join(
        [
            "# Commands, from start to end", "",
            f"`python tools/bench/bench_cli.py`: whole processes, {options.runs} runs each after a warm-up. Starts are cold as far as Python",
            "goes (a new process each), warm as far as the disk goes.", "", *lines, "", markdown_machine(machine), "",
        ]
    )  # fmt: skip
    atomic_write_bytes(options.output / "cli.md", text.encode())
    print(text)


if __name__ == "__main__":
    main()
