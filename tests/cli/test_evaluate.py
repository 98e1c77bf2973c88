"""`vqa-train eval` as a user meets it: tables of stored predictions, options that do not go together, JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from vqa_train.cli import common
from vqa_train.cli.main import app


@pytest.fixture
def run(monkeypatch: Any, capsys: Any) -> Callable[..., tuple[int, str, str]]:
    """`run(*arguments)`: exit code, stdout, stderr of the command."""

    def call(*arguments: Any) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["vqa-train", "eval", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            common.run(app)
        out, err = capsys.readouterr()
        return int(stopped.value.code or 0), out, err

    return call


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    mos = rng.uniform(1, 5, 40)
    path = tmp_path / "t.csv"
    one, two = mos + rng.normal(0, 0.5, 40), mos + rng.normal(0, 0.5, 40)
    frame = {"mos": mos, "one": one, "two": two, "mos_std": np.full(40, 0.6), "scene": [f"s{i % 8}" for i in range(40)]}
    pl.DataFrame(frame).write_csv(path)
    return path


def test_a_table_prints_its_numbers_and_notes(run: Any, table: Path) -> None:
    code, out, err = run("--table", table, "--label", "mos", "--prediction", "one", "--resamples", 50)
    assert (code, err) == (0, "")
    assert "95 % intervals over rows, mapped by logistic4" in out
    assert "SROCC" in out
    assert "RMSE mapped" in out
    assert "without the labels' confidence intervals" in out
    assert "C0" not in out.replace("c0", "")


def test_votes_and_groups_add_columns_and_rows(run: Any, table: Path) -> None:
    options = ("--votes", 20, "--group-column", "scene", "--per-group", "--mapping", "linear", "--resamples", 20)
    code, out, _ = run("--table", table, "--label", "mos", "--prediction", "one", *options)
    assert code == 0
    for text in ("outlier ratio mapped", "RMSE* mapped", "AUC better/worse", "C0", "group", "s7", "mapped by linear"):
        assert text in out
    assert "all/s0/mos: only 5 rows" in out


def test_without_mapping_no_mapped_column_is_printed(run: Any, table: Path) -> None:
    code, out, _ = run("--table", table, "--label", "mos", "--prediction", "one", "--mapping", "none")
    assert code == 0
    assert "mapped" not in out.replace("_mapped", "")


def test_fused_predictions_and_dmos_in_the_document(run: Any, table: Path) -> None:
    options = ("--fuse", "one=0.5", "--fuse", "two=0.5", "--zscore", "--lower-is-better", "--opposed", "--json", "-")
    code, out, _ = run("--table", table, "--label", "mos", "--prediction", "one", "--prediction", "two", *options)
    assert code == 0
    document = json.loads(out)
    assert document["directions"] == {"mos": "lower_is_better"}
    assert document["table"]["fuse"] == {"one": 0.5, "two": 0.5}
    assert document["table"]["prediction_direction"] == "higher_is_better"
    assert document["results"][0]["metrics"]["vquala"]["value"] > 0.8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name what to measure - either --model with --features, or --table with --label"),
        (("--table", "t.csv", "--model", "m.onnx"), "name what to measure"),
        (("--model", "m.onnx"), "--model needs --features"),
        (
            ("--model", "m.onnx", "--features", "s", "--label", "mos", "--zscore"),
            "--label, --zscore cannot go with --m",
        ),
        (("--table", "t.csv", "--features", "s"), "--features cannot go with --table"),
        (("--table", "t.csv", "--label", "mos", "--fuse", "one"), "--fuse 'one': expected NAME=VALUE"),
        (("--table", "t.csv", "--label", "mos", "--fuse", "one=half"), "expected a number after '='"),
        (("--table", "t.csv", "--label", "mos", "--fuse", "a=1", "--fuse", "a=2"), "--fuse names 'a' twice"),
        (("--model", "m.onnx", "--features", "s", "--votes", "many"), "--votes must be a number with --model"),
        (("--table", "absent.csv", "--label", "mos"), "does not exist"),
    ],
)
def test_wrong_usage_is_one_line_and_code_2(run: Any, arguments: tuple[str, ...], message: str) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_dovers_stored_predictions_are_measured_as_documented(run: Any, shared: Path) -> None:
    path = shared / "data" / "konvid1k_doverpred.parquet"
    if not path.is_file():
        pytest.skip("konvid1k_doverpred.parquet is not in ../shared/data")
    code, out, _ = run(
        "--table", path, "--label", "mos", "--prediction", "features", "--columns", "aesthetic,technical",
        "--fuse", "technical=0.540", "--fuse", "aesthetic=0.460", "--zscore", "--resamples", 0, "--json", "-",
    )  # fmt: skip
    assert code == 0
    metrics = json.loads(out)["results"][0]["metrics"]
    for name, expected in (("srocc", 0.8828), ("plcc", 0.8835), ("plcc_mapped", 0.8862)):
        assert metrics[name]["value"] == pytest.approx(expected, abs=5e-4)
