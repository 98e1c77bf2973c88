"""Inputs, outputs and metadata of an ONNX file read from its bytes, so that a file that nobody vouches for is not run.

Wire format and field numbers: see `onnx.proto`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vqa_train.core.errors import ModelError
from vqa_train.onnx.proto import OnnxFacts, fields, read_facts
from vqa_train.onnx.runtime import TensorInfo

_MODEL_GRAPH, _GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT = 7, 5, 11, 12
_TENSOR_NAME = 8
# TensorProto.DataType.
_DTYPES: Mapping[int, type[np.generic]] = {
    1: np.float32,
    2: np.uint8,
    3: np.int8,
    6: np.int32,
    7: np.int64,
    9: np.bool_,
    10: np.float16,
    11: np.float64,
}


@dataclass(frozen=True)
class GraphInterface:
    """What a graph says of itself.

    Attributes:
        path: of the file.
        inputs, outputs: name -> `TensorInfo`, in the graph's order; without inputs that the file gives a value.
        facts: versions, metadata, tensors outside the file.
    """

    path: Path
    inputs: Mapping[str, TensorInfo]
    outputs: Mapping[str, TensorInfo]
    facts: OnnxFacts

    @property
    def opset(self) -> int:
        """Version of the default operator set."""
        return self.facts.opset

    @property
    def metadata(self) -> Mapping[str, str]:
        """Key-value pairs embedded in the file."""
        return self.facts.metadata


def read_interface(path: Path, data: bytes) -> GraphInterface:
    """The interface of a serialised ModelProto; `path` is for messages.

    Raises:
        ModelError: it is not an ONNX file, or an input or output is no tensor of a type that models here have.
    """
    facts = read_facts(data)
    try:
        graphs = [value for number, value in fields(memoryview(data)) if number == _MODEL_GRAPH]
        if len(graphs) != 1 or isinstance(graphs[0], int):
            raise ValueError(f"{len(graphs)} graphs")
        inputs: dict[str, TensorInfo] = {}
        outputs: dict[str, TensorInfo] = {}
        given: set[str] = set()
        for number, value in fields(graphs[0]):
            if isinstance(value, int):
                continue
            if number == _GRAPH_INITIALIZER:
                given.add(_text(value, _TENSOR_NAME))
            elif number in (_GRAPH_INPUT, _GRAPH_OUTPUT):
                info = _value(value)
                (inputs if number == _GRAPH_INPUT else outputs)[info.name] = info
    except (IndexError, ValueError) as error:
        raise ModelError(f"{str(path)!r} is not an ONNX file: {error}") from error
    return GraphInterface(path, {n: info for n, info in inputs.items() if n not in given}, outputs, facts)


def _value(view: memoryview) -> TensorInfo:
    """A ValueInfoProto of a tensor."""
    name, kind = _text(view, 1), _message(view, 2)
    tensor = _message(kind, 1) if kind is not None else None
    if tensor is None:
        raise ValueError(f"{name!r} is no tensor")
    dtype, shape = 0, _message(tensor, 2)
    for number, value in fields(tensor):
        if number == 1 and isinstance(value, int):
            dtype = value
    if dtype not in _DTYPES:
        raise ValueError(f"{name!r} has element type {dtype}")
    dims = [value for number, value in fields(shape) if number == 1] if shape is not None else []
    return TensorInfo(name, _DTYPES[dtype], tuple(_dim(dim) for dim in dims if not isinstance(dim, int)))


def _dim(view: memoryview) -> int | str | None:
    for number, value in fields(view):
        if number == 1 and isinstance(value, int):
            return value
        if number == 2 and not isinstance(value, int):
            return bytes(value).decode("utf-8", "replace")
    return None


def _message(view: memoryview, wanted: int) -> memoryview | None:
    for number, value in fields(view):
        if number == wanted and not isinstance(value, int):
            return value
    return None


def _text(view: memoryview, wanted: int) -> str:
    found = _message(view, wanted)
    return bytes(found).decode("utf-8", "replace") if found is not None else ""
