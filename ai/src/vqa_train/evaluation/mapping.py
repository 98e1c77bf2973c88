"""Which mappings from predictions to the labels' scale there are, by the name that reports and the command use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

from numpy.typing import ArrayLike

from vqa_train.core.errors import UsageError
from vqa_train.core.plugins import did_you_mean
from vqa_train.evaluation.curve import Curve
from vqa_train.evaluation.linear import fit_line
from vqa_train.evaluation.logistic import fit_logistic
from vqa_train.evaluation.logistic5 import fit_logistic5

MappingName = Literal["logistic4", "logistic5", "linear", "none"]
MAPPINGS: tuple[MappingName, ...] = get_args(MappingName)

_FITS: dict[str, Callable[[ArrayLike, ArrayLike], Curve]] = {
    "logistic4": fit_logistic,
    "logistic5": fit_logistic5,
    "linear": fit_line,
}


def check_mapping(name: str) -> None:
    """Refuse a mapping that does not exist.

    Raises:
        UsageError: with the nearest known name.
    """
    if name not in MAPPINGS:
        raise UsageError(f"unknown mapping {name!r}", hint=did_you_mean(name, list(MAPPINGS)))


def fit_mapping(name: str, predicted: ArrayLike, target: ArrayLike) -> Curve | None:
    """The mapping `name` fitted to predicted and target, (N,) each; None for "none".

    Raises:
        MappingFitError: it cannot be fitted; the message says why.
        UsageError: no such mapping.
        ValueError: shapes differ.
    """
    check_mapping(name)
    return _FITS[name](predicted, target) if name != "none" else None
