"""check parity finds every planted defect by name, and passes nothing that it could not run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper
from typer.testing import CliRunner

from vqa_train.core.errors import ModelError, UsageError
from vqa_train.core.hashing import sha256_file
from vqa_train.onnx.external import attach_weights
from vqa_train.onnx.runtime import EXTERNAL_KEY, OnnxModel
from vqa_train.pipelines.gates.parity import ParityLimits, check_parity
from vqa_train.pipelines.gates.parity_compare import Provided, compare_graphs
from vqa_train.pipelines.gates.result import Check, GateReport

LIMITS = ParityLimits()


def verdicts(report: GateReport) -> dict[str, str]:
    return {check.name: check.verdict for check in report.checks}


def failed(report: GateReport) -> set[str]:
    return {check.name for check in report.checks if check.verdict == "fail"}


def named(report: GateReport, name: str) -> Check:
    return next(check for check in report.checks if check.name == name)


def tensor(model: Any, suffix: str) -> Any:
    (found,) = [entry for entry in model.graph.initializer if entry.name.endswith(suffix)]
    return found


def scale(suffix: str, factor: float) -> Callable[[Any], None]:
    """Multiply a tensor of the graph."""

    def change(model: Any) -> None:
        entry = tensor(model, suffix)
        entry.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(entry) * np.float32(factor), entry.name))

    return change


def flip(byte: int, bit: int) -> Callable[[Any], None]:
    """Change one bit of the largest tensor."""

    def change(model: Any) -> None:
        entry = max(model.graph.initializer, key=lambda one: len(one.raw_data))
        data = bytearray(entry.raw_data)
        data[byte] ^= 1 << bit
        entry.raw_data = bytes(data)

    return change


def swap_targets(model: Any) -> None:
    """Every output with its two columns exchanged."""
    for output in model.graph.output:
        for node in model.graph.node:
            node.output[:] = [f"{n}_straight" if n == output.name else n for n in node.output]
            node.input[:] = [f"{n}_straight" if n == output.name else n for n in node.input]
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 0], dtype=np.int64), "swap"))
    for output in model.graph.output:
        model.graph.node.append(helper.make_node("Gather", [f"{output.name}_straight", "swap"], [output.name], axis=1))


def test_an_honest_model_passes_every_part(fitted: Any) -> None:
    report = check_parity(str(fitted.model), LIMITS, checkpoint=fitted.run, features=fitted.store)
    assert report.verdict == "pass"
    assert list(verdicts(report)) == [
        "head.file", "head.interface", "torch.run", "torch.weights", "torch.scores", "torch.low", "torch.high",
        "head.cpu.scores", "head.cpu.low", "head.cpu.high", "golden.rows",
    ]  # fmt: skip
    # Something was compared: float32 sums in another order are not all equal.
    assert 0 < named(report, "torch.scores").value <= 1e-5
    assert {entry["rows_from"] for entry in report.details["sets"]} == {"real", "random", "extremes", "missing"}
    assert report.details["rows"] == "store"
    assert sum(report.details["providers"]["cpu"]["head"].values()) > 0
    json.dumps(report.to_json(), allow_nan=False)


def test_without_a_run_torch_is_not_run_and_that_is_no_pass(fitted: Any) -> None:
    report = check_parity(str(fitted.model), LIMITS)
    assert verdicts(report)["torch"] == "not_run"
    assert report.verdict == "not_run"
    assert report.details["rows"] == "golden"
    assert check_parity(str(fitted.model), LIMITS, checkpoint=fitted.run).details["rows"] == "run"
    assert check_parity(str(fitted.model), LIMITS, parts=["providers", "golden"]).verdict == "pass"


def test_swapped_outputs_are_caught(fitted: Any, retouch: Callable[..., Path], tmp_path: Path) -> None:
    path = retouch(fitted.copy(tmp_path), swap_targets)
    assert failed(check_parity(str(path), LIMITS, checkpoint=fitted.run)) == {
        "torch.scores", "torch.low", "torch.high", "golden.rows",
    }  # fmt: skip
    assert failed(check_parity(str(path), LIMITS)) == {"golden.rows"}


@pytest.mark.parametrize(("suffix", "factor"), [("input_std", 255.0), ("input_mean", 1.1)])
def test_wrong_normalisation_is_caught(
    suffix: str, factor: float, fitted: Any, retouch: Callable[..., Path], tmp_path: Path
) -> None:
    path = retouch(fitted.copy(tmp_path), scale(suffix, factor))
    found = failed(check_parity(str(path), LIMITS, checkpoint=fitted.run))
    assert found == {"torch.weights", "torch.scores", "torch.low", "torch.high", "golden.rows"}


def test_stale_weights_are_caught_where_the_run_was_fitted_again_by_the_same_recipe(fitted: Any) -> None:
    report = check_parity(str(fitted.model), LIMITS, checkpoint=fitted.later)
    assert failed(report) == {"torch.weights", "torch.scores", "torch.low", "torch.high"}
    assert "layers.weights.0" in named(report, "torch.weights").message or named(report, "torch.weights").value > 3


def test_the_run_of_another_recipe_is_named(fitted: Any, tmp_path: Path) -> None:
    from vqa_train.pipelines.fit import run as pipeline

    config = pipeline.parse_fit_config(
        {"schema": "vqa-train/fit/1", "features": {"video": {"set": "fake"}}, "train": {"epochs": 1}}, "recipe"
    )
    pipeline.fit(config, features=fitted.store, output=tmp_path / "other", dataset=str(fitted.manifest))
    report = check_parity(str(fitted.model), LIMITS, checkpoint=tmp_path / "other")
    assert {"torch.run", "torch.outputs"} == failed(report)
    assert "another run" in named(report, "torch.run").message


def test_a_run_that_was_changed_is_refused(fitted: Any, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(fitted.run, tmp_path / "run")
    weights = tmp_path / "run" / "head.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    report = check_parity(str(fitted.model), LIMITS, checkpoint=tmp_path / "run")
    assert failed(report) == {"torch.run"}
    assert "head.safetensors" in named(report, "torch.run").message


def test_a_flipped_byte_is_caught_by_the_hash(fitted: Any, tmp_path: Path) -> None:
    path = fitted.copy(tmp_path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x40
    path.write_bytes(bytes(data))
    report = check_parity(str(path), LIMITS, checkpoint=fitted.run)
    assert verdicts(report) == {"head.file": "fail"}
    assert "has sha256" in named(report, "head.file").message


def test_a_flipped_byte_under_a_new_hash_is_caught_by_the_numbers(
    fitted: Any, retouch: Callable[..., Path], tmp_path: Path
) -> None:
    # Byte 3 of a float32 holds its sign and most of its exponent.
    path = retouch(fitted.copy(tmp_path), flip(3, 5))
    assert failed(check_parity(str(path), LIMITS, checkpoint=fitted.run)) >= {
        "torch.weights", "torch.scores", "golden.rows",
    }  # fmt: skip


def test_a_flipped_bit_that_no_score_shows_is_caught_by_the_weights(
    fitted: Any, retouch: Callable[..., Path], tmp_path: Path
) -> None:
    path = retouch(fitted.copy(tmp_path), flip(0, 0))
    report = check_parity(str(path), LIMITS, checkpoint=fitted.run)
    assert failed(report) == {"torch.weights"}
    assert named(report, "torch.weights").value == 1


def rename(model: Any) -> None:
    """Give every tensor another name, as other exporters would."""
    names = {entry.name: f"t{number}" for number, entry in enumerate(model.graph.initializer)}
    for entry in model.graph.initializer:
        entry.name = names[entry.name]
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]


def test_weights_that_cannot_be_told_by_name_are_not_run_and_that_is_no_pass(
    fitted: Any, retouch: Callable[..., Path], tmp_path: Path
) -> None:
    report = check_parity(str(retouch(fitted.copy(tmp_path), rename)), LIMITS, checkpoint=fitted.run)
    assert named(report, "torch.weights").verdict == "not_run"
    assert report.verdict == "not_run"


@pytest.mark.parametrize("member", [{"head": {"kind": "linear"}}, {"head": {"kind": "kernel_ridge"}}, {"seeds": 2}])
def test_every_kind_of_head_has_its_weights_compared(member: dict[str, Any], fitted: Any, tmp_path: Path) -> None:
    from vqa_train.pipelines.export.run import export_run
    from vqa_train.pipelines.fit import run as pipeline

    train = {"epochs": 1, "patience": None, "validation": {"fraction": 0}, "head": {"hidden": [8]}}
    train |= {"head": member["head"]} if "head" in member else {}
    seeds = {"seeds": member["seeds"]} if "seeds" in member else {}
    recipe = {"schema": "vqa-train/fit/1", "features": {"video": {"set": "fake"}}, "train": train, **seeds}
    config = pipeline.parse_fit_config(recipe, "recipe")
    pipeline.fit(config, features=fitted.store, output=tmp_path / "run", dataset=str(fitted.manifest))
    export_run(tmp_path / "run", tmp_path / "head.onnx")
    report = check_parity(str(tmp_path / "head.onnx"), LIMITS, checkpoint=tmp_path / "run", parts=["torch"])
    assert named(report, "torch.weights").verdict == "pass"
    assert report.verdict == "pass"


def external(fitted: Any, folder: Path, retouch: Callable[..., Path], seed: int = 0) -> Path:
    """The model with its largest tensor in a file beside it, as `onnx.external` writes it."""
    import torch

    def move(model: Any) -> None:
        entry = max(model.graph.initializer, key=lambda one: len(one.raw_data))
        value = np.array(numpy_helper.to_array(entry))
        if seed:
            value += np.random.default_rng(seed).normal(size=value.shape).astype(np.float32)
        model.graph.initializer.remove(entry)
        model.graph.input.append(helper.make_tensor_value_info(entry.name, entry.data_type, list(value.shape)))
        attach_weights(model, {entry.name: torch.from_numpy(value)}, folder)

    folder.mkdir()
    return retouch(fitted.copy(folder), move)


def test_stale_external_weights_beside_a_new_graph_are_caught(
    fitted: Any, retouch: Callable[..., Path], tmp_path: Path
) -> None:
    path, older = external(fitted, tmp_path / "new", retouch), external(fitted, tmp_path / "old", retouch, seed=1)
    assert check_parity(str(path), LIMITS, checkpoint=fitted.run).verdict == "pass"
    (name,) = json.loads(OnnxModel(path).metadata[EXTERNAL_KEY])
    (stale,) = older.parent.glob("*.weights")
    (path.parent / name).write_bytes(stale.read_bytes())
    report = check_parity(str(path), LIMITS, checkpoint=fitted.run)
    assert verdicts(report) == {"head.file": "fail"}
    assert "weights" in named(report, "head.file").message


def test_a_provider_that_was_asked_for_and_is_not_installed_fails(fitted: Any) -> None:
    report = check_parity(str(fitted.model), LIMITS, parts=["providers"], providers=["cpu", "tensorrt"])
    assert failed(report) == {"head.tensorrt.provider"}
    assert "not installed" in named(report, "head.tensorrt.provider").message


@pytest.mark.parametrize(("arguments", "message"), [({"providers": ["cdua"]}, "cuda"), ({"parts": ["all"]}, "part")])
def test_an_unknown_name_is_a_usage_error(arguments: dict[str, list[str]], message: str, fitted: Any) -> None:
    with pytest.raises(UsageError, match=message):
        check_parity(str(fitted.model), LIMITS, **arguments)


def test_a_provider_that_computes_something_else_fails(fitted: Any) -> None:
    rng = np.random.default_rng(0)
    rows = {"some": {"video": rng.normal(size=(5, 256)).astype(np.float32)}}
    honest = {"some": OnnxModel(fitted.model, optimised=False).run(rows["some"])}
    graph = Provided("head", "cpu", fitted.model, sha256_file(fitted.model))
    checks, compared = compare_graphs(graph, rows, honest, 1e-5)
    assert {check.verdict for check in checks} == {"pass"}
    assert compared.nodes["CPUExecutionProvider"] > 3
    off = {"some": {name: values + (name == "low") * np.float32(1e-3) for name, values in honest["some"].items()}}
    checks, _ = compare_graphs(graph, rows, off, 1e-5)
    assert {check.name for check in checks if check.verdict == "fail"} == {"head.cpu.low"}
    broken = {"some": {name: values * np.float32("nan") for name, values in honest["some"].items()}}
    checks, _ = compare_graphs(graph, rows, broken, 1e-5)
    assert {check.verdict for check in checks} == {"fail"}


def test_a_feature_counts_against_its_own_size(fitted: Any) -> None:
    rng = np.random.default_rng(0)
    rows = {f"probe {i}": {"video": rng.normal(size=(1, 256)).astype(np.float32)} for i in range(3)}
    honest = {name: OnnxModel(fitted.model).run(inputs) for name, inputs in rows.items()}
    graph = Provided("backbone", "cpu", fitted.model, sha256_file(fitted.model))
    off = {name: {"scores": outputs["scores"] * np.float32(1.01)} for name, outputs in honest.items()}
    (check,), _ = compare_graphs(graph, rows, off, 1e-4, per_feature=True)
    assert check.verdict == "fail"
    assert check.value == pytest.approx(0.01 / 1.01, rel=0.05)


def test_a_model_whose_scores_are_constant_is_not_compared(
    fitted: Any, retouch: Callable[..., Path], tmp_path: Path
) -> None:
    path = retouch(fitted.copy(tmp_path), scale("input_varies", 0.0))
    report = check_parity(str(path), LIMITS, parts=["providers"])
    assert failed(report) == {"head.scores"}
    assert "the same for all random rows" in named(report, "head.scores").message


def test_backbones_of_a_registered_model_are_compared_and_a_flipped_byte_in_one_is_caught(registered: Path) -> None:
    parts = ["providers", "backbones", "golden"]
    report = check_parity("m", LIMITS, registry=registered, parts=parts)
    assert report.verdict == "pass"
    names = list(verdicts(report))
    assert [n.partition(".")[2] for n in names if n.startswith("tiny@")] == ["file", "cpu.pooled", "cpu.motion"]
    assert [n.partition(".")[2] for n in names if n.startswith("tiny-text@")] == ["file", "cpu.pooled"]
    (backbone,) = registered.glob("m/1/backbones/tiny@*")
    data = bytearray(backbone.read_bytes())
    data[len(data) // 2] ^= 1
    backbone.write_bytes(bytes(data))
    report = check_parity("m", LIMITS, registry=registered, parts=parts)
    assert failed(report) == {f"{backbone.stem}.file"}
    (tokenizer,) = registered.glob("m/1/tokenizers/*")
    tokenizer.write_bytes(tokenizer.read_bytes() + b" ")
    report = check_parity("m", LIMITS, registry=registered, parts=["backbones"])
    assert failed(report) == {f"{backbone.stem}.file", f"{tokenizer.stem}.file"}


def test_backbones_of_an_exported_model_cannot_be_run(fitted: Any) -> None:
    report = check_parity(str(fitted.model), LIMITS, parts=["backbones"])
    assert verdicts(report)["backbones"] == "not_run"
    assert report.verdict == "not_run"


def test_the_command_takes_tolerances_and_ends_with_3(fitted: Any, tmp_path: Path) -> None:
    from vqa_train.cli.main import app

    gates = tmp_path / "gates.yaml"
    gates.write_text("schema: vqa-train/gates/1\nparity: {tolerance_torch: 1.0e-12}\n")
    words = ["check", "parity", str(fitted.model), "--checkpoint", str(fitted.run), "--gates", str(gates)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 3
    assert "parity: FAIL" in done.stdout
    done = CliRunner().invoke(app, [*words, "--tolerance", "torch=1e-5", "--json", "-"])
    assert done.exit_code == 0
    assert json.loads(done.stdout)["verdict"] == "pass"
    done = CliRunner().invoke(app, [*words, "--tolerance", "torch"])
    assert isinstance(done.exception, UsageError)


def test_a_model_without_golden_rows_is_an_error(fitted: Any, tmp_path: Path) -> None:
    from vqa_train.registry.sidecar import GoldenRows, read_sidecar, sidecar_path, write_sidecar

    path = fitted.copy(tmp_path)
    sidecar = read_sidecar(sidecar_path(path))
    empty = sidecar.model_copy(update={"golden_rows": GoldenRows(inputs={}, scores=[])})
    write_sidecar(sidecar_path(path), empty)
    with pytest.raises(ModelError, match="golden rows"):
        check_parity(str(path), LIMITS)
    assert failed(check_parity(str(path), LIMITS, features=fitted.store)) == {"golden.rows"}
