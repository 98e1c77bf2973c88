"""Weights too large for one ONNX file: a data file beside the graph, whose own hash covers the hash of the data.

The graph's metadata says `{file name: {"sha256", "bytes"}}` under `EXTERNAL_KEY`; the file is named by its hash.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import onnx
from torch import Tensor

from vqa_train.core.errors import ModelError
from vqa_train.core.files import atomic_write
from vqa_train.core.hashing import canonical_json
from vqa_train.onnx.runtime import EXTERNAL_KEY

# Memory-mapped pages start at multiples of this.
_ALIGNMENT = 4096


def attach_weights(model: onnx.ModelProto, tensors: Mapping[str, Tensor], folder: Path) -> Path:
    """Turn the graph inputs named like `tensors` into initializers whose data is a file in `folder`.

    Args:
        model: exported without its parameters; changed in place.
        tensors: state-dict key -> tensor on the CPU.
        folder: where the graph will be written.

    Returns:
        The data file, `<first 16 of its sha256>.weights`.

    Raises:
        ModelError: an input that is neither one of the graph's own nor a tensor of the network.
        OSError: the file cannot be written.
    """
    wanted = [value for value in model.graph.input if value.name in tensors]
    temporary = folder / ".weights.unnamed"
    digest = hashlib.sha256()
    entries: list[onnx.TensorProto] = []

    def write(handle: IO[bytes]) -> None:
        position = 0
        for value in wanted:
            array = np.ascontiguousarray(tensors[value.name].detach().numpy())
            padding = b"\0" * (-position % _ALIGNMENT)
            for part in (padding, array.reshape(-1).view(np.uint8).data):
                handle.write(part)
                digest.update(part)
            position += len(padding)
            entries.append(_entry(value, array, position))
            position += array.nbytes

    try:
        atomic_write(temporary, write)
        sha256 = digest.hexdigest()
        path = temporary.replace(folder / f"{sha256[:16]}.weights")
    finally:
        temporary.unlink(missing_ok=True)
    for entry in entries:
        location = entry.external_data.add()
        location.key, location.value = "location", path.name
    for value in wanted:
        model.graph.input.remove(value)
    model.graph.initializer.extend(entries)
    metadata = model.metadata_props.add()
    metadata.key = EXTERNAL_KEY
    metadata.value = canonical_json({path.name: {"sha256": sha256, "bytes": path.stat().st_size}})
    return path


def _entry(value: onnx.ValueInfoProto, array: np.ndarray[Any, Any], offset: int) -> onnx.TensorProto:
    kind = value.type.tensor_type
    dims = [dim.dim_value for dim in kind.shape.dim]
    if math.prod(dims) != array.size:
        raise ModelError(f"weight {value.name!r} has shape {list(array.shape)}, the graph says {dims}")
    entry = onnx.TensorProto(name=value.name, data_type=kind.elem_type, dims=dims)
    entry.data_location = onnx.TensorProto.EXTERNAL
    for key, number in (("offset", offset), ("length", array.nbytes)):
        part = entry.external_data.add()
        part.key, part.value = key, str(number)
    return entry
