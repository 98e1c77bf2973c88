"""What the installed onnxruntime loads is found by trying, and agrees with models that the onnx package made."""

from __future__ import annotations

from pathlib import Path

import onnx

from vqa_train.core.errors import ModelError
from vqa_train.onnx.runtime import OnnxModel
from vqa_train.onnx.support import highest_ir_version, highest_opset, tiny_model


def test_what_onnxruntime_supports_is_what_it_loads(tmp_path: Path) -> None:
    """Of a model made by the onnx package."""

    def loads(opset: int, ir_version: int) -> bool:
        value = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"]
        graph = onnx.helper.make_graph([onnx.helper.make_node("Abs", ["x"], ["y"])], "g", value[:1], value[1:])
        imports = [onnx.helper.make_opsetid("", opset)]
        model = onnx.helper.make_model(graph, opset_imports=imports, ir_version=ir_version)
        (tmp_path / "x.onnx").write_bytes(model.SerializeToString())
        try:
            OnnxModel(tmp_path / "x.onnx")
        except ModelError:
            return False
        return True

    opset, ir_version = highest_opset(), highest_ir_version()
    assert opset >= 17
    assert loads(opset, 8)
    assert not loads(opset + 1, 8)
    assert loads(17, ir_version)
    assert not loads(17, ir_version + 1)
    onnx.checker.check_model(onnx.load_from_string(tiny_model(opset=17, ir_version=8)), full_check=True)
