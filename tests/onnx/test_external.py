"""Weights beside the graph: the same numbers, every byte under the graph's hash, nothing read from elsewhere."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from vqa_train.core.errors import ModelError
from vqa_train.core.hashing import sha256_file
from vqa_train.onnx.export import Exported, export_module
from vqa_train.onnx.runtime import EXTERNAL_KEY, OnnxModel


class Net(nn.Module):
    """Layers of several kinds, a buffer of floats, one of integers, an odd number of bytes."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first, self.norm, self.last = nn.Linear(5, 7), nn.LayerNorm(7), nn.Linear(7, 3, bias=False)
        self.register_buffer("scale", torch.rand(3, generator=generator))
        self.register_buffer("order", torch.tensor([2, 0, 1]))
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(self.first(x)).relu())[:, self.order] * self.scale


def export(path: Path, max_inside: int = 0) -> Exported:
    return export_module(
        Net(), torch.zeros(2, 5), path, input_names=["x"], output_names=["y"],
        dynamic_axes={"x": {0: "n"}, "y": {0: "n"}}, max_inside=max_inside,
    )  # fmt: skip


@pytest.fixture
def exported(tmp_path: Path) -> Exported:
    return export(tmp_path / "net.onnx")


def test_the_numbers_are_those_of_the_module(exported: Exported) -> None:
    rows = np.random.default_rng(0).standard_normal((4, 5)).astype(np.float32)
    model = OnnxModel(exported.path, expected_sha256=exported.sha256, threads=1)
    with torch.inference_mode():
        expected = Net()(torch.from_numpy(rows)).numpy()
    np.testing.assert_allclose(model.run({"x": rows})["y"], expected, rtol=1e-5, atol=1e-5)
    assert model.external == (exported.weights,)
    assert list(model.inputs) == ["x"]


def test_no_weight_is_left_in_the_graph_and_the_onnx_package_reads_the_pair(exported: Exported) -> None:
    assert exported.weights is not None
    assert exported.weights.name == f"{sha256_file(exported.weights)[:16]}.weights"
    graph = onnx.load(exported.path, load_external_data=False).graph
    assert {t.name for t in graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL} == set(
        Net().state_dict()
    )
    onnx.checker.check_model(str(exported.path), full_check=True)


def test_weights_that_fit_stay_inside(tmp_path: Path) -> None:
    inside = export(tmp_path / "net.onnx", max_inside=1 << 20)
    assert inside.weights is None
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]


def test_the_same_module_gives_the_same_bytes(exported: Exported, tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    again = export(tmp_path / "again" / "net.onnx")
    assert (again.sha256, again.weights and again.weights.name) == (
        exported.sha256,
        exported.weights and exported.weights.name,
    )


def test_a_changed_byte_of_the_weights_is_refused(exported: Exported) -> None:
    assert exported.weights is not None
    data = bytearray(exported.weights.read_bytes())
    data[-1] ^= 1
    exported.weights.write_bytes(data)
    with pytest.raises(ModelError, match="weights .* have sha256 .*, 'net.onnx' expects"):
        OnnxModel(exported.path)


def test_missing_weights_are_named(exported: Exported) -> None:
    assert exported.weights is not None
    exported.weights.unlink()
    with pytest.raises(ModelError, match=r"cannot be read: No such file.*they must lie beside it"):
        OnnxModel(exported.path)


@pytest.mark.parametrize("where", ["../elsewhere.weights", "/etc/hostname", ""])
def test_weights_elsewhere_are_refused(exported: Exported, where: str) -> None:
    model = onnx.load(exported.path, load_external_data=False)
    claimed = next(entry for entry in model.metadata_props if entry.key == EXTERNAL_KEY)
    claimed.value = json.dumps({where: next(iter(json.loads(claimed.value).values()))})
    for tensor in model.graph.initializer:
        next(part for part in tensor.external_data if part.key == "location").value = where
    exported.path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="expected a file beside it"):
        OnnxModel(exported.path)


def test_a_second_file_that_no_hash_covers_is_refused(exported: Exported) -> None:
    assert exported.weights is not None
    shutil.copy(exported.weights, exported.path.parent / "other.weights")
    model = onnx.load(exported.path, load_external_data=False)
    next(part for part in model.graph.initializer[0].external_data if part.key == "location").value = "other.weights"
    exported.path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="its hash does not cover those"):
        OnnxModel(exported.path)
