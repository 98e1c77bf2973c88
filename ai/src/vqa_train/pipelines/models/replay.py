"""Runs a head on its golden rows: every output is what the sidecar says, and intervals are as wide as it says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.errors import ModelError
from vqa_train.onnx.parity import compare
from vqa_train.onnx.runtime import OnnxModel
from vqa_train.registry.sidecar import HIGH, LOW, SCORES, SPREAD, ModelSidecar

_UNBOUNDED = {LOW: -np.inf, HIGH: np.inf}


def replay_golden(head: OnnxModel, sidecar: ModelSidecar) -> None:
    """Compare a head's outputs on its golden rows with those in the sidecar.

    Raises:
        ModelError: there are no golden rows, they do not fit the model, or a difference is over their tolerance.
    """
    golden, name = sidecar.golden_rows, sidecar.name
    if not golden.scores or not golden.inputs:
        raise ModelError(f"model {name!r} has no golden rows, so its graph cannot be checked against them")
    claimed: dict[str, Any] = {SCORES: golden.scores, **(golden.outputs or {})}
    if sorted(claimed) != sorted(sidecar.output_names):
        raise ModelError(f"model {name!r} has golden rows of {sorted(claimed)}, its outputs are {sidecar.output_names}")
    shapes = {item.name: item.dims for item in sidecar.inputs}
    try:
        expected = {output: np.asarray(rows, dtype=np.float64) for output, rows in claimed.items()}
        inputs = {
            key: np.asarray(rows, dtype=np.float32).reshape(len(golden.scores), *shapes[key])
            for key, rows in golden.inputs.items()
        }
    except (KeyError, ValueError) as error:
        raise ModelError(f"model {name!r} has golden rows that do not fit its inputs: {error}") from error
    got = head.run(inputs)
    for output, values in expected.items():
        end = _UNBOUNDED.get(output)
        _compare(sidecar, output, values if end is None else np.where(np.isnan(values), end, values), got)
    if sidecar.calibration is not None and sidecar.calibration.bounded:
        unit = got[SPREAD] if sidecar.calibration.normalised else np.ones_like(got[SCORES])
        half = _half_widths(sidecar, unit)
        _compare(sidecar, LOW, got[SCORES] - half, got)
        _compare(sidecar, HIGH, got[SCORES] + half, got)


def _half_widths(sidecar: ModelSidecar, unit: NDArray[Any]) -> NDArray[np.float64]:
    """(N, K), infinite for a target without an interval."""
    widths = sidecar.calibration.half_widths if sidecar.calibration else {}
    columns = [
        widths[target] * unit[:, k].astype(np.float64) if target in widths else np.full(len(unit), np.inf)
        for k, target in enumerate(sidecar.targets)
    ]
    return np.stack(columns, axis=1)


def _compare(sidecar: ModelSidecar, output: str, expected: NDArray[Any], outputs: Mapping[str, NDArray[Any]]) -> None:
    got = outputs[output]
    bounded = np.isfinite(expected)
    compare(
        "golden",
        expected,
        got,
        tolerance=sidecar.golden_rows.tolerance,
        what=sidecar.name,
        scale=np.maximum(1.0, np.maximum(np.abs(outputs[SCORES]), np.where(bounded, np.abs(expected), 0.0))),
        unbounded=output in _UNBOUNDED,
        output=output,
    )
