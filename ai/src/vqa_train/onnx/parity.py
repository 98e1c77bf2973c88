"""Does an ONNX file compute what torch computes? Compared on real rows, random rows and extremes; never vacuously."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.errors import ModelError
from vqa_train.core.hashing import seed_from
from vqa_train.onnx.runtime import CPU, OnnxModel

if TYPE_CHECKING:
    from torch import nn

Rows = Mapping[str, NDArray[np.float32]]
Outputs = Mapping[str, NDArray[Any]]

_RANDOM_ROWS = 64
_EXTREME_STDS = 10.0


@dataclass(frozen=True)
class ParitySet:
    """The largest differences over one set of rows; `max_scaled_diff` is |a - b| / max(1, |b|)."""

    name: str
    rows: int
    max_abs_diff: float
    max_scaled_diff: float


@dataclass(frozen=True)
class ParityReport:
    """A parity check that passed: every scaled difference is at most `tolerance`."""

    tolerance: float
    opset: int
    providers: tuple[str, ...]
    sets: tuple[ParitySet, ...]

    def to_json(self) -> dict[str, Any]:
        """JSON values for the sidecar."""
        return {**asdict(self), "providers": list(self.providers), "sets": [asdict(item) for item in self.sets]}


def check_parity(
    reference: Callable[[Rows], NDArray[Any]],
    onnx_path: Path,
    real_rows: Rows,
    *,
    tolerance: float = 1e-5,
    output: str = "scores",
    providers: Sequence[str] = CPU,
) -> ParityReport:
    """Compare `reference` with the ONNX file on real rows, random rows and extremes.

    The difference counts absolutely for values up to 1 and relatively beyond, since a float32 near 100 is itself
    only good to 1e-5. Random rows have the real rows' mean and standard deviation per column; extremes are the
    columns' lowest and highest values, ten standard deviations either way, and zeros.

    Args:
        reference: input name -> float32 (N, D) to (N, K); `torch_reference` makes one of a module.
        onnx_path: the file.
        real_rows: input name -> float32 (N, D), rows as they occur in the store.
        tolerance: largest allowed scaled difference.
        output: name of the graph's output.
        providers: execution providers to run with.

    Raises:
        ModelError: a difference over the tolerance, a NaN or infinity, another shape, or a check that could not
            fail: no rows, rows that are all zero, an input or an output that is the same for every row.
    """
    _refuse_vacuous_rows(real_rows)
    model = OnnxModel(onnx_path, providers=providers)
    if output not in model.outputs:
        raise ModelError(f"{onnx_path.name!r} has no output {output!r}, it has {sorted(model.outputs)}")
    sets = []
    for name, rows in _row_sets(real_rows, model.sha256).items():
        expected = np.asarray(reference(rows))
        got = model.run(rows)[output]
        if name != "extremes" and len(expected) > 1 and (np.ptp(expected, axis=0) == 0).any():
            raise ModelError(
                f"parity of {onnx_path.name!r} means nothing: an output is the same for all {name} rows",
                hint="the head has collapsed; look at its training history",
            )
        sets.append(compare(name, expected, got, tolerance=tolerance, what=onnx_path.name))
    return ParityReport(tolerance=tolerance, opset=model.opset, providers=tuple(providers), sets=tuple(sets))


def compare(
    name: str,
    expected: NDArray[Any],
    got: NDArray[Any],
    *,
    tolerance: float,
    what: str,
    scale: NDArray[Any] | None = None,
) -> ParitySet:
    """The differences of one set of rows.

    Args:
        name, what: for the report and for messages: which rows, which file.
        expected, got: same shape, rows first.
        tolerance: largest allowed |expected - got| / scale.
        scale: what differences are measured against, broadcast to the rows; default max(1, |expected|).

    Raises:
        ModelError: another shape, a NaN or infinity on either side, or a difference over the tolerance.
    """
    if expected.shape != got.shape:
        raise ModelError(f"parity of {what!r} on {name} rows: torch gives {expected.shape}, onnxruntime {got.shape}")
    if not (np.isfinite(expected).all() and np.isfinite(got).all()):
        raise ModelError(f"parity of {what!r} on {name} rows: an output is NaN or infinite")
    difference = np.abs(expected.astype(np.float64) - got.astype(np.float64))
    scaled = difference / (np.maximum(1.0, np.abs(expected)) if scale is None else scale)
    report = ParitySet(name, len(expected), float(difference.max()), float(scaled.max()))
    if report.max_scaled_diff > tolerance:
        raise ModelError(
            f"parity of {what!r} fails on {name} rows: torch and onnxruntime differ by {report.max_abs_diff:.3g} "
            f"(scaled {report.max_scaled_diff:.3g}), allowed {tolerance:g}",
            hint="the exported graph computes something else than the module",
        )
    return report


def torch_reference(module: nn.Module, input_names: Sequence[str]) -> Callable[[Rows], NDArray[Any]]:
    """`module` as a function of named arrays, in inference mode; it takes the inputs in this order."""
    import torch

    def reference(rows: Rows) -> NDArray[Any]:
        training = module.training
        module.eval()
        try:
            with torch.inference_mode():
                scores: NDArray[Any] = module(*(torch.from_numpy(rows[name]) for name in input_names)).numpy()
                return scores
        finally:
            module.train(training)

    return reference


def _refuse_vacuous_rows(rows: Rows) -> None:
    if not rows or any(len(array) == 0 for array in rows.values()):
        raise ModelError("parity was given no real rows, so it would check nothing")
    for name, array in rows.items():
        if not array.any():
            raise ModelError(f"parity was given only zeros for input {name!r}, so it would check nothing")
        if len(array) > 1 and (array == array[0]).all():
            raise ModelError(f"parity was given the same row {len(array)} times for input {name!r}")


def _row_sets(real: Rows, sha256: str) -> dict[str, dict[str, NDArray[np.float32]]]:
    random, extremes = {}, {}
    for name, rows in real.items():
        rng = np.random.default_rng(seed_from("parity", sha256, name))
        mean, std = rows.mean(axis=0, dtype=np.float64), rows.std(axis=0, dtype=np.float64)
        # One real row has no spread; its own size is the next best guess. A constant column stays constant.
        spread = std if len(rows) > 1 else np.maximum(np.abs(mean), 1.0)
        random[name] = (mean + spread * rng.standard_normal((_RANDOM_ROWS, rows.shape[1]))).astype(np.float32)
        far = (mean - _EXTREME_STDS * spread, mean + _EXTREME_STDS * spread)
        extremes[name] = np.stack([rows.min(axis=0), rows.max(axis=0), *far, np.zeros_like(mean)]).astype(np.float32)
    return {"real": {name: np.ascontiguousarray(r, dtype=np.float32) for name, r in real.items()}} | {
        "random": random,
        "extremes": extremes,
    }
