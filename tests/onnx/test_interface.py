"""The interface read from an ONNX file's bytes is the one that onnxruntime shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from vqa_train.core.errors import ModelError
from vqa_train.onnx.interface import read_interface
from vqa_train.onnx.runtime import OnnxModel
from vqa_train.onnx.support import tiny_model


def write(path: Path, kind: int = onnx.TensorProto.FLOAT) -> Path:
    """y, z = x + w, x of `kind`: named, open and fixed dimensions, and an input that the file gives a value."""
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", ["x", "w"], ["y"]), onnx.helper.make_node("Identity", ["x"], ["z"])],
        "g",
        [value("w", kind, [3]), value("x", kind, ["batch", None, 3])],
        [value("y", kind, ["batch", None, 3]), value("z", kind, ["batch", None, 3])],
        [onnx.helper.make_tensor("w", kind, [3], [1, 2, 3])],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    entry = model.metadata_props.add()
    entry.key, entry.value = "vqa_train.targets", '["ä"]'
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("kind", ["FLOAT", "DOUBLE", "FLOAT16", "INT32", "INT64", "UINT8", "INT8"])
def test_it_is_onnxruntimes(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / "m.onnx", getattr(onnx.TensorProto, kind))
    ours, theirs = read_interface(path, path.read_bytes()), OnnxModel(path)
    assert list(ours.inputs) == ["x"]
    assert dict(ours.inputs) == theirs.inputs
    assert dict(ours.outputs) == theirs.outputs
    assert (ours.opset, ours.facts.ir_version) == (theirs.opset, theirs.ir_version) == (17, 8)
    assert dict(ours.metadata) == theirs.metadata == {"vqa_train.targets": '["ä"]'}


def test_a_type_that_no_model_has_here_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", onnx.TensorProto.UINT64)
    with pytest.raises(ModelError, match="'w' has element type 13"):
        read_interface(path, path.read_bytes())


def test_an_open_shape_has_no_dimensions() -> None:
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["x"], ["y"])], "g",
        [value("x", onnx.TensorProto.FLOAT, None)], [value("y", onnx.TensorProto.BOOL, [])],
    )  # fmt: skip
    found = read_interface(Path("m.onnx"), onnx.helper.make_model(graph).SerializeToString())
    assert (found.inputs["x"].shape, found.inputs["x"].dtype) == ((), np.float32)
    assert found.outputs["y"].dtype == np.bool_


@pytest.mark.parametrize("data", [b"", b"\x08\x08", b"\xff" * 40, tiny_model(opset=17, ir_version=8)[:-20]])
def test_bytes_that_are_no_graph_are_refused(data: bytes) -> None:
    with pytest.raises(ModelError):
        read_interface(Path("x.onnx"), data)
