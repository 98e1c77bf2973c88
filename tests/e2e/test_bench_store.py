"""Every step of tools/bench/bench_store.py runs, and its page says what was measured."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[2] / "tools" / "bench"


@pytest.fixture
def bench(monkeypatch):
    """The script as a module; its own folder is where it finds its page and the machine."""
    monkeypatch.syspath_prepend(str(BENCH))
    import bench_store

    yield bench_store
    for name in ("bench_store", "bench_store_page", "machine"):
        sys.modules.pop(name, None)


def test_each_step_measures_and_the_page_shows_it(bench, tmp_path):
    results = [
        {"rows": rows, **{step: bench.run_step(step, tmp_path / str(rows), rows) for step in bench.STEPS}}
        for rows in (300, 600)
    ]
    assert [result["compact"]["shards_after"] for result in results] == [1, 1]
    assert results[1]["lookup"]["seconds"] > 0
    report = {
        "dim": bench.DIM,
        "shard_rows": bench.SHARD_ROWS,
        "machine": bench.describe_machine(),
        "load_average": 1.0,
        "results": results,
        "exponents": bench.exponents(results, bench.STEPS),
        "wide": {},
    }
    page = bench.markdown(report)
    for step in bench.STEPS:
        assert f"| {step.replace('_', ' ')} |" in page


def test_an_exponent_is_the_slope_of_a_power_law(bench):
    results = [{"rows": n, "open": {"seconds": 3e-6 * n**1.5, "peak_mib": 50.0}} for n in (10, 100, 1000)]
    found = bench.exponents(results, ("open",))["open"]
    assert found["time"] == pytest.approx(1.5)
    assert found["time_last_decade"] == pytest.approx(1.5)
    assert found["memory"] == pytest.approx(0, abs=1e-9)
