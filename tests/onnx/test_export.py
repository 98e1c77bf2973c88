"""Exported files are self-contained, anonymous, deterministic and of the operator set asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import vqa_train.onnx.export as export
from vqa_train.core.errors import ModelError
from vqa_train.core.hashing import sha256_file
from vqa_train.onnx.export import Exported, export_module
from vqa_train.onnx.runtime import OnnxModel


class TwoInputs(nn.Module):
    """A head with two inputs, dropout and a data-independent branch."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(4, 8), nn.Linear(3, 8)
        self.last = nn.Sequential(nn.Dropout(0.9), nn.ReLU(), nn.Linear(8, 2))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.last(self.first(a) + self.second(b))


def export_two(path: Path, module: nn.Module | None = None, opset: int = 17) -> Exported:
    return export_module(
        module or TwoInputs(), (torch.zeros(2, 4), torch.zeros(2, 3)), path, input_names=["a", "b"],
        output_names=["scores"], dynamic_axes={n: {0: "batch"} for n in ("a", "b", "scores")}, opset=opset,
        metadata={"targets": ["overall", "temporal"]},
    )  # fmt: skip


def test_the_file_is_what_the_result_says(tmp_path: Path) -> None:
    exported = export_two(tmp_path / "m.onnx")
    assert exported.sha256 == sha256_file(exported.path)
    assert exported.bytes == exported.path.stat().st_size
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


@pytest.mark.parametrize("opset", [17, 18])
def test_opset_and_names_are_those_asked_for(tmp_path: Path, opset: int) -> None:
    model = OnnxModel(export_two(tmp_path / "m.onnx", opset=opset).path)
    assert (model.opset, list(model.inputs), list(model.outputs)) == (opset, ["a", "b"], ["scores"])
    assert model.metadata == {"targets": '["overall","temporal"]'}


def test_dropout_is_off_in_the_file_and_the_module_keeps_its_mode(tmp_path: Path) -> None:
    module = TwoInputs().train()
    path = export_two(tmp_path / "m.onnx", module).path
    assert module.training
    module.eval()
    a, b = torch.randn(5, 4), torch.randn(5, 3)
    got = OnnxModel(path).run({"a": a.numpy(), "b": b.numpy()})["scores"]
    np.testing.assert_allclose(got, module(a, b).detach().numpy(), atol=1e-6)


def test_the_same_weights_give_the_same_bytes_in_any_process(tmp_path: Path) -> None:
    here = [export_two(tmp_path / f"{i}.onnx").sha256 for i in range(2)]
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import test_export; from pathlib import Path\n"
        f"print(test_export.export_two(Path({str(tmp_path / 'there.onnx')!r})).sha256)"
    )
    there = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120, cwd=tmp_path
    )
    assert {*here, there.stdout.strip()} == {here[0]}


def test_other_weights_give_other_bytes(tmp_path: Path) -> None:
    module = TwoInputs()
    with torch.no_grad():
        module.first.bias[0] += 1
    assert export_two(tmp_path / "a.onnx").sha256 != export_two(tmp_path / "b.onnx", module).sha256


def test_no_path_of_this_machine_and_no_source_line_is_in_the_file(tmp_path: Path) -> None:
    data = export_two(tmp_path / "m.onnx").path.read_bytes()
    for trace in (str(Path.cwd()), str(Path.home()) + "/", "site-packages", "test_export", str(tmp_path), ".py"):
        assert trace.encode() not in data


def test_a_path_in_the_metadata_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="machine path"):
        export_module(
            nn.Linear(1, 1), torch.zeros(1, 1), tmp_path / "m.onnx", input_names=["x"], output_names=["y"],
            dynamic_axes={}, metadata={"made": str(Path.cwd() / "runs")},
        )  # fmt: skip
    assert not (tmp_path / "m.onnx").exists()


def test_weights_are_inside_the_file(tmp_path: Path) -> None:
    model = onnx.load(export_two(tmp_path / "m.onnx").path, load_external_data=False)
    assert sum(int(np.prod(t.dims)) for t in model.graph.initializer) == sum(
        p.numel() for p in TwoInputs().parameters()
    )
    assert all(t.data_location == onnx.TensorProto.DEFAULT for t in model.graph.initializer)


def test_what_torch_cannot_export_is_a_model_error(tmp_path: Path) -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.linalg.eigvals(x).real

    with pytest.raises(ModelError, match=r"cannot export 'odd\.onnx' to ONNX opset 17: .*eigvals"):
        export_module(
            Odd(), torch.eye(2), tmp_path / "odd.onnx", input_names=["x"], output_names=["y"], dynamic_axes={}
        )


def test_a_graph_that_the_checker_refuses_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = export._trace

    def break_graph(*arguments: object, **options: bool) -> bytes:
        model = onnx.load_model_from_string(trace(*arguments, **options))
        model.graph.node[0].input[0] = "nowhere"
        return model.SerializeToString()

    monkeypatch.setattr(export, "_trace", break_graph)
    with pytest.raises(ModelError, match="fails the ONNX checker"):
        export_two(tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()
