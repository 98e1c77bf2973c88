"""Small labelled sets that the tests make: real video files for extraction, a store of made features for the rest."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest


@dataclass(frozen=True)
class LabelledStore:
    """Paths of a dataset, its features and a recipe; `left_out` is the id of the one video without features."""

    manifest: Path
    store: Path
    recipe: Path
    left_out: str


@pytest.fixture
def make_dataset(tmp_path: Path, write_video: Callable[..., Path]) -> Callable[..., Path]:
    """`make_dataset(count=6, prompts=False, bad={}) -> manifest`; `bad` maps file names to bytes that are no video."""

    def make(
        count: int = 6, *, prompts: bool = False, bad: dict[str, bytes] | None = None, folder: str = "data"
    ) -> Path:
        from vqa_train.datasets.draft import ScanConfig
        from vqa_train.datasets.scan import scan

        root = tmp_path / folder
        rows = []
        for i in range(count):
            crf = 18 + 33 * i // max(count - 1, 1)
            name = f"clip {i} ü.mp4"
            write_video(root / name, frames=12, size=(96, 128), options={"crf": str(crf), "g": "6"}, seed=i % 3)
            rows.append({"id": f"v{i}", "file": name, "mos": round(5 - 4 * i / count, 3), "scene": f"s{i % 3}"})
        for name, data in (bad or {}).items():
            (root / name).write_bytes(data)
            rows.append({"id": name, "file": name, "mos": 3, "scene": name})
        if prompts:
            for i, row in enumerate(rows):
                row["prompt"] = f"a texture of kind {i % 2}, moving"
        with (root / "labels.csv").open("w", newline="", encoding="utf-8") as handle:
            writer = csv.DictWriter(handle, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)
        columns = {"id": "id", "path": "file", "group": "scene", **({"prompt": "prompt"} if prompts else {})}
        scan(
            ScanConfig(
                root=root, output=tmp_path / f"{folder}.yaml", name=folder, license="CC0-1.0",
                labels=(("labels.csv", None),), columns=columns, targets={"overall": "mos"}, mos_min=1, mos_max=5,
            )
        )  # fmt: skip
        return tmp_path / f"{folder}.yaml"

    return make


@pytest.fixture
def labelled_store(tmp_path: Path) -> LabelledStore:
    """A dataset of 120 small files in 40 groups and a store of features of which one column is the label plus noise."""
    from vqa_train.core.types import FeatureSpec, OutputSpec, Sampling
    from vqa_train.datasets.draft import ScanConfig
    from vqa_train.datasets.load import load_dataset
    from vqa_train.datasets.scan import scan
    from vqa_train.store.store import FeatureRow, FeatureStore

    root = tmp_path / "set"
    root.mkdir()
    rng = np.random.default_rng(0)
    mos = rng.uniform(1, 5, 120).round(3)
    lines = ["id,overall,detail,scene"]
    for i in range(120):
        (root / f"v{i:03d}.mp4").write_bytes(b"video %d" % i)
        # Every tenth clip has no opinion on detail.
        detail = "" if i % 10 == 0 else f"{6 - mos[i]:.3f}"
        lines.append(f"v{i:03d},{mos[i]},{detail},scene{i // 3}")
    (root / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    manifest = tmp_path / "set.yaml"
    scan(
        ScanConfig(
            root=root, output=manifest, name="set", license="CC0-1.0", labels=(("labels.csv", None),),
            columns={"id": "id", "group": "scene"}, targets={"overall": "overall", "detail": "detail"},
            mos_min=1, mos_max=5,
        )
    )  # fmt: skip
    spec = FeatureSpec(
        backbone="fake", definition=1, modality="video", sampling=Sampling(mode="uniform", n=2),
        outputs=(OutputSpec(name="pooled", shape=(4,)), OutputSpec(name="temporal", shape=(2, 3))),
    )  # fmt: skip
    features = FeatureStore(tmp_path / "features").create_set(spec, license="CC-BY-4.0")
    facts = {
        "num_frames": 9, "fps": 25.0, "width": 8, "height": 8, "duration_s": 0.36, "codec": "h264", "decoder": "none",
    }  # fmt: skip
    videos = load_dataset(str(manifest)).videos
    rows = []
    for video in videos[:-1]:
        pooled = rng.normal(size=4).astype(np.float32)
        pooled[2] = video.labels["overall"] + rng.normal() * 0.2
        temporal = np.zeros((2, 3), np.float32)
        rows.append(FeatureRow(key=video.sha256, outputs={"pooled": pooled, "temporal": temporal}, facts=facts))
    features.append(rows, profile={"device": "cpu"}, run_id="made-by-test")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "schema: vqa-train/fit/1\nfeatures:\n  video: {set: fake}\n"
        "train: {epochs: 120, patience: 60, ema: null, head: {hidden: [16]}}\n",
        encoding="utf-8",
    )
    return LabelledStore(manifest=manifest, store=tmp_path / "features", recipe=recipe, left_out=videos[-1].id)
