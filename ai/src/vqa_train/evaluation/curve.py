"""What every mapping from predictions to the scale of the labels shares: its protocol, its error, the rows it takes."""

from __future__ import annotations

from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import ArrayLike

from vqa_train.core.errors import VqaError
from vqa_train.evaluation.pairs import Floats, finite_pairs, is_constant


class MappingFitError(VqaError):
    """A mapping cannot be fitted to these scores; the message says why."""


class Curve(Protocol):
    """A fitted mapping.

    Attributes:
        kind: its name in reports ("logistic4").
        degrees: fitted parameters, the d of ITU-T P.1401's 1 / (N - d).
    """

    kind: ClassVar[str]
    degrees: ClassVar[int]

    def __call__(self, predicted: ArrayLike) -> Floats:
        """Mapped predictions, float64 of the same shape; NaN stays NaN."""
        ...

    def parameters(self) -> dict[str, float]:
        """Name -> value, as reported."""
        ...


def rows_to_fit(
    kind: str, predicted: ArrayLike, target: ArrayLike, *, rows: int, distinct: int
) -> tuple[Floats, Floats]:
    """The rows where both scores are finite, sorted: sums, and with them the curve, do not depend on the order given.

    Args:
        kind: the mapping's name, for the message.
        predicted, target: (N,).
        rows: how many it needs at least.
        distinct: how many distinct predictions it needs at least.

    Raises:
        MappingFitError: too few rows or distinct predictions, or constant predictions or labels.
        ValueError: shapes differ.
    """
    x, y = finite_pairs(predicted, target)
    if len(x) < rows:
        raise MappingFitError(f"{kind} mapping needs at least {rows} rows with both scores, got {len(x)}")
    for name, values in (("predictions", x), ("labels", y)):
        if is_constant(values):
            raise MappingFitError(f"{kind} mapping is undefined: the {name} are constant")
    if len(np.unique(x)) < distinct:
        raise MappingFitError(f"{kind} mapping is undefined: fewer than {distinct} distinct predictions")
    order = np.lexsort((y, x))
    return x[order], y[order]
