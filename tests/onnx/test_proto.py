"""Facts read from protobuf bytes agree with the onnx package; garbage is an error, never a crash."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from vqa_train.core.errors import ModelError
from vqa_train.onnx.proto import read_facts


def external_tensor(name: str) -> TensorProto:
    tensor = TensorProto(name=name, dims=[2], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    location = tensor.external_data.add()
    location.key, location.value = "location", "elsewhere.bin"
    return tensor


def model_with(nodes: list[onnx.NodeProto], tensors: list[TensorProto], opset: int = 17) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
    graph = helper.make_graph(nodes, "g", [x], [y], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid("other", 3)])


def inside(name: str) -> TensorProto:
    return numpy_helper.from_array(np.ones(2, np.float32), name)


ADD = helper.make_node("Add", ["x", "w"], ["y"])


@pytest.mark.parametrize("opset", [17, 20])
def test_versions_are_those_that_the_onnx_package_reads(opset: int) -> None:
    model = model_with([ADD], [inside("w")], opset)
    facts = read_facts(model.SerializeToString())
    assert (facts.ir_version, facts.opset, facts.external) == (model.ir_version, opset, [])


def test_an_external_initializer_is_named() -> None:
    facts = read_facts(model_with([ADD], [inside("v"), external_tensor("w")]).SerializeToString())
    assert facts.external == ["w"]


def test_external_data_is_found_in_a_constant_and_in_a_subgraph() -> None:
    constant = helper.make_node("Constant", [], ["w"], value=external_tensor("constant"))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
    branch = helper.make_graph([helper.make_node("Identity", ["t"], ["y"])], "b", [], [y], [external_tensor("t")])
    choice = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    facts = read_facts(model_with([constant, choice], []).SerializeToString())
    assert facts.external == ["constant", "t", "t"]


@pytest.mark.parametrize("data", [b"", b"hello world", b"\x00" * 50, b"\xff" * 50, b"PK\x03\x04" + b"a" * 40])
def test_what_is_no_onnx_file_is_refused(data: bytes) -> None:
    with pytest.raises(ModelError, match="not an ONNX file"):
        read_facts(data)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_give_facts_or_a_model_error(data: bytes) -> None:
    try:
        read_facts(data)
    except ModelError as error:
        assert str(error).startswith("not an ONNX file")


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10_000))
def test_a_truncated_file_is_refused_or_lacks_only_trailing_fields(cut: int) -> None:
    data = model_with([ADD], [inside("w")]).SerializeToString()
    kept = data[: cut % len(data)]
    try:
        facts = read_facts(kept)
    except ModelError:
        return
    onnx.ModelProto.FromString(kept)  # whatever is accepted here, protobuf accepts too
    assert facts.external == []
