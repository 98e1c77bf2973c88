"""`vqa-train report` writes one page, says what is on it and what is not, and how to mend a wrong call."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vqa_train.cli import common
from vqa_train.cli.main import app
from vqa_train.core.files import atomic_write_json


def run(monkeypatch: Any, capsys: Any, *arguments: Any) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.argv", ["vqa-train", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        common.run(app)
    out, err = capsys.readouterr()
    return int(stopped.value.code or 0), out, err


@pytest.fixture
def finished(tmp_path: Path, monkeypatch: Any, capsys: Any) -> Path:
    """A run of imported features; its store is `store` beside it."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    mos = rng.uniform(1, 5, 60)
    np.savez("table.npz", id=[f"v{i}" for i in range(60)], mos=mos, f=mos[:, None] + rng.normal(size=(60, 3)))
    code, _, err = run(
        monkeypatch, capsys, "import-features", "table.npz", "--name", "made", "--dataset", "set", "--id-column", "id",
        "--features-column", "f", "--output", "store",
    )  # fmt: skip
    assert code == 0, err
    recipe = {
        "schema": "vqa-train/fit/1", "features": {"made": {"set": "made"}}, "protocol": "kfold:k=3",
        "train": {"head": {"kind": "linear"}},
    }  # fmt: skip
    atomic_write_json(Path("recipe.yaml"), recipe)
    code, _, err = run(
        monkeypatch, capsys, "fit", "--config", "recipe.yaml", "--dataset", "set", "--features", "store",
        "--output", "run",
    )  # fmt: skip
    assert code == 0, err
    return tmp_path / "run"


def test_it_says_what_is_on_the_page_and_what_is_not(finished: Path, monkeypatch: Any, capsys: Any) -> None:
    code, out, err = run(monkeypatch, capsys, "report", "run", "--output", "r.html")
    assert (code, err) == (0, "")
    assert out.startswith("r.html: run, 0.")
    assert "Feature importance" in out.splitlines()[0]
    assert "note: feature importance needs the features: pass --features STORE" in out.splitlines()
    assert Path("r.html").stat().st_size > 50_000
    code, out, err = run(
        monkeypatch, capsys, "report", "run", "--output", "r.html", "--features", "store", "--json", "-"
    )
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["schema"] == "vqa-train/report/1"
    assert found["bytes"] == Path("r.html").stat().st_size
    assert not [note for note in found["notes"] if "importance" in note]


def test_a_wrong_call_is_one_line(finished: Path, monkeypatch: Any, capsys: Any) -> None:
    code, out, err = run(monkeypatch, capsys, "report", "nosuch", "--output", "r.html")
    assert (code, out) == (1, "")
    assert err.startswith("error: 'nosuch' is no run folder; ")
    assert len(err.splitlines()) == 1
    code, _, err = run(monkeypatch, capsys, "report", "run", "--output", "r.txt")
    assert code == 2
    assert err == "error: --output 'r.txt' must end in .html\n"
    assert not Path("r.html").exists()
