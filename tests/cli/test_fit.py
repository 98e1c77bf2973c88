"""vqa-train fit: what it prints, its JSON, and its exit codes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vqa_train.cli import main as cli
from vqa_train.datasets.draft import ScanConfig
from vqa_train.datasets.load import load_dataset
from vqa_train.datasets.scan import scan
from vqa_train.pipelines import runs

RECIPE = """\
schema: vqa-train/fit/1
features: {video: {set: fake}}
train: {epochs: 6, patience: null, validation: {fraction: 0}, head: {hidden: [8]}}
"""


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    """`fit` of a store with 60 videos in 20 scenes, into the folder `run`."""
    from vqa_train.core.types import FeatureSpec, OutputSpec
    from vqa_train.store.store import FeatureRow, FeatureStore

    root = tmp_path / "set"
    root.mkdir()
    rng = np.random.default_rng(0)
    lines = ["id,mos,scene"]
    for i in range(60):
        (root / f"v{i:02d}.mp4").write_bytes(b"video %d" % i)
        lines.append(f"v{i:02d},{rng.uniform(1, 5):.3f},scene{i // 3}")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    manifest = tmp_path / "set.yaml"
    scan(
        ScanConfig(
            root=root, output=manifest, name="set", license="CC0-1.0", labels=(("labels.csv", None),),
            columns={"id": "id", "group": "scene"}, targets={"mos": "mos"}, mos_min=1, mos_max=5,
        )
    )  # fmt: skip
    spec = FeatureSpec(
        backbone="fake", definition=1, modality="video", outputs=(OutputSpec(name="pooled", shape=(3,)),),
        preprocessing={"imported": {}},
    )  # fmt: skip
    rows = []
    for video in load_dataset(str(manifest)).videos:
        pooled = rng.normal(size=3).astype(np.float32)
        pooled[0] = video.labels["mos"]
        rows.append(FeatureRow(key=video.sha256, outputs={"pooled": pooled}, facts={}))
    FeatureStore(tmp_path / "store").create_set(spec, license="x").append(rows, profile={}, run_id="made-by-test")
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return [
        "fit", "--config", str(tmp_path / "recipe.yaml"), "--features", str(tmp_path / "store"),
        "--dataset", str(manifest), "--output", str(tmp_path / "run"),
    ]  # fmt: skip


def vqa_train(*words: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("sys.argv", ["vqa-train", *words])
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_a_protocol_prints_median_and_deviation_of_the_fields_metrics(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*arguments, "--protocol", "kfold:k=4", "--seeds", "2", "--calibration", "cross"]
    assert vqa_train(*words, "--json", str(tmp_path / "report.json"), monkeypatch=monkeypatch) == 0
    out, err = capsys.readouterr()
    assert err == ""
    report = json.loads((tmp_path / "report.json").read_text())
    summary = report["protocol"]["summary"]["mos"]
    header, row = next(
        (line.split(), following.split())
        for line, following in zip(out.splitlines(), out.splitlines()[1:], strict=False)
        if line.startswith("target  SROCC")
    )
    assert header == ["target", "SROCC", "PLCC", "KROCC", "RMSE", "MAE", "VQualA"]
    shown = [f"{summary[name]['median']:.4f}" for name in ("srocc", "plcc_mapped", "krocc", "rmse_mapped")]
    assert row[1::3][:4] == shown
    assert row[2] == "±"
    assert row[3] == f"{summary['srocc']['std']:.4f}"
    assert "intervals of level 0.9" in out
    assert "held-out rows of 4 folds" in out
    record = runs.open_run(tmp_path / "run")
    assert (report["warnings"], report["calibration"]) == ([], record.calibration)


def test_one_split_prints_training_and_validation_rows(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert vqa_train(*arguments, monkeypatch=monkeypatch) == 0
    out = capsys.readouterr().out
    assert "train  mos     all" in out
    assert "test rows, not looked at:" in out


def test_warnings_go_to_stderr_and_json_to_stdout(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert vqa_train(*arguments, "--protocol", "kfold:k=3,by=row", "--json", "-", monkeypatch=monkeypatch) == 0
    out, err = capsys.readouterr()
    report: dict[str, Any] = json.loads(out)
    assert report["schema"] == "vqa-train/fit-report/1"
    assert err == f"warning: {report['warnings'][0]}\n"
    assert "of 20 groups have rows in both" in err


@pytest.mark.parametrize(
    ("extra", "code", "message"),
    [
        (["--protocol", "kfold:kk=3"], 1, "unknown key 'kk' - did you mean 'k'"),
        (["--protocol", "fold"], 1, "did you mean 'kfold'"),
        (["--protocol", "kfold:k=30"], 1, "at least k groups, got k=30 and 20 groups"),
        (["--calibration", "crosss"], 2, "must be cross, split or none"),
        (["--missing-features", "zero"], 1, "missing_features"),
        (["--seeds", "0"], 1, "seeds"),
        (["--input", "fake"], 2, "--input 'fake' is not NAME=SET[:OUTPUT]"),
        (["--input", "video=fake:"], 2, "is not NAME=SET[:OUTPUT]"),
        (["--input", "a=fake", "--input", "a=fake"], 2, "names 'a' twice"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str],
    extra: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert vqa_train(*arguments, *extra, monkeypatch=monkeypatch) == code
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_the_command_line_wins_over_the_recipe(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE + "protocol: {kind: kfold, k: 3}\nseeds: 3\ncalibration: {level: 0.5}\n")
    words = [
        "--input",
        "clip=fake:pooled",
        "--protocol",
        "hash",
        "--seeds",
        "1",
        "--seed",
        "7",
        "--calibration",
        "none",
        "--missing-mos",
        "drop",
    ]
    assert vqa_train(*arguments, *words, monkeypatch=monkeypatch) == 0
    record = runs.open_run(tmp_path / "run")
    assert record.protocol["kind"] == "hash"
    assert record.members[0].seeds == [7]
    assert record.calibration is None
    assert record.config["missing_mos"] == "drop"
    assert record.config["features"] == {"clip": {"set": "fake", "output": "pooled"}}


def test_ctrl_c_says_how_to_go_on_and_resume_does(arguments: list[str], tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.replace("epochs: 6", "epochs: 300") + "protocol: {kind: kfold, k: 3}\n")
    often = "import vqa_train.heads.resume as resume; resume.SECONDS = 0.0"
    command = [sys.executable, "-c", f"{often}; from vqa_train.cli.main import main; main()", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not list(tmp_path.glob("run.partial/*.safetensors")):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert "run.partial; the same command with --resume goes on" in err
    assert err.count("\n") == 1
    recipe.write_text(recipe.read_text().replace("epochs: 300", "epochs: 6"))
    done = subprocess.run([*command, "--resume"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "had another recipe" in done.stderr
    recipe.write_text(recipe.read_text().replace("epochs: 6", "epochs: 300"))
    done = subprocess.run([*command, "--resume"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert not (tmp_path / "run.partial").exists()
