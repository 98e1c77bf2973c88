"""What callers hand to the store, FeatureRow and Failure, and the checks that a row passes before it is written."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.errors import Reason, StoreError
from vqa_train.core.hashing import canonical_json
from vqa_train.core.types import FeatureSpec
from vqa_train.store.layout import KEY, KEY_COLUMNS, OUTPUT_NAME, VIEW_COLUMN

FACTS: Mapping[str, type] = {
    "num_frames": int,
    "fps": float,
    "width": int,
    "height": int,
    "duration_s": float,
    "codec": str,
    "decoder": str,
}
"""Columns about the clip that every row of a video set carries; a row of a text or imported set carries none."""


@dataclass(frozen=True, kw_only=True)
class FeatureRow:
    """The features of one view of one video or text.

    Attributes:
        key: hex sha256 of the video's bytes or of the text's UTF-8.
        view: 0-based number of the view.
        outputs: name -> float32 array of the shape in the spec.
        facts: `Clip.facts()` for a video, empty for a text and for imported features.
    """

    key: str
    outputs: Mapping[str, NDArray[np.float32]]
    view: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """An input that gave no feature.

    Attributes:
        key: hex sha256 of its content, or None when it could not be read.
        id: of the video in its dataset.
        path: as the dataset names it.
        reason: code.
        message: one line for people.
    """

    key: str | None
    id: str
    path: str
    reason: Reason
    message: str


@dataclass(frozen=True, kw_only=True)
class RecordedFailure(Failure):
    """A failure as the store holds it.

    Attributes:
        run_id: the run that met it.
        created: UTC time, ISO 8601 with microseconds.
    """

    run_id: str
    created: str


def fact_names(spec: FeatureSpec) -> list[str]:
    """The fact columns of a feature set, in order: those of a clip, where the features were extracted from one."""
    return list(FACTS) if spec.modality == "video" and not spec.imported else []


def num_views(spec: FeatureSpec) -> int:
    """Views that a key has when it is complete."""
    return spec.sampling.views if spec.sampling is not None else 1


def check_spec(spec: FeatureSpec) -> None:
    """Refuse a spec that cannot be laid out as columns.

    Raises:
        StoreError: no outputs, two of one name, a name that is no column name or is taken, a dimension below 1.
    """
    taken = {*KEY_COLUMNS.values(), VIEW_COLUMN, *FACTS}
    if not spec.outputs:
        raise StoreError(f"feature set {spec.set_name} has no outputs")
    for output in spec.outputs:
        if not OUTPUT_NAME.fullmatch(output.name) or output.name in taken:
            raise StoreError(
                f"feature set {spec.set_name}: {output.name!r} cannot be an output's name",
                hint=f"lower-case letters, digits and _, not used twice, none of {', '.join(sorted(taken))}",
            )
        if any(size < 1 for size in output.shape):
            raise StoreError(f"feature set {spec.set_name}: output {output.name!r} has shape {output.shape}")
        taken.add(output.name)


def checked_row(spec: FeatureSpec, row: FeatureRow) -> FeatureRow:
    """`row` with facts as plain int, float and str, or an error; nothing is cast or filled in silently.

    Raises:
        StoreError: key, view, output names, dtype, shape or facts are not what the spec says; with reason
            `non_finite` when an output of a set that was not imported holds NaN or infinity.
    """
    if not KEY.fullmatch(row.key):
        raise StoreError(f"row key {row.key!r} is not 64 lower-case hex digits")
    name = f"row {row.key[:12]} view {row.view} of {spec.set_name}"
    if not 0 <= row.view < num_views(spec):
        raise StoreError(f"{name}: view must be 0 to {num_views(spec) - 1}")
    expected = [output.name for output in spec.outputs]
    if set(row.outputs) != set(expected):
        raise StoreError(f"{name}: expected outputs {expected}, got {list(row.outputs)}")
    for output in spec.outputs:
        check_array(name, output.name, output.shape, row.outputs[output.name], finite=not spec.imported)
    facts = _checked_facts(name, spec, row.facts)
    return FeatureRow(key=row.key, view=int(row.view), outputs=row.outputs, facts=facts)


def check_array(name: str, output: str, shape: tuple[int, ...], array: Any, *, finite: bool) -> None:
    """Refuse an array of another dtype or shape, and with `finite` one that holds NaN or infinity.

    Raises:
        StoreError: `name` and `output` say where; with reason `non_finite` for NaN and infinity.
    """
    known = isinstance(array, np.ndarray | np.generic)
    if not known or array.dtype != np.float32 or array.shape != shape:
        got = f"{array.dtype} {array.shape}" if known else type(array).__name__
        raise StoreError(f"{name}: output {output!r} must be float32 {shape}, got {got}")
    bad = int(array.size - np.count_nonzero(np.isfinite(array))) if finite else 0
    if bad:
        raise StoreError(
            f"{name}: {bad} of {array.size} values of output {output!r} are NaN or infinite",
            reason=Reason.NON_FINITE,
        )


def _checked_facts(name: str, spec: FeatureSpec, facts: Mapping[str, Any]) -> dict[str, Any]:
    expected = {fact: FACTS[fact] for fact in fact_names(spec)}
    if set(facts) != set(expected):
        raise StoreError(f"{name}: expected facts {list(expected)}, got {list(facts)}")
    checked = {}
    for fact, kind in expected.items():
        value = facts[fact]
        accepted = {int: (int, np.integer), float: (int, float, np.integer, np.floating), str: (str,)}[kind]
        if not isinstance(value, accepted) or isinstance(value, bool):
            raise StoreError(f"{name}: fact {fact!r} must be {kind.__name__}, got {value!r}")
        if kind is float and not np.isfinite(value):
            raise StoreError(f"{name}: fact {fact!r} must be finite, got {value!r}", reason=Reason.NON_FINITE)
        checked[fact] = kind(value)
    return checked


def row_digest(spec: FeatureSpec, row: FeatureRow) -> str:
    """First 16 hex digits of the sha256 of a checked row: key, view, facts as JSON, outputs as little-endian float32.

    Of two rows with one key and view the one with the smaller digest is read, so what is read does not depend on
    the order of shards.
    """
    digest = hashlib.sha256(canonical_json([row.key, row.view, dict(row.facts)]).encode("utf-8"))
    for output in spec.outputs:
        digest.update(np.ascontiguousarray(row.outputs[output.name], dtype="<f4").tobytes())
    return digest.hexdigest()[:16]
