"""profile measures in fresh processes, and a limit that does not hold fails."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper
from typer.testing import CliRunner

from vqa_train.core.errors import ModelError, UsageError
from vqa_train.pipelines.gates.profile import ProfileConfig, ProfileLimits, in_fresh_process, profile
from vqa_train.pipelines.gates.profile_child import peak_rss
from vqa_train.pipelines.gates.result import GateReport

QUICK: dict[str, Any] = {"batches": (1, 16), "threads": (1,), "runs": 60, "seconds": 0.01}
LOOSE = ProfileLimits(
    max_p50_us=1e6, max_p95_us=1e6, max_p99_us=1e6, min_rows_per_s=1, max_rss_mb=2000, max_size_mb=1, max_load_s=60
)


def failed(report: GateReport) -> set[str]:
    return {check.name for check in report.checks if check.verdict == "fail"}


def invented(**changes: Any) -> Callable[..., dict[str, Any]]:
    """What a child could have said."""

    def measure(job: Any) -> dict[str, Any]:
        if job["kind"] == "video":
            return {
                "wall_s": 9.0, "import_s": 1.0, "open_s": 1.0, "first_s": 1.0, "warm_s": [0.5] * job["warm_runs"],
                "rss_bytes": {"peak": 300_000_000},
            }  # fmt: skip
        return {
            "import_s": 0.1,
            "load_s": 0.1,
            "latency_us": {"runs": 9, "min": 1.0, "p50": 20.0, "p95": 30.0, "p99": 40.0},
            "rows_per_s": {str(batch): 1000.0 * batch * job["threads"] for batch in job["batches"]},
            "rss_bytes": {"imports": 50_000_000, "one_row": 60_000_000, "peak": 70_000_000},
            "wall_s": 1.0,
            **changes,
        }

    return measure


@pytest.fixture(scope="module")
def measured(fitted: Any) -> GateReport:
    return profile(ProfileConfig(model=str(fitted.model), **QUICK), LOOSE)


def test_numbers_are_those_of_one_process_that_only_scores(measured: GateReport, fitted: Any) -> None:
    assert measured.verdict == "pass"
    head = measured.details["head"]["1"]
    latency = head["latency_us"]
    assert 0 < latency["min"] <= latency["p50"] <= latency["p95"] <= latency["p99"]
    assert all(value > 0 for value in head["rows_per_s"].values())
    assert list(head["rows_per_s"]) == ["1", "16"]
    memory = head["rss_bytes"]
    assert memory["imports"] <= memory["one_row"] <= memory["peak"]
    assert measured.details["bytes"] == {"head": fitted.model.stat().st_size, "all": fitted.model.stat().st_size}
    json.dumps(measured.to_json(), allow_nan=False)


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="the system has no /proc")
def test_peak_memory_is_that_of_the_child_not_of_who_started_it() -> None:
    code = "from vqa_train.pipelines.gates.profile_child import peak_rss; print(peak_rss())"
    ballast = np.ones(40_000_000)
    child = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    mine = peak_rss()
    assert mine is not None
    assert mine > ballast.nbytes > 3 * child


@pytest.mark.parametrize(
    ("limit", "number"),
    [
        ("max_p50_us", 0.01), ("max_p95_us", 0.01), ("max_p99_us", 0.01), ("min_rows_per_s", 1e12), ("max_rss_mb", 1),
        ("max_size_mb", 0.001), ("max_load_s", 1e-7),
    ],
)  # fmt: skip
def test_a_limit_that_a_measurement_breaks_fails(limit: str, number: float, measured: GateReport, fitted: Any) -> None:
    def again(job: Any) -> dict[str, Any]:
        return dict(measured.details["head"]["1"])

    report = profile(
        ProfileConfig(model=str(fitted.model), **QUICK), LOOSE.model_copy(update={limit: number}), measure=again
    )
    assert failed(report) == {limit.partition("_")[2]}


def bloat(model: Any) -> None:
    """A graph with a constant of 64 MB that it adds, times zero, to its scores."""
    name = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = [f"{n}_straight" if n == name else n for n in node.output]
        node.input[:] = [f"{n}_straight" if n == name else n for n in node.input]
    rng = np.random.default_rng(0)
    tensors = {"ballast": rng.normal(size=16_000_000).astype(np.float32), "zero": np.zeros((1, 1), np.float32)}
    for tensor, array in tensors.items():
        model.graph.initializer.append(numpy_helper.from_array(array, tensor))
    model.graph.node.extend([
        helper.make_node("ReduceMax", ["ballast"], ["most"], keepdims=0),
        helper.make_node("Mul", ["most", "zero"], ["nothing"]),
        helper.make_node("Add", [f"{name}_straight", "nothing"], [name]),
    ])  # fmt: skip


def test_a_bloated_graph_breaks_limits_set_from_the_original(
    measured: GateReport, fitted: Any, retouch: Callable[..., Path], tmp_path: Path
) -> None:
    memory = measured.details["head"]["1"]["rss_bytes"]["peak"] / 1e6
    limits = ProfileLimits(max_size_mb=2 * measured.details["bytes"]["all"] / 1e6, max_rss_mb=memory + 40)
    assert profile(ProfileConfig(model=str(fitted.model), **QUICK), limits).verdict == "pass"
    path = retouch(fitted.copy(tmp_path), bloat)
    assert failed(profile(ProfileConfig(model=str(path), **QUICK), limits)) == {"size_mb", "rss_mb"}


def test_latency_is_held_for_the_first_threads_and_throughput_for_the_best(fitted: Any) -> None:
    config = ProfileConfig(model=str(fitted.model), batches=(1, 8), threads=(2, 1))
    limits = ProfileLimits(max_p50_us=20, max_p95_us=29, min_rows_per_s=16_000)
    report = profile(config, limits, measure=invented())
    assert [(c.name, c.value, c.verdict) for c in report.checks] == [
        ("p50_us", 20.0, "pass"), ("p95_us", 30.0, "fail"), ("rows_per_s", 16_000.0, "pass"),
    ]  # fmt: skip
    assert "2 threads" in report.checks[0].message


def test_without_limits_it_says_so_and_passes(fitted: Any) -> None:
    report = profile(ProfileConfig(model=str(fitted.model)), ProfileLimits(), measure=invented())
    assert [(c.name, c.verdict) for c in report.checks] == [("limits", "pass")]
    assert "no limits" in report.checks[0].message


def test_a_limit_on_what_was_not_measured_is_no_pass(fitted: Any) -> None:
    limits = ProfileLimits(max_cold_s=10, max_rss_mb=1000)
    unknown = invented(rss_bytes={"imports": None, "one_row": None, "peak": None})
    report = profile(ProfileConfig(model=str(fitted.model)), limits, measure=unknown)
    assert {c.name: c.verdict for c in report.checks} == {"rss_mb": "not_run", "cold_s": "not_run"}
    assert report.verdict == "not_run"


def test_a_child_that_fails_says_why(fitted: Any) -> None:
    job = {"kind": "head", "model": "m", "path": "none.onnx", "sha256": "0" * 64, "threads": 1}
    with pytest.raises(ModelError, match=r"measuring 'm' failed: .*'none.onnx' does not exist"):
        in_fresh_process(job)


def test_a_video_is_timed_cold_and_warm(registered: Path, tmp_path: Path, write_video: Callable[..., Path]) -> None:
    video = write_video(tmp_path / "clip.mp4", frames=8, size=(64, 96))
    jobs = []

    def measure(job: Any) -> dict[str, Any]:
        jobs.append(job)
        return in_fresh_process(job) if job["kind"] == "video" and job["warm_runs"] else invented()(job)

    config = ProfileConfig(model="m", registry=registered, video=video, prompt="a fox", warm_runs=2)
    limits = ProfileLimits(max_cold_s=9.5, max_warm_s=1e-6, max_video_rss_mb=1)
    report = profile(config, limits, measure=measure)
    found = report.details["video"]
    # Two of three processes are invented: the medians are theirs, what is warm was measured.
    assert (found["cold_s"], found["open_s"]) == (9.0, 1.0)
    assert 0 < found["warm_s"] < 60
    assert failed(report) == {"warm_s", "video_rss_mb"}
    assert [job["warm_runs"] for job in jobs if job["kind"] == "video"] == [2, 0, 0]
    assert set(report.details["bytes"]) >= {"head", "all"}
    assert sum("tokenizer" in name for name in report.details["bytes"]) == 1


def test_warm_runs_are_no_part_of_the_cold_time(registered: Path, tmp_path: Path) -> None:
    walls = iter([8.0, 10.0, 7.0])

    def measure(job: Any) -> dict[str, Any]:
        found = invented()(job)
        return found if job["kind"] == "head" else {**found, "wall_s": next(walls)}

    config = ProfileConfig(model="m", registry=registered, video=tmp_path / "clip.mp4", warm_runs=1)
    # 8 s less one warm run of half a second is the one in the middle.
    assert profile(config, ProfileLimits(), measure=measure).details["video"]["cold_s"] == 7.5


@pytest.mark.parametrize(("changes", "message"), [({"threads": (0,)}, "from 1 on"), ({"video": Path("a")}, "regist")])
def test_wrong_usage_is_said(changes: dict[str, Any], message: str, fitted: Any) -> None:
    with pytest.raises(UsageError, match=message):
        profile(ProfileConfig(model=str(fitted.model), **changes), ProfileLimits(), measure=invented())


def test_the_command_prints_and_ends_with_3(fitted: Any, tmp_path: Path) -> None:
    from vqa_train.cli.main import app

    gates = tmp_path / "gates.yaml"
    gates.write_text("schema: vqa-train/gates/1\nprofile: {max_size_mb: 0.001}\n")
    words = ["profile", str(fitted.model), "--threads", "1", "--batches", "1", "--runs", "10", "--gates", str(gates)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 3
    assert "rows/s at 1" in done.stdout
    assert "profile: FAIL" in done.stdout
    assert CliRunner().invoke(app, [*words, "--max-size-mb", "5", "--json", "-"]).exit_code == 0
