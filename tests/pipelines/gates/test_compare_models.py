"""compare-models: its numbers are SciPy's and the bootstrap's own, and a requirement that does not hold fails."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import stats
from typer.testing import CliRunner

from vqa_train.core.errors import ConfigError, ModelError, UsageError
from vqa_train.pipelines.evaluate.model import evaluate_model
from vqa_train.pipelines.gates.compare_models import (
    CompareModelsLimits,
    CompareModelsResult,
    MeasuredOn,
    compare_models,
)
from vqa_train.pipelines.gates.config import gate_file, resolve
from vqa_train.registry.sidecar import read_sidecar, sidecar_path, write_sidecar


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """`good` and `weak` take other inputs and kept their test rows; `kfold` was fitted on all rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parent)
        release = importlib.import_module("release_set").make_set(tmp_path_factory.mktemp("compare") / "r", count=240)
    release.export(release.fit("good"))
    release.export(release.fit("weak", output="motion"))
    release.export(release.fit("kfold", protocol="kfold:k=5"))
    return release


@pytest.fixture
def run(made: Any) -> Callable[..., CompareModelsResult]:
    def run(first: str, second: str, *, split: str = "test", **limits: Any) -> CompareModelsResult:
        names = [str(made.root / "exported" / f"{name}.onnx") for name in (first, second)]
        on = MeasuredOn(features=made.store, datasets=[str(made.manifest)], split=split)
        return compare_models(*names, CompareModelsLimits(**{"resamples": 300, **limits}), on)

    return run


def check(result: CompareModelsResult, name: str) -> Any:
    return next(found for found in result.report.checks if found.name == name)


def test_values_are_scipys_over_the_same_rows(made: Any, run: Callable[..., CompareModelsResult]) -> None:
    lead = run("good", "weak", metrics=["srocc"]).leads[0]
    expected = []
    for name in ("good", "weak"):
        table = made.root / f"{name}.parquet"
        evaluate_model(
            str(made.root / "exported" / f"{name}.onnx"),
            features=made.store, datasets=[str(made.manifest)], predictions=table, resamples=0,
        )  # fmt: skip
        frame = pl.read_parquet(table)
        expected.append(stats.spearmanr(frame["predicted_overall"], frame["overall"]).statistic)
    assert lead.comparison.values == pytest.approx(expected)
    assert lead.value == pytest.approx(expected[0] - expected[1])
    assert lead.low < lead.value < lead.high


def test_a_lead_is_positive_for_what_is_better_of_an_error_too(run: Callable[..., CompareModelsResult]) -> None:
    one, other = (run(*pair, metrics=["rmse"]).leads[0] for pair in (("good", "weak"), ("weak", "good")))
    assert one.comparison.difference.value < 0 < one.value
    # Resamples are seeded by content in the order given, so the ends of the two are near, not equal.
    assert other.value == pytest.approx(-one.value)
    assert one.low == pytest.approx(-other.high, abs=0.1)


def test_without_a_requirement_nothing_fails(run: Callable[..., CompareModelsResult]) -> None:
    result = run("weak", "good", split="all")
    assert result.report.verdict == "pass"
    assert all("nothing is required" in found.message for found in result.report.checks)
    assert any(note.startswith("A: ") and "fitted on rows" in note for note in result.notes)


@pytest.mark.parametrize(
    ("first", "second", "limits", "verdict"),
    [
        ("good", "weak", {"require": "better"}, "pass"),
        ("weak", "good", {"require": "better"}, "fail"),
        ("good", "weak", {"require": "better", "metrics": ["srocc"], "margin": 0.9}, "fail"),
        ("good", "good", {"require": "better"}, "fail"),
        ("good", "weak", {"require": "not-worse"}, "pass"),
        ("good", "good", {"require": "not-worse"}, "pass"),
        ("weak", "good", {"require": "not-worse"}, "fail"),
        ("weak", "good", {"require": "not-worse", "metrics": ["srocc"], "margin": {"srocc": 0.9}}, "pass"),
    ],
)
def test_requirements(
    run: Callable[..., CompareModelsResult], first: str, second: str, limits: dict[str, Any], verdict: str
) -> None:
    assert run(first, second, **limits).report.verdict == verdict


def test_the_lower_end_of_the_lead_decides_not_the_lead(run: Callable[..., CompareModelsResult]) -> None:
    behind = run("weak", "good", metrics=["srocc"]).leads[0]
    between = -(behind.low + behind.value) / 2
    assert run("weak", "good", metrics=["srocc"], require="not-worse", margin=between).report.verdict == "fail"
    assert run("weak", "good", metrics=["srocc"], require="not-worse", margin=-behind.low).report.verdict == "pass"
    ahead = run("good", "weak", metrics=["srocc"]).leads[0]
    between = (ahead.low + ahead.value) / 2
    assert run("good", "weak", metrics=["srocc"], require="better", margin=between).report.verdict == "fail"


def test_a_wider_interval_is_less_sure(run: Callable[..., CompareModelsResult]) -> None:
    narrow, wide = (run("good", "weak", metrics=["srocc"], alpha=alpha).leads[0] for alpha in (0.4, 0.01))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_significance_is_corrected_over_all_that_is_compared(run: Callable[..., CompareModelsResult]) -> None:
    leads = run("good", "weak", metrics=["srocc", "plcc", "rmse"]).leads
    raw = sorted(lead.comparison.difference.p for lead in leads)
    assert min(lead.p for lead in leads) == pytest.approx(min(1.0, 3 * raw[0]))


def test_rows_that_a_model_was_fitted_on_fail_a_requirement(run: Callable[..., CompareModelsResult]) -> None:
    result = run("kfold", "weak", require="better")
    assert check(result, "A.unseen").verdict == "fail"
    assert "test rows of set too" in check(result, "A.unseen").message
    assert check(result, "B.unseen").verdict == "pass"
    assert check(run("good", "weak", require="better", split="all"), "B.unseen").verdict == "fail"


def test_a_model_that_does_not_tell_its_rows_is_no_pass(made: Any, run: Callable[..., CompareModelsResult]) -> None:
    source = made.root / "exported" / "good.onnx"
    silent = source.with_name("silent.onnx")
    silent.write_bytes(source.read_bytes())
    sidecar = read_sidecar(sidecar_path(source))
    block = {**sidecar.run_provenance, "entrypoint": "other"}
    write_sidecar(sidecar_path(silent), sidecar.model_copy(update={"run_provenance": block}))
    result = run("silent", "weak", require="better")
    assert (check(result, "A.unseen").verdict, result.report.verdict) == ("not_run", "not_run")


def test_another_manifest_than_at_the_fit_is_no_pass(made: Any, tmp_path: Path) -> None:
    # The same rows under another sha256: who knows which rows were test rows then.
    other = made.manifest.with_name("other.yaml")
    other.write_text(made.manifest.read_text() + "# edited\n")
    names = [str(made.root / "exported" / f"{name}.onnx") for name in ("good", "weak")]
    result = compare_models(
        *names,
        CompareModelsLimits(require="better", resamples=100),
        MeasuredOn(features=made.store, datasets=[str(other)]),
    )
    assert check(result, "A.unseen").verdict == "not_run"
    assert "has changed since the fit" in check(result, "A.unseen").message


def test_a_model_that_scores_only_some_rows_fails_by_coverage(
    run: Callable[..., CompareModelsResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    from vqa_train.onnx.runtime import OnnxModel

    real = OnnxModel.run

    def half(self: OnnxModel, inputs: dict[str, Any]) -> dict[str, Any]:
        outputs = real(self, inputs)
        if self.path.stem == "weak":
            outputs["scores"][::2] = np.nan
        return outputs

    monkeypatch.setattr(OnnxModel, "run", half)
    result = run("good", "weak", require="better")
    assert check(result, "A.coverage").value == 1
    assert check(result, "B.coverage").verdict == "fail"
    assert check(result, "B.coverage").value == pytest.approx(0.5, abs=0.05)


def test_wrong_arguments(run: Callable[..., CompareModelsResult]) -> None:
    with pytest.raises(UsageError, match="not in every model"):
        run("good", "weak", targets=["overal"])
    with pytest.raises(UsageError, match="cannot compare metric"):
        run("good", "weak", metrics=["sroc"])
    with pytest.raises(UsageError, match="unknown split"):
        run("good", "weak", split="tset")
    with pytest.raises(ModelError, match="does not exist"):
        run("good", "absent")
    with pytest.raises(ConfigError, match="'krocc', which is not compared"):
        resolve(CompareModelsLimits, "compare_models", None, {"margin": {"krocc": 0.1}})


def test_opposite_directions_are_refused(made: Any, run: Callable[..., CompareModelsResult]) -> None:
    source = made.root / "exported" / "weak.onnx"
    down = source.with_name("down.onnx")
    down.write_bytes(source.read_bytes())
    sidecar = read_sidecar(sidecar_path(source)).model_copy(update={"direction": "lower_is_better"})
    write_sidecar(sidecar_path(down), sidecar)
    with pytest.raises(UsageError, match="run the same way"):
        run("good", "down")


def test_the_command_exits_3_and_prints_both(made: Any) -> None:
    from vqa_train.cli.main import app

    arguments = [
        "compare-models", *(str(made.root / "exported" / f"{name}.onnx") for name in ("weak", "good")),
        "--features", str(made.store), "--dataset", str(made.manifest), "--metric", "srocc", "--resamples", "100",
    ]  # fmt: skip
    done = CliRunner().invoke(app, arguments)
    assert (done.exit_code, "weak" in done.output) == (0, True)
    failed = CliRunner().invoke(app, [*arguments, "--require", "not-worse", "--margin", "srocc=0.01"])
    assert failed.exit_code == 3
    assert "overall.srocc" in failed.output
    assert ">= -0.01" in failed.output


def test_the_gate_file_that_comes_along_is_valid() -> None:
    limits = resolve(CompareModelsLimits, "compare_models", Path("release"), {"metrics": ["srocc", "plcc"]})
    assert (limits.require, limits.margin_of("srocc"), limits.margin_of("rmse")) == ("not-worse", 0.02, 0.0)
    with pytest.raises(ConfigError, match="no gate file 'relase'.*release"):
        gate_file(Path("relase"))
