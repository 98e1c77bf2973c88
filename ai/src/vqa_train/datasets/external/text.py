"""Values of any column as text: ids that were stored as whole numbers keep their digits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Beyond this a float64 has lost digits, and two ids may have become one.
_EXACT = 2**53


def float_text(value: float) -> str | None:
    """`3339962845.0` as "3339962845", `1.5` as "1.5", NaN as ""; None where a whole number has lost digits."""
    if np.isnan(value):
        return ""
    if not np.isfinite(value) or not float(value).is_integer():
        return repr(float(value))
    return str(int(value)) if abs(value) <= _EXACT else None


def texts_of(values: NDArray[Any]) -> list[str | None]:
    """Each value of a one-dimensional array as text; None where it cannot be one."""
    if values.dtype.kind == "f":
        return [float_text(value) for value in values.tolist()]
    return [text_of(value) for value in values.tolist()]


def text_of(value: Any) -> str | None:
    """One value as text, stripped; "" for nothing, None for what cannot be text (an array, what is no UTF-8)."""
    if value is None:
        return ""
    if isinstance(value, float):
        return float_text(value)
    try:
        if isinstance(value, bytes):
            return value.decode("utf-8").strip()
        if isinstance(value, str):
            value.encode("utf-8")
            return value.strip()
    except UnicodeError:
        return None
    return str(value) if isinstance(value, int) else None


def first_none(texts: Iterable[str | None]) -> int | None:
    """Position of the first None."""
    return next((i for i, text in enumerate(texts) if text is None), None)
