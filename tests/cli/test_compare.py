"""`vqa-train compare` prints every pair, what it rests on, and writes the same as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from vqa_train.cli import common
from vqa_train.cli.main import app


@pytest.fixture
def tables(tmp_path: Path) -> list[Path]:
    mos = np.random.default_rng(0).uniform(1, 5, 100)
    paths = []
    for seed, (name, noise) in enumerate((("good", 0.2), ("bad", 1.5))):
        data = {
            "id": [f"v{i}" for i in range(100)],
            "fold": [f"f{i % 10}" for i in range(100)],
            "mos": mos,
            "predicted_mos": mos + np.random.default_rng(seed).normal(0, noise, 100),
        }
        paths.append(tmp_path / f"{name}.parquet")
        pl.DataFrame(data).write_parquet(paths[-1])
    return paths


def run(monkeypatch: Any, capsys: Any, *arguments: Any) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.argv", ["vqa-train", "compare", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        common.run(app)
    out, err = capsys.readouterr()
    return int(stopped.value.code or 0), out, err


def test_the_table_names_tests_differences_and_who_is_ahead(tables: list[Path], monkeypatch: Any, capsys: Any) -> None:
    code, out, err = run(monkeypatch, capsys, *tables, "--metric", "srocc", "--resamples", 200)
    assert (code, err) == (0, "")
    lines = [line.split() for line in out.splitlines() if line.startswith("mos")]
    assert len(lines) == 3
    assert {line[-1] for line in lines} == {"good"}
    for text in (
        "100 rows, over 10 folds",
        "paired bootstrap",
        "Wilcoxon",
        "corrected t",
        "p Holm",
        "pools the held-out",
    ):
        assert text in out


def test_the_document_says_what_the_table_says(tables: list[Path], monkeypatch: Any, capsys: Any) -> None:
    code, out, _ = run(monkeypatch, capsys, *tables, "--metric", "rmse", "--resamples", 50, "--json", "-")
    assert code == 0
    document = json.loads(out)
    assert list(document["models"]) == ["good", "bad"]
    assert {item["better"] for item in document["comparisons"]} == {"good"}
    assert document["folds"] == 10


def test_one_model_is_wrong_usage(tables: list[Path], monkeypatch: Any, capsys: Any) -> None:
    code, out, err = run(monkeypatch, capsys, tables[0])
    assert (code, out) == (2, "")
    assert "got 1 model" in err
