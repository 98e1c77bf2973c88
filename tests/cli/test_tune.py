"""vqa-train tune: what it prints, its JSON, and its exit codes."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vqa_train.cli import common, main

pytest.importorskip("optuna", reason="optuna is not installed")

RECIPE = """\
schema: vqa-train/fit/1
features: {features: {set: features}}
train: {epochs: 3, patience: null, validation: {fraction: 0}, head: {hidden: [4]}}
"""


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Any]:
    """`run(*arguments)`: exit code, stdout and stderr of `tune` on 60 imported rows, in tmp_path."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    mos = rng.uniform(1, 5, 60)
    lines = [f"v{i},{label:.3f},{label + rng.normal():.3f},{rng.normal():.3f}" for i, label in enumerate(mos)]
    (tmp_path / "f.csv").write_text("\n".join(["video_id,mos,f_0,f_1", *lines]) + "\n", encoding="utf-8")
    (tmp_path / "recipe.yaml").write_text(RECIPE, encoding="utf-8")

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["vqa-train", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            common.run(main.app)
        out, err = capsys.readouterr()
        return int(stopped.value.code or 0), out, err

    assert call("import-features", "f.csv", "--name", "mine", "--dataset", "mine", "--dim-columns", "f_*",
                "--output", "store", "--license", "x")[0] == 0  # fmt: skip
    return call


TUNE = (
    *("tune", "--config", "recipe.yaml", "--input", "features=mine", "--dataset", "mine", "--features", "store"),
    *("--study", "s.db", "--protocol", "kfold:k=2", "--trials", 2, "--batch", 1),
)


def test_prints_the_trials_and_what_comes_next(run: Any, tmp_path: Path) -> None:
    code, out, err = run(*TUNE, "--param", "lr=float:1e-3:1e-2:log", "--output", "best.yaml", "--json", "t.json")
    report = json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))
    assert code == 0
    assert report["schema"] == "vqa-train/tune-report/1"
    best, rows = report["best"], out.splitlines()
    assert rows[0] == "study mine-srocc: 2 trials with a value"
    assert rows[1] == f"SROCC: mean and deviation over 2 folds of the {report['objective']['rows']} training rows"
    assert rows[4].split() == ["trial", "SROCC", "std", "optimizer.lr"]
    assert rows[5].split()[:3] == [str(best["number"]), f"{best['value']:.4f}", f"{best['std']:.4f}"]
    own = report["recipe_itself"]["value"]
    assert f"best: trial 1, {best['value']:.4f}; the recipe itself has {own:.4f}" in out or (
        f"best: the recipe itself, {own:.4f}; no trial beat it" in out
    )
    assert "next: vqa-train fit --config best.yaml" in out
    assert err.splitlines()[-1] == f"2 of 2 trials, best {best['value']:.4f} (trial {best['number']})"
    # The recipe that is written is one that fit takes, with these features.
    run_it = ("fit", "--config", "best.yaml", "--features", "store", "--output", "run")
    assert run(*run_it)[0] == 0
    # A study that has its trials says so.
    _, _, err = run(*TUNE, "--param", "lr=float:1e-3:1e-2:log")
    assert err.startswith("the study has 2 of 2 trials")
    assert "raise --trials" in err


def test_what_varies_by_default_and_json_on_stdout(run: Any) -> None:
    code, out, _ = run(*TUNE, "--json", "-")
    assert code == 0
    assert set(json.loads(out)["space"]) == {
        "optimizer.lr", "optimizer.weight_decay", "head.dropout", "head.hidden",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("extra", "code", "message"),
    [
        (("--param", "lrr=float:1:2"), 2, "unknown parameter 'lrr' - did you mean 'lr'"),
        (("--param", "lr=1:2"), 2, "write NAME=float:LOW:HIGH"),
        (("--param", "dropout=float:0:2"), 1, "head.dropout=2.0"),
        (("--space", "no.yaml"), 1, "search space 'no.yaml' does not exist"),
        (("--objective", "sroc"), 2, "did you mean 'srocc'"),
        (("--protocol", "kfold:k=600"), 1, "at least k groups"),
        (("--input", "features"), 2, "is not NAME=SET[:OUTPUT]"),
        (("--study", "recipe.yaml"), 1, "cannot be opened as an Optuna study"),
    ],
)
def test_mistakes_are_one_line(run: Any, tmp_path: Path, extra: tuple[str, ...], code: int, message: str) -> None:
    found, out, err = run(*TUNE, *extra)
    assert (found, out) == (code, "")
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "s.db").exists()


def test_ctrl_c_says_where_the_trials_are(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from vqa_train.pipelines.tune.evaluate import Objective

    with monkeypatch.context() as patch:
        patch.setattr(Objective, "scores", lambda *_: signal.raise_signal(signal.SIGINT))
        code, out, err = run(*TUNE)
    assert (code, out) == (130, "")
    assert err == "interrupted: finished trials are in s.db; the same command goes on from there\n"
    code, out, _ = run(*TUNE)
    assert code == 0
    assert "2 trials with a value, 1 cut off" in out
