"""Facts of an ONNX file read from its protobuf bytes, so that scoring needs no onnx package: versions, external data.

Wire format: https://protobuf.dev/programming-guides/encoding/; field numbers: onnx/onnx.proto.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from vqa_train.core.errors import ModelError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

# message -> {field number: message of that field}; only what can lead to a tensor.
_NESTED: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_TENSOR_NAME, _TENSOR_EXTERNAL_DATA, _TENSOR_DATA_LOCATION = 8, 13, 14
_MODEL_IR_VERSION, _MODEL_OPSET_IMPORT, _MODEL_METADATA = 1, 8, 14
MAX_DEPTH = 32
"""Messages within messages; more is refused."""


@dataclass
class OnnxFacts:
    """What the bytes say.

    Attributes:
        ir_version: of the file format.
        opset: version of the default operator set; 0 when the file imports none.
        external: names of tensors whose data lies outside the file.
        locations: the files that those tensors name.
        metadata: the key-value pairs embedded in the file.
    """

    ir_version: int = 0
    opset: int = 0
    external: list[str] = field(default_factory=list)
    locations: set[str] = field(default_factory=set)
    metadata: dict[str, str] = field(default_factory=dict)


def read_facts(data: bytes) -> OnnxFacts:
    """Walk a serialised ModelProto.

    Raises:
        ModelError: the bytes are not a protobuf message of that shape.
    """
    facts = OnnxFacts()
    try:
        view = memoryview(data)
        for number, value in fields(view):
            if number == _MODEL_IR_VERSION and isinstance(value, int):
                facts.ir_version = value
            elif number == _MODEL_OPSET_IMPORT and not isinstance(value, int):
                domain, version = opset_entry(value)
                if domain in ("", "ai.onnx"):
                    facts.opset = version
            elif number == _MODEL_METADATA and not isinstance(value, int):
                key, text = _pair(value)
                facts.metadata[key] = text
        _walk(view, "model", facts, 0)
    except (IndexError, ValueError) as error:
        raise ModelError(f"not an ONNX file: {error}") from error
    if not facts.ir_version:
        raise ModelError("not an ONNX file: no IR version")
    return facts


def _walk(view: memoryview, message: str, facts: OnnxFacts, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ValueError("messages are nested too deeply")
    if message == "tensor":
        _look_at_tensor(view, facts)
        return
    nested = _NESTED[message]
    for number, value in fields(view):
        if number in nested and not isinstance(value, int):
            _walk(value, nested[number], facts, depth + 1)


def _look_at_tensor(view: memoryview, facts: OnnxFacts) -> None:
    name, external = "", False
    for number, value in fields(view):
        if number == _TENSOR_NAME and not isinstance(value, int):
            name = bytes(value).decode("utf-8", "replace")
        elif number == _TENSOR_EXTERNAL_DATA and not isinstance(value, int):
            external = True
            key, text = _pair(value)
            if key == "location":
                facts.locations.add(text)
        elif number == _TENSOR_DATA_LOCATION and value != 0:
            external = True
    if external:
        facts.external.append(name)


def _pair(view: memoryview) -> tuple[str, str]:
    """Key and value of a StringStringEntryProto."""
    texts = {n: bytes(v).decode("utf-8", "replace") for n, v in fields(view) if not isinstance(v, int)}
    return texts.get(1, ""), texts.get(2, "")


def opset_entry(view: memoryview) -> tuple[str, int]:
    """Domain and version of an OperatorSetIdProto."""
    domain, version = "", 0
    for number, value in fields(view):
        if number == 1 and not isinstance(value, int):
            domain = bytes(value).decode("utf-8", "replace")
        elif number == 2 and isinstance(value, int):
            version = value
    return domain, version


def fields(view: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(field number, value) of one message; numbers for the fixed-width and varint types, bytes for the rest."""
    position = 0
    while position < len(view):
        key, position = _varint(view, position)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            integer, position = _varint(view, position)
            yield number, integer
            continue
        if wire == _BYTES:
            size, position = _varint(view, position)
        elif wire in (_FIXED64, _FIXED32):
            size = 8 if wire == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire} at byte {position}")
        if position + size > len(view):
            raise ValueError(f"a field ends {position + size - len(view)} bytes after its message")
        yield number, view[position : position + size]
        position += size


def _varint(view: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = view[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError(f"a varint of more than ten bytes at byte {position}")
