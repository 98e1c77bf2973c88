"""Does an ONNX file compute what torch computes? Every output, on real, random, extreme and missing rows; never
vacuously."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
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
_MISSING_ROWS = 16
_EXTREME_STDS = 10.0


@dataclass(frozen=True)
class ParitySet:
    """The largest differences of one output over one set of rows; `max_scaled_diff` is |a - b| / max(1, |b|), or what
    else the check measured against."""

    name: str
    rows: int
    max_abs_diff: float
    max_scaled_diff: float
    output: str = "scores"


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
    reference: Callable[[Rows], Outputs],
    onnx_path: Path,
    real_rows: Rows,
    *,
    tolerance: float = 1e-5,
    floor: Mapping[str, NDArray[Any]] | None = None,
    missing: bool = False,
    unbounded: Collection[str] = (),
    providers: Sequence[str] = CPU,
) -> ParityReport:
    """Compare every output of `reference` with the ONNX file's on real rows, random rows and extremes.

    The difference counts absolutely for values up to 1 and relatively beyond, since a float32 near 100 is itself
    only good to 1e-5; a value beside a score counts at least as that score does. Random rows have the real rows' mean
    and standard deviation per column; extremes are the columns' lowest and highest values, ten standard deviations
    either way, and zeros.

    Args:
        reference: input name -> float32 (N, ...) to output name -> (N, K), `scores` first; `torch_reference` makes
            one of a module.
        onnx_path: the file; it has these outputs in this order.
        real_rows: input name -> float32 (N, ...), rows as they occur in the store.
        tolerance: largest allowed scaled difference.
        floor: output name -> (K,) above 0: what a difference is measured against at least, instead of 1, where the
            scale of the labels is known.
        missing: NaN and infinity are inputs too: rows that miss each input, all of them, and parts of them.
        unbounded: outputs that may be infinite, equally on both sides.
        providers: execution providers to run with.

    Raises:
        ModelError: a difference over the tolerance, a NaN or infinity, another shape, other outputs, or a check that
            could not fail: no rows, rows that are all zero, an input or a score that is the same for every row.
    """
    model = OnnxModel(onnx_path, providers=providers)
    sets = []
    for name, rows in row_sets(real_rows, model.sha256, missing=missing).items():
        expected = {output: np.asarray(values) for output, values in reference(rows).items()}
        if list(expected) != list(model.outputs):
            raise ModelError(f"{onnx_path.name!r} has outputs {list(model.outputs)}, torch gives {list(expected)}")
        got = model.run(rows)
        first = next(iter(expected.values()))
        if name in ("real", "random") and len(first) > 1 and (np.ptp(first, axis=0) == 0).any():
            raise ModelError(
                f"parity of {onnx_path.name!r} means nothing: an output is the same for all {name} rows",
                hint="the head has collapsed; look at its training history",
            )
        for output, values in expected.items():
            least = 1.0 if floor is None else floor[output]
            one = compare(
                name,
                values,
                got[output],
                tolerance=tolerance,
                what=onnx_path.name,
                scale=np.maximum(least, np.maximum(np.abs(first), np.where(np.isfinite(values), np.abs(values), 0))),
                unbounded=output in unbounded,
                output=output,
            )
            sets.append(one)
    return ParityReport(tolerance=tolerance, opset=model.opset, providers=tuple(providers), sets=tuple(sets))


def compare(
    name: str,
    expected: NDArray[Any],
    got: NDArray[Any],
    *,
    tolerance: float,
    what: str,
    scale: NDArray[Any] | None = None,
    unbounded: bool = False,
    output: str = "scores",
) -> ParitySet:
    """The differences of one output over one set of rows.

    Args:
        name, what, output: for the report and for messages: which rows, which file, which of its outputs.
        expected, got: same shape, rows first.
        tolerance: largest allowed |expected - got| / scale.
        scale: what differences are measured against, broadcast to the rows; default max(1, |expected|).
        unbounded: an infinity agrees with the same infinity.

    Raises:
        ModelError: another shape, a NaN or infinity on either side, or a difference over the tolerance.
    """
    if expected.shape != got.shape:
        raise ModelError(f"parity of {what!r} on {name} rows: torch gives {expected.shape}, onnxruntime {got.shape}")
    report = measure(name, expected, got, scale=scale, unbounded=unbounded, output=output)
    if np.isnan(report.max_abs_diff):
        raise ModelError(f"parity of {what!r} on {name} rows: an output is NaN or infinite: {output}")
    if report.max_scaled_diff > tolerance:
        raise ModelError(
            f"parity of {what!r} fails on {name} rows: torch and onnxruntime differ by {report.max_abs_diff:.3g} "
            f"(scaled {report.max_scaled_diff:.3g}) in {output}, allowed {tolerance:g}",
            hint="the exported graph computes something else than the module",
        )
    return report


def measure(
    name: str,
    expected: NDArray[Any],
    got: NDArray[Any],
    *,
    scale: NDArray[Any] | None = None,
    unbounded: bool = False,
    output: str = "scores",
) -> ParitySet:
    """The differences of one output over one set of rows, of equal shape; NaN where either side has a NaN, or an
    infinity that the other lacks or that `unbounded` does not allow. Arguments as for `compare`."""
    same = np.isinf(expected) & (expected == got) & unbounded
    if not ((np.isfinite(expected) & np.isfinite(got)) | same).all():
        return ParitySet(name, len(expected), float("nan"), float("nan"), output)
    ours, theirs = (np.where(same, 0.0, values).astype(np.float64) for values in (expected, got))
    difference = np.abs(ours - theirs)
    scaled = difference / (np.maximum(1.0, np.abs(ours)) if scale is None else scale)
    return ParitySet(name, len(expected), float(difference.max()), float(scaled.max()), output)


def torch_reference(
    module: nn.Module, input_names: Sequence[str], output_names: Sequence[str] = ("scores",)
) -> Callable[[Rows], Outputs]:
    """`module` as a function of named arrays, in inference mode; inputs and outputs are in these orders."""
    import torch

    def reference(rows: Rows) -> Outputs:
        training = module.training
        module.eval()
        try:
            with torch.inference_mode():
                given = module(*(torch.from_numpy(rows[name]) for name in input_names))
                results = given if isinstance(given, tuple) else (given,)
                return {name: values.numpy() for name, values in zip(output_names, results, strict=True)}
        finally:
            module.train(training)

    return reference


def _refuse_vacuous_rows(rows: Rows) -> None:
    if not rows or any(len(array) == 0 for array in rows.values()):
        raise ModelError("parity was given no real rows, so it would check nothing")
    for name, array in rows.items():
        if not np.isfinite(array).any():
            raise ModelError(f"parity was given no finite value for input {name!r}, so it would check nothing")
        if not array.any():
            raise ModelError(f"parity was given only zeros for input {name!r}, so it would check nothing")
        if len(array) > 1 and (array == array[0]).all():
            raise ModelError(f"parity was given the same row {len(array)} times for input {name!r}")


def row_sets(real: Rows, sha256: str, *, missing: bool) -> dict[str, dict[str, NDArray[np.float32]]]:
    """Rows to compare on: `real`, `random`, `extremes` and, with `missing`, rows that lack inputs or parts of them.

    Args:
        real: input name -> float32 (N, ...), rows as they occur in the store.
        sha256: of the graph; it decides the random rows.
        missing: NaN and infinity are inputs too.

    Raises:
        ModelError: rows on which no check could fail: none, all zero, all the same.
    """
    _refuse_vacuous_rows(real)
    random, extremes = {}, {}
    for name, given in real.items():
        rng = np.random.default_rng(seed_from("parity", sha256, name))
        rows = _filled(given)
        mean, std = rows.mean(axis=0, dtype=np.float64), rows.std(axis=0, dtype=np.float64)
        # One real row has no spread; its own size is the next best guess. A constant column stays constant.
        spread = std if len(rows) > 1 else np.maximum(np.abs(mean), 1.0)
        random[name] = (mean + spread * rng.standard_normal((_RANDOM_ROWS, *rows.shape[1:]))).astype(np.float32)
        far = (mean - _EXTREME_STDS * spread, mean + _EXTREME_STDS * spread)
        extremes[name] = np.stack([rows.min(axis=0), rows.max(axis=0), *far, np.zeros_like(mean)]).astype(np.float32)
    sets = {"real": {name: np.ascontiguousarray(r, dtype=np.float32) for name, r in real.items()}} | {
        "random": random,
        "extremes": extremes,
    }
    return sets | {"missing": _missing(random)} if missing else sets


def _filled(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows with the mean of the finite values of a column where it has none; 0 for a column without any."""
    finite = np.isfinite(rows)
    if finite.all():
        return rows
    values = np.where(finite, rows, 0)
    mean = values.sum(axis=0, dtype=np.float64) / np.maximum(1, finite.sum(axis=0))
    return np.where(finite, rows, mean).astype(np.float32)


def _missing(random: Rows) -> dict[str, NDArray[np.float32]]:
    """Random rows that miss the first input, those that miss the second, and so on; then all of it; then a part."""
    names = list(random)
    blocks: dict[str, list[NDArray[np.float32]]] = {name: [] for name in names}
    for absent in [*names, None]:
        for name in names:
            block = random[name][:_MISSING_ROWS].copy()
            if absent in (name, None):
                block[:] = np.nan
            blocks[name].append(block)
    for broken in (np.nan, np.inf, -np.inf):
        for name in names:
            block = random[name][:_MISSING_ROWS].copy()
            block.reshape(len(block), -1)[:, ::3] = broken
            blocks[name].append(block)
    return {name: np.concatenate(parts) for name, parts in blocks.items()}
