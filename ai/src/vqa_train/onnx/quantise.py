"""Int8 weights for the matrix products of a head: dynamic, or static with calibrated activations (QDQ).

Inputs are standardised inside the graph before the first product, so its activations already lie within the clip range
of the standardisation and quantise well whatever the scale of the features.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from vqa_train.core.errors import ModelError
from vqa_train.core.files import atomic_write_bytes
from vqa_train.core.hashing import sha256_bytes
from vqa_train.onnx.runtime import OnnxModel

Method = Literal["dynamic", "static"]
METHODS: tuple[Method, ...] = ("dynamic", "static")

MIN_WEIGHTS = 4096
"""Numbers in a matrix from which on it is quantised: below, its scales and the conversions cost what it saves."""
MIN_SHARE = 0.5
"""Share of the file that those matrices must be: int8 saves three quarters of it."""
MIN_BYTES = 150_000
"""Size of a file from which on it is quantised: below, one row takes longer with int8 (see docs/gates.md)."""

Rows = Mapping[str, NDArray[np.float32]]
_FLOAT = onnx.TensorProto.FLOAT


@dataclass(frozen=True)
class Quantised:
    """An int8 graph just written.

    Attributes:
        path, sha256, bytes, opset: of the file.
        products: matrix products with int8 weights.
        weights: numbers in those weights.
        share: of the float file's bytes that they were.
    """

    path: Path
    sha256: str
    bytes: int
    opset: int
    products: int
    weights: int
    share: float


def quantise(
    source: Path, target: Path, method: Method, rows: Rows | None = None, *, metadata: Mapping[str, str] | None = None
) -> Quantised:
    """Write an int8 version of a float32 head.

    Args:
        source: a verified ONNX file without weights beside it.
        target: written atomically.
        method: "dynamic" finds the range of activations in each run; "static" fixes it from `rows`.
        rows: input name -> float32 (N, ...) of training rows, for "static".
        metadata: replaces entries of the file's metadata, which is otherwise that of `source`.

    Raises:
        ModelError: there is nothing worth quantising, or onnxruntime cannot do it.
    """
    if method == "static" and not rows:
        raise ModelError("static quantisation was given no rows to calibrate on")
    original = OnnxModel(source)
    if original.external:
        raise ModelError(f"{source.name!r} keeps weights beside it, only a head in one file is quantised")
    model = _folded(source)
    products = _products(model)
    weights = sum(products.values())
    share = 4 * weights / source.stat().st_size
    _refuse_small(source, weights, share)
    nodes = _as_matrix_products(model, products)
    with tempfile.TemporaryDirectory() as folder, _quiet():
        plain, result = Path(folder) / "plain.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, str(plain))
        try:
            _convert(plain, result, method, nodes, rows or {})
        except Exception as error:  # the quantiser raises ValueError, RuntimeError and classes of onnxruntime
            raise ModelError(f"onnxruntime cannot quantise {source.name!r}: {str(error)[:300]}") from error
        data = _finished(onnx.load(str(result)), {**original.metadata, **(metadata or {})})
    atomic_write_bytes(target, data)
    written = OnnxModel(target)
    return Quantised(
        path=target,
        sha256=sha256_bytes(data),
        bytes=len(data),
        opset=written.opset,
        products=len(nodes),
        weights=weights,
        share=share,
    )


def _folded(source: Path) -> onnx.ModelProto:
    """The graph with everything computed that depends on weights alone, in operators of the standard only."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "folded.onnx"
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(path)
        options.log_severity_level = 3
        onnxruntime.InferenceSession(str(source), sess_options=options, providers=["CPUExecutionProvider"])
        return onnx.shape_inference.infer_shapes(onnx.load(str(path)))


def _products(model: onnx.ModelProto) -> dict[int, int]:
    """Place of a product with float32 weights that are large enough to be worth it -> how many numbers they are."""
    tensors = {t.name: t for t in model.graph.initializer if t.data_type == _FLOAT and len(t.dims) in (2, 3)}
    ranks = _shapes(model)
    found = {}
    for number, node in enumerate(model.graph.node):
        if node.op_type not in ("MatMul", "Gemm") or node.domain not in ("", "ai.onnx"):
            continue
        tensor = tensors.get(node.input[1])
        if tensor is None or (node.op_type == "Gemm" and not _plain_gemm(node)):
            continue
        shape = ranks.get(node.input[0])
        if len(tensor.dims) == 3 and (shape is None or len(shape) != 3 or shape[0] not in (1, tensor.dims[0])):
            continue
        size = int(np.prod(tensor.dims))
        if size >= MIN_WEIGHTS:
            found[number] = size
    return found


def _refuse_small(source: Path, weights: int, share: float) -> None:
    size = source.stat().st_size
    what = f"{source.name!r} has nothing worth quantising:"
    if not weights:
        raise ModelError(
            f"{what} no product with float32 weights of {MIN_WEIGHTS:,} numbers or more",
            hint="it is small already, or computes in float64 as a kernel ridge does",
        )
    if share < MIN_SHARE:
        raise ModelError(f"{what} weights that int8 could hold are {share:.0%} of it, expected {MIN_SHARE:.0%} or more")
    if size < MIN_BYTES:
        raise ModelError(f"{what} it has {size:,} bytes, and below {MIN_BYTES:,} one row takes longer with int8")


def _shapes(model: onnx.ModelProto) -> dict[str, list[int | str]]:
    values = [*model.graph.value_info, *model.graph.input, *model.graph.output]
    return {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in values
        if value.type.tensor_type.HasField("shape")
    }


def _plain_gemm(node: onnx.NodeProto) -> bool:
    options = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return not options.get("transA", 0) and options.get("alpha", 1.0) == 1.0 and options.get("beta", 1.0) == 1.0


def _as_matrix_products(model: onnx.ModelProto, places: Collection[int]) -> list[str]:
    """Rewrite the products at these places into `MatMul` with a matrix, whose columns can have scales of their own.

    A `Gemm` becomes a `MatMul` and a `Sub`; a batch of matrices, one for each model of an ensemble, a `MatMul` for
    each, between a `Split` and a `Concat`.

    Returns:
        Names of the `MatMul` nodes.
    """
    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    shapes = _shapes(model)
    nodes: list[onnx.NodeProto] = []
    products: list[str] = []
    added: dict[str, onnx.TensorProto] = {}
    for number, node in enumerate(graph.node):
        if number not in places:
            nodes.append(node)
            continue
        weight = numpy_helper.to_array(tensors[node.input[1]])
        made = _rewritten(node, f"product_{number}", weight, shapes, added)
        nodes += made
        products += [one.name for one in made if one.op_type == "MatMul"]
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend([*kept, *added.values()])
    return products


def _rewritten(
    node: onnx.NodeProto,
    name: str,
    weight: NDArray[Any],
    shapes: Mapping[str, list[int | str]],
    added: dict[str, onnx.TensorProto],
) -> list[onnx.NodeProto]:
    def keep(tensor: str, value: NDArray[Any]) -> str:
        added[tensor] = numpy_helper.from_array(np.ascontiguousarray(value), tensor)
        return tensor

    x, output = node.input[0], node.output[0]
    if node.op_type == "Gemm":
        options = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        matrix = keep(f"{name}_weight", weight.T if options.get("transB", 0) else weight)
        bias = node.input[2] if len(node.input) > 2 else ""
        product = output if not bias else f"{name}_product"
        made = [helper.make_node("MatMul", [x, matrix], [product], name)]
        if not bias:
            return made
        # Not `Add`: onnxruntime would make a `Gemm` of both again before it sees that the product is one of int8, and
        # then dequantise the weights in every run, which took 50 times as long.
        less = helper.make_node("Sub", [product, f"{name}_bias"], [output], f"{name}_sub")
        return [*made, helper.make_node("Neg", [bias], [f"{name}_bias"], f"{name}_neg"), less]
    if weight.ndim == 2 or len(weight) == 1:
        matrix = keep(f"{name}_weight", weight.reshape(weight.shape[-2:]))
        return [helper.make_node("MatMul", [x, matrix], [output], name)]
    models = len(weight)
    parts = [x] * models
    made = []
    if shapes[x][0] == models:
        parts = [f"{name}_x{i}" for i in range(models)]
        sizes = keep(f"{name}_ones", np.ones(models, dtype=np.int64))
        made.append(helper.make_node("Split", [x, sizes], parts, f"{name}_split", axis=0))
    for i, part in enumerate(parts):
        matrix = keep(f"{name}_weight{i}", weight[i])
        made.append(helper.make_node("MatMul", [part, matrix], [f"{name}_y{i}"], f"{name}_{i}"))
    joined = [f"{name}_y{i}" for i in range(models)]
    return [*made, helper.make_node("Concat", joined, [output], f"{name}_concat", axis=0)]


def _convert(plain: Path, result: Path, method: Method, nodes: list[str], rows: Rows) -> None:
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static

    if method == "dynamic":
        quantize_dynamic(
            str(plain),
            str(result),
            nodes_to_quantize=nodes,
            per_channel=True,
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},
        )
        return
    quantize_static(
        str(plain),
        str(result),
        _reader(rows),
        nodes_to_quantize=nodes,
        per_channel=True,
        quant_format=QuantFormat.QDQ,
        weight_type=QuantType.QInt8,
        activation_type=QuantType.QInt8,
        # A product goes on in float32: its columns differ in size, and one int8 range for all of them costs accuracy.
        extra_options={"OpTypesToExcludeOutputQuantization": ["MatMul"]},
    )


def _reader(rows: Rows) -> Any:
    """The rows as onnxruntime's calibration takes them: one dictionary, then None."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
        def __init__(self) -> None:
            self.left = [dict(rows)]

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            return self.left.pop() if self.left else None

    return Reader()


def _finished(model: onnx.ModelProto, metadata: Mapping[str, str]) -> bytes:
    """Bytes of the file: this metadata, no imports of domains that no node is of."""
    used = {node.domain or "" for node in model.graph.node}
    kept = [entry for entry in model.opset_import if ("" if entry.domain == "ai.onnx" else entry.domain) in used]
    del model.opset_import[:]
    model.opset_import.extend(sorted(kept, key=lambda entry: entry.domain))
    del model.metadata_props[:]
    for key, value in sorted(metadata.items()):
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    model.producer_name, model.producer_version, model.doc_string = "vqa-train", "", ""
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The quantiser advises by the root logger to do what was done before it is called."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(before)
