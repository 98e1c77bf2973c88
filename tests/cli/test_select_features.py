"""vqa-train select-features: what it prints, which sets it takes, its JSON, and its exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vqa_train.cli import common, main


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Any]:
    """`run(*arguments)`: exit code, stdout and stderr, in a folder with sets `good` and `bad` of 60 rows."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["vqa-train", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            common.run(main.app)
        out, err = capsys.readouterr()
        return int(stopped.value.code or 0), out, err

    rng = np.random.default_rng(0)
    mos = rng.uniform(1, 5, 60)
    for name, share in (("good", 1), ("bad", 0)):
        lines = [
            f"v{i},{label:.3f},{share * label + 0.5 * rng.normal():.3f},{rng.normal():.3f},{rng.normal():.3f}"
            for i, label in enumerate(mos)
        ]
        (tmp_path / "f.csv").write_text("\n".join(["video_id,mos,f_0,f_1,f_2", *lines]) + "\n", encoding="utf-8")
        assert call("import-features", "f.csv", "--name", name, "--dataset", "mine", "--dim-columns", "f_*",
                    "--output", "store", "--license", "x")[0] == 0  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(
        "schema: vqa-train/fit/1\nfeatures: {x: {set: bad}}\ntrain: {head: {kind: linear}}\n", encoding="utf-8"
    )
    return call


SELECT = ("select-features", "--features", "store", "--dataset", "mine", "--protocol", "kfold:k=2")
LINEAR = (*SELECT, "--config", "recipe.yaml")


def test_all_sets_of_the_store_by_default(run: Any, tmp_path: Path) -> None:
    code, out, err = run(*SELECT, "--output", "tables", "--json", "s.json", "--picture", "none")
    assert (code, err) == (0, "")
    report = json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))
    assert [entry["name"] for entry in report["sets"]] == ["bad", "good"]
    assert report["selected"] == ["good"]
    assert "fewest within one standard error of it: good" in out
    assert "debiased linear CKA: 1 the same" in out
    assert f"good  3        0         {report['sets'][1]['alone']['value']:.4f}" in out
    assert "columns that tell most about mos, 6 of 6" in out
    for name in ("columns", "redundancy", "forward"):
        assert f"written: tables/{name}.csv" in out


def test_one_set_is_asked_for_its_columns(run: Any) -> None:
    code, out, _ = run(*LINEAR, "--input", "only=good")
    assert code == 0
    assert "chosen in each fold by stepwise regression on the rows that train it" in out
    assert "fewest within one standard error of the best: 1; on all rows these are 0 f_0" in out
    assert "forward selection" not in out
    assert "redundancy" not in out


def test_a_recipe_says_which_sets_and_inputs_win_over_it(run: Any) -> None:
    report = json.loads(run(*LINEAR, "--json", "-")[1])
    assert [(entry["name"], entry["set"]) for entry in report["sets"]] == [("x", "bad")]
    report = json.loads(run(*LINEAR, "--input", "a=good", "--input", "b=bad", "--max-sets", "1", "--json", "-")[1])
    assert [entry["name"] for entry in report["sets"]] == ["a", "b"]
    assert [step["added"] for step in report["forward"]] == ["a"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (SELECT[:3], 2, "no dataset named - pass --dataset"),
        ((*SELECT[:3], "--input", "a=good"), 2, "no dataset named - pass --dataset"),
        ((*SELECT, "--input", "a=god"), 1, "has no feature set 'god'"),
        ((*SELECT, "--input", "a"), 2, "is not NAME=SET[:OUTPUT]"),
        ((*SELECT, "--picture", "gif"), 2, "must be svg, png or none"),
        ((*SELECT, "--objective", "sroc"), 2, "did you mean 'srocc'"),
        ((*SELECT, "--config", "no.yaml"), 1, "recipe 'no.yaml' does not exist"),
        ((*SELECT[:4], "no", *SELECT[5:]), 1, "no dataset 'no'"),
    ],
)
def test_mistakes_are_one_line(run: Any, arguments: tuple[str, ...], code: int, message: str) -> None:
    found, out, err = run(*arguments)
    assert (found, out) == (code, "")
    assert message in err
    assert err.count("\n") == 1
