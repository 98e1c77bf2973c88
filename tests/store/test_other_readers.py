"""The one-liners of docs/store.md read a store as the page says, with the same numbers as our own reader."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "store.md"
BLOCKS = dict(re.findall(r"```python\n# (.+)\n((?:.*\n)*?)```", PAGE.read_text(encoding="utf-8")))


@pytest.fixture
def folder(features, make_row, monkeypatch):
    """A feature set's folder, with a row that two shards hold; the working folder."""
    spec = features.spec
    for numbers in ((0, 1), (1, 2)):
        features.append([make_row(spec, n, v) for n in numbers for v in (0, 1)], profile={}, run_id="r")
    monkeypatch.chdir(features.folder)
    return features


def run(name: str) -> dict:
    """The variables that a block of the page leaves."""
    variables: dict = {}
    exec(BLOCKS[name], variables)
    return variables


def test_the_page_shows_each_reader():
    assert list(BLOCKS) == ["Polars", "PyArrow", "DuckDB", "pandas", "vqa-train"]


def test_polars(folder):
    found = run("Polars")
    frame = found["frame"].with_row_index().sort("video_sha256", "view")
    assert len(frame) == 6
    np.testing.assert_array_equal(found["pooled"][frame["index"].to_numpy()], matrix(folder))
    assert frame["tokens"].to_numpy().shape == (6, 3, 2)


def test_pyarrow(folder):
    found = run("PyArrow")
    assert found["table"].num_rows == 8
    names = zip(found["table"]["video_sha256"].to_pylist(), found["table"]["view"].to_pylist(), strict=True)
    by_name = dict(zip(names, found["pooled"], strict=True))
    np.testing.assert_array_equal(np.stack([by_name[name] for name in sorted(by_name)]), matrix(folder))


@pytest.mark.skipif(find_spec("duckdb") is None, reason="duckdb is not installed")
def test_duckdb(folder):
    rows = sorted(run("DuckDB")["rows"])
    np.testing.assert_array_equal(np.array([row[2] for row in rows], np.float32), matrix(folder))


@pytest.mark.skipif(find_spec("pandas") is None, reason="pandas is not installed")
def test_pandas(folder):
    found = run("pandas")
    order = np.lexsort((found["frame"]["view"], found["frame"]["video_sha256"]))
    np.testing.assert_array_equal(found["pooled"][order], matrix(folder))


def test_our_own(folder):
    found = run("vqa-train")
    np.testing.assert_array_equal(found["pooled"], matrix(folder)[::2])
    assert found["table"].num_rows == 6


def matrix(features) -> np.ndarray:
    """The pooled output, float32 (6, 4), sorted by key and view."""
    return np.array(features.read(columns=["pooled"])["pooled"].to_pylist(), np.float32)
