"""Which file formats the installed onnxruntime reads, found by giving it the smallest possible files."""

from __future__ import annotations

from functools import cache

import onnxruntime

# Versions that are tried; there is no way to ask.
_FIRST_OPSET, _FIRST_IR, _LAST = 7, 3, 64
_FATAL = 4


@cache
def highest_opset() -> int:
    """The newest version of the default operator set that a file may import; 0 where not even an old one loads."""
    return max((v for v in range(_FIRST_OPSET, _LAST) if _loads(tiny_model(opset=v, ir_version=_FIRST_IR))), default=0)


@cache
def highest_ir_version() -> int:
    """The newest version of the file format; 0 where not even an old one loads."""
    found = (v for v in range(_FIRST_IR, _LAST) if _loads(tiny_model(opset=_FIRST_OPSET, ir_version=v)))
    return max(found, default=0)


def tiny_model(*, opset: int, ir_version: int) -> bytes:
    """A serialised ModelProto of one Identity on a float: y = x. Field numbers: onnx/onnx.proto."""
    # TypeProto{tensor_type{elem_type: FLOAT, shape{dim{dim_value: 1}}}}
    kind = _field(1, _number(1, 1) + _field(2, _field(1, _number(1, 1))))
    node = _field(1, b"x") + _field(2, b"y") + _field(4, b"Identity")
    values = _field(11, _field(1, b"x") + _field(2, kind)) + _field(12, _field(1, b"y") + _field(2, kind))
    graph = _field(1, node) + _field(2, b"g") + values
    return _number(1, ir_version) + _field(7, graph) + _field(8, _field(1, b"") + _number(2, opset))


def _loads(data: bytes) -> bool:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL
    options.intra_op_num_threads = 1
    try:
        onnxruntime.InferenceSession(data, sess_options=options, providers=["CPUExecutionProvider"])
    except Exception:  # onnxruntime raises classes of its own that share no public base
        return False
    return True


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _field(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)
