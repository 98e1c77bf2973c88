"""The one-liners of docs/reading.md read a store as the page says, with the same numbers as our own reader."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from vqa_train.core.errors import Reason
from vqa_train.store.rows import Failure

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reading.md"
BLOCKS = dict(re.findall(r"```python\n# (.+)\n((?:.*\n)*?)```", PAGE.read_text(encoding="utf-8")))


@pytest.fixture
def folder(features, make_row, monkeypatch, tmp_path):
    """A feature set's folder, with a row that two shards hold, and shards that a compaction replaced; its folder."""
    spec = features.spec
    for run, numbers in (("r", (0,)), ("r", (1,)), ("s", (1, 2))):
        features.append([make_row(spec, n, v) for n in numbers for v in (0, 1)], profile={}, run_id=run)
    features.add_failures([Failure(key=None, id="x", path="x.mp4", reason=Reason.TIMEOUT, message="m")] * 2, "r")
    assert features.compact().merged == 2
    monkeypatch.chdir(features.folder)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return features


def run(name: str) -> dict:
    """The variables that a block of the page leaves."""
    variables: dict = {}
    exec(BLOCKS[name], variables)
    return variables


def matrix(features) -> np.ndarray:
    """The pooled output, float32 (6, 4), sorted by key and view."""
    return np.array(features.read(columns=["pooled"])["pooled"].to_pylist(), np.float32)


def by_name(keys, views, pooled) -> dict:
    """(key, view) -> the pooled output."""
    return {(key, int(view)): tuple(map(float, row)) for key, view, row in zip(keys, views, pooled, strict=True)}


def expected(features) -> dict:
    """`by_name` of what our own reader gives."""
    table = features.read(columns=["video_sha256", "view"])
    return by_name(table["video_sha256"].to_pylist(), table["view"].to_pylist(), matrix(features))


def test_the_page_shows_each_reader():
    assert list(BLOCKS) == ["Polars", "DuckDB", "pandas", "PyArrow", "Hugging Face datasets", "JSON", "vqa-train"]


def test_polars(folder):
    found = run("Polars")
    frame = found["frame"]
    assert len(frame) == 6
    assert by_name(frame["video_sha256"], frame["view"], found["pooled"]) == expected(folder)
    assert frame["tokens"].to_numpy().shape == (6, 3, 2)


@pytest.mark.skipif(find_spec("duckdb") is None, reason="duckdb is not installed")
def test_duckdb(folder):
    found = run("DuckDB")
    rows = found["table"].to_pydict()
    assert len(rows["view"]) == 6
    assert by_name(rows["video_sha256"], rows["view"], rows["pooled"]) == expected(folder)
    durations = folder.read(columns=["duration_s"])["duration_s"].to_pylist()
    assert [seconds for _, seconds in found["longest"]] == sorted(set(durations), reverse=True)


@pytest.mark.skipif(find_spec("pandas") is None, reason="pandas is not installed")
def test_pandas(folder):
    found = run("pandas")
    frame = found["frame"]
    assert len(frame) == 6
    assert by_name(frame["video_sha256"], frame["view"], found["pooled"]) == expected(folder)


def test_pyarrow(folder):
    found = run("PyArrow")
    table = found["table"]
    assert table.num_rows == 8
    names = table["video_sha256"].to_pylist(), table["view"].to_pylist()
    assert by_name(*names, found["pooled"]) == expected(folder)


@pytest.mark.skipif(find_spec("datasets") is None, reason="datasets is not installed")
def test_hugging_face_datasets(folder):
    # In a process of its own: the library takes its cache folder from the environment when it is imported.
    script = BLOCKS["Hugging Face datasets"] + (
        "import sys\nassert pooled.dtype.name == 'float32'\n"
        "sys.stdout.write(json.dumps([rows['video_sha256'][:].tolist(), rows['view'][:].tolist(), pooled.tolist()]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    keys, views, pooled = json.loads(done.stdout)
    assert len(keys) == 8
    assert by_name(keys, views, pooled) == expected(folder)


@pytest.mark.skipif(find_spec("duckdb") is None, reason="duckdb is not installed")
def test_json(folder):
    found = run("JSON")
    assert sorted(found["runs"]) == [("r", 4), ("s", 4)]
    assert found["reasons"] == [("timeout", 2)]


def test_our_own(folder):
    found = run("vqa-train")
    np.testing.assert_array_equal(found["pooled"], matrix(folder)[::2])
    assert found["table"].num_rows == 6
