"""quantize keeps an int8 head only within its budget, on rows that were held out, with a sidecar that tells."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper
from scipy import stats
from typer.testing import CliRunner

from vqa_train.core.errors import ModelError, UsageError
from vqa_train.datasets.load import load_dataset
from vqa_train.onnx.runtime import OnnxModel
from vqa_train.pipelines.evaluate.seen_rows import keeps_test_rows
from vqa_train.pipelines.fit.data import with_splits
from vqa_train.pipelines.gates import quantize as gate
from vqa_train.pipelines.gates.parity import ParityLimits, check_parity
from vqa_train.pipelines.gates.quantize import QuantizeConfig, QuantizeLimits, quantize
from vqa_train.pipelines.gates.result import GateReport
from vqa_train.registry.sidecar import read_sidecar, sidecar_path, write_sidecar
from vqa_train.store.store import FeatureStore

# The made labels are noisy and few: what is tested is the gate, not the head.
LIMITS = QuantizeLimits(max_srocc_drop=0.02, max_plcc_drop=0.02, max_rmse_rise=0.02)


def failed(report: GateReport) -> set[str]:
    return {check.name for check in report.checks if check.verdict == "fail"}


def config(fitted: Any, output: Path, **changes: Any) -> QuantizeConfig:
    fields = {"model": str(fitted.model), "features": fitted.store, "datasets": [str(fitted.manifest)]}
    return QuantizeConfig(**{**fields, "output": output, **changes})


@pytest.mark.parametrize("method", ["dynamic", "static"])
def test_an_int8_model_within_its_budget_is_written(method: str, fitted: Any, tmp_path: Path) -> None:
    report = quantize(config(fitted, tmp_path / "q.onnx", method=method), LIMITS)
    assert report.verdict == "pass", report.checks
    json.dumps(report.to_json(), allow_nan=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["q.json", "q.onnx"]
    sidecar, original = read_sidecar(tmp_path / "q.json"), read_sidecar(sidecar_path(fitted.model))
    assert sidecar.quantization is not None
    assert (sidecar.quantization["of"], sidecar.quantization["method"]) == (original.onnx.sha256, method)
    assert sidecar.quantization["calibration_rows"] == (0 if method == "dynamic" else report_rows(fitted, "train"))
    assert (sidecar.name, sidecar.registered, sidecar.calibration) == ("q", False, original.calibration)
    assert sidecar.golden_rows.scores != original.golden_rows.scores
    # Which rows it was fitted on is still told.
    assert keeps_test_rows(sidecar) is True
    parity = check_parity(str(tmp_path / "q.onnx"), ParityLimits(), parts=["providers", "golden"])
    assert parity.verdict == "pass"
    (torch,) = [c for c in check_parity(str(tmp_path / "q.onnx"), ParityLimits()).checks if c.name == "torch"]
    assert (torch.verdict, "quantised" in torch.message) == ("not_run", True)


def report_rows(fitted: Any, split: str) -> int:
    return sum(video.split == split for video in with_splits(load_dataset(str(fitted.manifest))))


def test_the_numbers_are_those_of_scipy_on_the_test_rows(fitted: Any, tmp_path: Path) -> None:
    report = quantize(config(fitted, tmp_path / "q.onnx"), LIMITS)
    videos = [v for v in with_splits(load_dataset(str(fitted.manifest))) if v.split == "test"]
    rows = FeatureStore.open(fitted.store).find("fake").matrix("pooled", [v.sha256 for v in videos])
    labels = np.asarray([[v.labels[t] for t in ("overall", "detail")] for v in videos])
    for k, target in enumerate(("overall", "detail")):
        numbers = report.details["targets"][target]
        assert numbers["rows"] == len(videos)
        for kind, path in (("float", fitted.model), ("int8", tmp_path / "q.onnx")):
            outputs = OnnxModel(path).run({"video": rows})
            scores, label = outputs["scores"][:, k].astype(float), labels[:, k]
            assert numbers["srocc"][kind] == pytest.approx(stats.spearmanr(scores, label).statistic, abs=1e-9)
            assert numbers["plcc"][kind] == pytest.approx(stats.pearsonr(scores, label).statistic, abs=1e-6)
            assert numbers["rmse"][kind] == pytest.approx(np.sqrt(np.mean((scores - label) ** 2)), rel=1e-5)
            inside = (outputs["low"][:, k] <= label) & (label <= outputs["high"][:, k])
            assert numbers["coverage"][kind] == pytest.approx(inside.mean())
        rise = (numbers["rmse"]["int8"] - numbers["rmse"]["float"]) / 4
        assert numbers["rmse_rise"] == pytest.approx(rise)


def test_calibration_on_rows_of_a_wrong_scale_breaks_the_budget(
    fitted: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = gate.quantise

    def dimmed(source: Path, target: Path, method: Any, rows: Any, **more: Any) -> Any:
        return honest(source, target, method, {name: array / 255 for name, array in rows.items()}, **more)

    monkeypatch.setattr(gate, "quantise", dimmed)
    report = quantize(config(fitted, tmp_path / "q.onnx", method="static"), LIMITS)
    assert {"overall.rmse_rise", "detail.rmse_rise"} <= failed(report)
    assert report.details["written"] is False
    assert not list(tmp_path.glob("q*"))


def test_corrupted_int8_weights_break_the_budget_and_leave_no_file(
    fitted: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnx

    honest = gate.quantise

    def corrupt(source: Path, target: Path, *rest: Any, **more: Any) -> Any:
        made = honest(source, target, *rest, **more)
        model = onnx.load(target)
        weights = max(model.graph.initializer, key=lambda one: one.data_type == 3 and len(one.raw_data))
        value = np.roll(numpy_helper.to_array(weights), 1, axis=0)
        weights.CopyFrom(numpy_helper.from_array(value, weights.name))
        onnx.save(model, target)
        return made

    monkeypatch.setattr(gate, "quantise", corrupt)
    report = quantize(config(fitted, tmp_path / "q.onnx"), LIMITS)
    assert {"overall.srocc_drop", "overall.plcc_drop", "overall.rmse_rise"} <= failed(report)
    assert list(tmp_path.iterdir()) == []


def test_each_limit_can_fail(fitted: Any, tmp_path: Path) -> None:
    for change, name in (({"max_size": 0.01}, "size"), ({"min_rows": 10_000}, "overall.rows")):
        report = quantize(config(fitted, tmp_path / "q.onnx"), LIMITS.model_copy(update=change))
        assert name in failed(report)
        assert not (tmp_path / "q.onnx").exists()


def test_rows_that_the_model_was_fitted_on_are_no_held_out_rows(fitted: Any, tmp_path: Path) -> None:
    # As a recipe that leaves no test rows records it.
    path = fitted.copy(tmp_path)
    sidecar = read_sidecar(sidecar_path(path))
    block = {**sidecar.run_provenance, "counts": {"test": 0}}
    write_sidecar(sidecar_path(path), sidecar.model_copy(update={"run_provenance": block}))
    seen = config(fitted, tmp_path / "q.onnx", model=str(path))
    assert failed(quantize(seen, LIMITS)) == {"held-out"}
    assert not (tmp_path / "q.onnx").exists()
    assert quantize(seen, LIMITS.model_copy(update={"allow_seen_rows": True})).verdict == "pass"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "int4"}, "unknown method"),
        ({"split": "train"}, "not held out"),
        ({"output": Path("q.bin")}, "must end in .onnx"),
    ],
)
def test_wrong_usage_is_said(changes: dict[str, Any], message: str, fitted: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        quantize(config(fitted, **{"output": tmp_path / "q.onnx", **changes}), LIMITS)


def test_what_is_int8_already_and_the_model_itself_are_refused(fitted: Any, tmp_path: Path) -> None:
    quantize(config(fitted, tmp_path / "q.onnx"), LIMITS)
    with pytest.raises(UsageError, match="quantised already"):
        quantize(config(fitted, tmp_path / "qq.onnx", model=str(tmp_path / "q.onnx")), LIMITS)
    with pytest.raises(UsageError, match="the model itself"):
        quantize(config(fitted, fitted.model), LIMITS)


def test_nothing_worth_quantising_is_said(fitted: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vqa_train.onnx.quantise.MIN_BYTES", 10_000_000)
    with pytest.raises(ModelError, match="nothing worth quantising"):
        quantize(config(fitted, tmp_path / "q.onnx"), LIMITS)
    assert list(tmp_path.iterdir()) == []


def test_the_quantised_model_can_be_registered_and_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_video: Callable[..., Path]
) -> None:
    """On a store of a real backbone's features, as a user has it."""
    from vqa_train import backbones
    from vqa_train.pipelines.models.register import RegisterConfig, register
    from vqa_train.registry.registry import ModelRegistry

    tests = Path(__file__).parents[2]
    monkeypatch.syspath_prepend(tests / "registry")
    tiny = importlib.import_module("tiny_model")
    monkeypatch.setattr(backbones.BACKBONES, "_builtin", tiny.BUILTIN)
    monkeypatch.setattr("vqa_train.onnx.quantise.MIN_BYTES", 0)
    monkeypatch.setattr("vqa_train.onnx.quantise.MIN_WEIGHTS", 10)
    monkeypatch.setattr("vqa_train.onnx.quantise.MIN_SHARE", 0.0)
    from vqa_train.onnx.quantise import quantise
    from vqa_train.pipelines.export.run import golden_rows
    from vqa_train.registry.sidecar import OnnxFile

    model = tiny.export_tiny(tmp_path / "m.onnx", ensemble=True)
    made = quantise(model, tmp_path / "q.onnx", "dynamic")
    sidecar = read_sidecar(sidecar_path(model))
    rows = {n: np.asarray(v, np.float32) for n, v in sidecar.golden_rows.inputs.items()}
    changes = {
        "name": "q",
        "onnx": OnnxFile(file="q.onnx", sha256=made.sha256, bytes=made.bytes, opset=made.opset),
        "golden_rows": golden_rows(made.path, rows, tolerance=2.5e-3),
        "quantization": {
            "method": "dynamic",
            "of": sidecar.onnx.sha256,
            "targets": {"overall": {"srocc": [0.91, 0.9], "rmse": [0.3, 0.31], "rows": 108}},
        },
    }
    write_sidecar(tmp_path / "q.json", sidecar.model_copy(update=changes))
    register(
        RegisterConfig(
            model=made.path, registry=tmp_path / "model", kind="nr", dataset="ladder", license="MIT",
            train_commit="unknown",
        )
    )  # fmt: skip
    found, folder = ModelRegistry(tmp_path / "model").find("q")
    assert found.quantization == changes["quantization"]
    card = (folder / "README.md").read_text()
    assert f"int8 (dynamic quantisation of the graph with sha256 `{sidecar.onnx.sha256[:12]}`)" in card
    assert "- `overall`: SROCC 0.910 to 0.900, RMSE 0.300 to 0.310, on 108 held-out rows" in card
    from vqa_train.scoring import Scorer

    video = write_video(tmp_path / "clip.mp4", frames=8, size=(64, 96))
    with Scorer("q", registry=tmp_path / "model") as scorer:
        scores = scorer.score(video).scores
    expected = tiny.torch_outputs(video)["scores"]
    assert scores == pytest.approx(expected, abs=0.2)


def test_the_command_writes_a_file_or_ends_with_3(fitted: Any, tmp_path: Path) -> None:
    from vqa_train.cli.main import app

    gates = tmp_path / "gates.yaml"
    gates.write_text(
        "schema: vqa-train/gates/1\nquantize: {max_srocc_drop: 0.02, max_plcc_drop: 0.02, max_rmse_rise: 0.02}\n"
    )
    words = [
        "quantize", str(fitted.model), "--features", str(fitted.store), "--dataset", str(fitted.manifest),
        "--output", str(tmp_path / "q.onnx"), "--gates", str(gates),
    ]  # fmt: skip
    done = CliRunner().invoke(app, [*words, "--max-size", "0.01"])
    assert (done.exit_code, (tmp_path / "q.onnx").exists()) == (3, False)
    assert "not written" in done.stdout
    done = CliRunner().invoke(app, words)
    assert (done.exit_code, (tmp_path / "q.onnx").exists()) == (0, True)
    done = CliRunner().invoke(app, [*words, "--json", str(tmp_path / "q.json")])
    assert isinstance(done.exception, UsageError)
