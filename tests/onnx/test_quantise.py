"""Int8 graphs: which products are quantised, what the file then holds, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from vqa_train.core.errors import ModelError
from vqa_train.core.hashing import sha256_file
from vqa_train.onnx.quantise import METHODS, Method, quantise
from vqa_train.onnx.runtime import OnnxModel

RNG = np.random.default_rng(3)
Array = NDArray[np.float32]


def model(path: Path, nodes: list[Any], tensors: dict[str, Any], inputs: int = 200, **metadata: str) -> Path:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", inputs])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", "columns"])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in tensors.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(made, metadata)
    onnx.checker.check_model(made)
    onnx.save(made, path)
    return path


def normal(*shape: int) -> Array:
    return RNG.normal(size=shape).astype(np.float32)


def gemm(path: Path, *, transposed: bool = False, width: int = 224, **metadata: str) -> Path:
    """Two layers as an MLP has them, the second too small to be worth it."""
    first = normal(200, width) / 14
    # Columns of unlike sizes: with one scale for all of them the small ones would vanish.
    sizes = np.exp(np.linspace(-4, 4, width)).astype(np.float32)
    first *= sizes
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"], transB=int(transposed)),
        helper.make_node("Div", ["h", "s"], ["even"]),
        helper.make_node("Tanh", ["even"], ["a"]),
        helper.make_node("MatMul", ["a", "v"], ["y"]),
    ]
    tensors = {
        "w": first.T.copy() if transposed else first, "b": normal(width) * sizes, "s": sizes, "v": normal(width, 3),
    }  # fmt: skip
    return model(path, nodes, tensors, **metadata)


def ensemble(path: Path, models: int, *, shared: bool = False) -> Path:
    """A batch of products, as heads that differ by their seed are exported."""
    nodes = [
        helper.make_node("Unsqueeze", ["x", "axis"], ["u"]),
        helper.make_node("Mul", ["u", "s"], ["z"]),
        helper.make_node("MatMul", ["z", "w"], ["h"]),
        helper.make_node("Tanh", ["h"], ["a"]),
        helper.make_node("ReduceMean", ["a"], ["y"], axes=[2], keepdims=0),
    ]
    scales = np.ones((1 if shared else models, 1, 1), np.float32)
    tensors = {"axis": np.array([0]), "s": scales, "w": normal(models, 200, 96) / 10}
    return model(path, nodes, tensors)


def largest(path: Path, other: Path, rows: Array) -> float:
    """The largest difference, in standard deviations of the output."""
    a, b = (OnnxModel(p).run({"x": rows})["y"] for p in (path, other))
    assert a.shape == b.shape
    return float(np.abs(a - b).max() / a.std())


def kinds(path: Path) -> dict[str, int]:
    """Name of a type -> how many numbers the initializers of that type hold."""
    found: dict[str, int] = {}
    for tensor in onnx.load(path).graph.initializer:
        name = TensorProto.DataType.Name(tensor.data_type)
        found[name] = found.get(name, 0) + int(np.prod(tensor.dims))
    return found


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("transposed", [False, True])
def test_a_gemm_becomes_an_int8_product_whose_columns_have_scales_of_their_own(
    method: Method, transposed: bool, tmp_path: Path
) -> None:
    source, rows = gemm(tmp_path / "m.onnx", transposed=transposed), normal(64, 200)
    made = quantise(source, tmp_path / "q.onnx", method, {"x": rows})
    assert (made.products, made.weights, made.opset) == (1, 200 * 224, 17)
    assert (made.sha256, made.bytes) == (sha256_file(made.path), made.path.stat().st_size)
    assert made.bytes < 0.35 * source.stat().st_size
    held = kinds(made.path)
    assert held["INT8"] >= 200 * 224
    # What stays in float32: biases, the small layer, a scale per column.
    assert held["FLOAT"] < 200 * 224 / 10
    assert 0 < largest(source, made.path, rows) < 0.1
    assert {node.op_type for node in onnx.load(made.path).graph.node} >= (
        {"MatMulInteger"} if method == "dynamic" else {"QuantizeLinear", "DequantizeLinear"}
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("models", "shared"), [(1, False), (3, False), (3, True)])
def test_a_batch_of_products_is_quantised_model_by_model(
    method: Method, models: int, shared: bool, tmp_path: Path
) -> None:
    source, rows = ensemble(tmp_path / "m.onnx", models, shared=shared) if models > 1 else None, normal(64, 200)
    if source is None:
        source = ensemble(tmp_path / "m.onnx", 2)
        single = onnx.load(source)
        for tensor in single.graph.initializer:
            if tensor.name in ("w", "s"):
                value = numpy_helper.to_array(tensor)[:1]
                wide = np.repeat(value, 2, axis=2) if tensor.name == "w" else value
                tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(wide), tensor.name))
        onnx.save(single, source)
    made = quantise(source, tmp_path / "q.onnx", method, {"x": rows})
    assert made.products == models
    assert largest(source, made.path, rows) < 0.2
    assert kinds(made.path)["INT8"] >= made.weights


def test_static_ranges_come_from_the_rows(tmp_path: Path) -> None:
    source, rows = gemm(tmp_path / "m.onnx"), normal(64, 200)
    good = quantise(source, tmp_path / "good.onnx", "static", {"x": rows})
    bad = quantise(source, tmp_path / "bad.onnx", "static", {"x": rows / 20})
    assert largest(source, bad.path, rows) > 5 * largest(source, good.path, rows)
    with pytest.raises(ModelError, match="no rows"):
        quantise(source, tmp_path / "none.onnx", "static")


@pytest.mark.parametrize("method", METHODS)
def test_the_same_graph_gives_the_same_bytes_and_keeps_its_metadata(method: Method, tmp_path: Path) -> None:
    source, rows = gemm(tmp_path / "m.onnx", a="1", b="2"), {"x": normal(16, 200)}
    one, two = (quantise(source, tmp_path / f"{n}.onnx", method, rows, metadata={"b": "3"}) for n in "ab")
    assert one.sha256 == two.sha256
    assert OnnxModel(one.path).metadata == {"a": "1", "b": "3"}
    assert b"site-packages" not in one.path.read_bytes()
    assert str(tmp_path).encode() not in one.path.read_bytes()


def test_a_model_without_large_float_weights_is_refused(tmp_path: Path) -> None:
    small = gemm(tmp_path / "small.onnx", width=16)
    with pytest.raises(ModelError, match=r"nothing worth quantising: no product with float32 weights of 4,096"):
        quantise(small, tmp_path / "q.onnx", "dynamic")
    assert not (tmp_path / "q.onnx").exists()


def test_a_tiny_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nothing worth quantising: it has [\d,]+ bytes"):
        quantise(gemm(tmp_path / "m.onnx", width=80), tmp_path / "q.onnx", "dynamic")


def test_weights_that_are_a_small_share_are_refused(tmp_path: Path) -> None:
    """As in a head that keeps its training rows in float64."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Cast", ["h"], ["d"], to=TensorProto.DOUBLE),
        helper.make_node("MatMul", ["d", "v"], ["y64"]),
        helper.make_node("Cast", ["y64"], ["y"], to=TensorProto.FLOAT),
    ]
    path = model(tmp_path / "m.onnx", nodes, {"w": normal(200, 40), "v": RNG.normal(size=(40, 2000))})
    with pytest.raises(ModelError, match=r"nothing worth quantising: weights that int8 could hold are 5% of it"):
        quantise(path, tmp_path / "q.onnx", "dynamic")


def test_the_quantiser_does_not_change_the_log_level(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    import logging

    before = logging.getLogger().level
    quantise(gemm(tmp_path / "m.onnx"), tmp_path / "q.onnx", "dynamic")
    assert logging.getLogger().level == before
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
