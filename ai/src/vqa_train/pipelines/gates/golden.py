"""The golden rows of a model as its inputs; imports neither torch nor what reads a store."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.errors import ModelError
from vqa_train.registry.sidecar import ModelSidecar


def golden_inputs(sidecar: ModelSidecar) -> dict[str, NDArray[np.float32]]:
    """Input name -> float32 (N, *shape) of the golden rows.

    Raises:
        ModelError: there are none, or they do not fit the inputs.
    """
    golden = sidecar.golden_rows.inputs
    dims = {item.name: item.dims for item in sidecar.inputs}
    if sorted(golden) != sorted(dims) or not all(golden.values()):
        raise ModelError(f"model {sidecar.name!r} has golden rows of {sorted(golden)}, its inputs are {sorted(dims)}")
    try:
        return {
            name: np.asarray(golden[name], dtype=np.float32).reshape(len(golden[name]), *shape)
            for name, shape in dims.items()
        }
    except ValueError as error:
        raise ModelError(f"model {sidecar.name!r} has golden rows that do not fit its inputs: {error}") from error
