"""Ranges of `tune`: numbers or choices that a setting takes, from text or from a mapping."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import yaml
from pydantic import Field

from vqa_train.core.config import StrictModel, parse
from vqa_train.core.errors import ConfigError, UsageError
from vqa_train.core.hashing import canonical_json

FORM = "NAME=float:LOW:HIGH[:log], NAME=int:LOW:HIGH[:log] or NAME=categorical:A|B|C"


class NumberRange(StrictModel):
    """Numbers from `low` to `high`, both included; `log` draws their logarithm evenly."""

    kind: Literal["float", "int"]
    low: float
    high: float
    log: bool = False


class Choices(StrictModel):
    """Some values; lists and null are allowed."""

    kind: Literal["categorical"]
    choices: list[Any] = Field(min_length=1)


@dataclass(frozen=True)
class Param:
    """One setting that varies.

    Attributes:
        path: of `TrainConfig` (`optimizer.lr`), or `weight`; after a member's name and a dot where it is of one only.
        range: what it takes.
    """

    path: str
    range: NumberRange | Choices

    def stored(self, value: Any) -> Any:
        """A value as the study keeps it: a number, text, a boolean, null, or the JSON text of a list."""
        if isinstance(self.range, Choices):
            return _stored(value)
        return int(value) if self.range.kind == "int" else float(value)

    def value(self, stored: Any) -> Any:
        """The setting that a stored value stands for."""
        if isinstance(self.range, Choices):
            return next(choice for choice in self.range.choices if same(_stored(choice), stored))
        return stored

    def holds(self, value: Any) -> bool:
        """Whether the range has this value."""
        if isinstance(self.range, Choices):
            return any(same(_stored(choice), _stored(value)) for choice in self.range.choices)
        return isinstance(value, int | float) and self.range.low <= value <= self.range.high

    @property
    def edges(self) -> list[Any]:
        """The values that show whether the range fits its setting."""
        if isinstance(self.range, Choices):
            return self.range.choices
        return [self.stored(self.range.low), self.stored(self.range.high)]


def range_of(value: Any, source: str) -> str | NumberRange | Choices:
    """What a file says of a setting: text as on the command line, or a mapping."""
    if isinstance(value, str):
        return value
    kind = value.get("kind") if isinstance(value, dict) else None
    if kind == "categorical":
        return parse(Choices, value, source)
    if kind not in ("float", "int"):
        raise ConfigError(
            f"{source} must be text such as float:1e-4:1e-2:log, or a mapping of kind float, int or categorical",
            hint="for example {kind: float, low: 1e-4, high: 1e-2, log: true}",
        )
    return parse(NumberRange, value, source)


def parse_range(name: str, text: str) -> NumberRange | Choices:
    """The range that `float:LOW:HIGH[:log]`, `int:LOW:HIGH[:log]` or `categorical:A|B|C` describes.

    Raises:
        UsageError: anything else.
    """
    kind, _, rest = text.strip().partition(":")
    source = f"parameter {name!r}: {text!r}"
    if kind == "categorical":
        try:
            choices = [yaml.safe_load(part) for part in rest.split("|")]
        except yaml.YAMLError as error:
            raise UsageError(f"{source} has a choice that is no YAML value", hint=f"write {FORM}") from error
        return checked(name, Choices(kind="categorical", choices=[_number(choice) for choice in choices]))
    parts = rest.split(":")
    if kind not in ("float", "int") or len(parts) not in (2, 3) or parts[2:] not in ([], ["log"]):
        raise UsageError(f"{source} is not understood", hint=f"write {FORM}")
    try:
        low, high = float(parts[0]), float(parts[1])
    except ValueError as error:
        raise UsageError(f"{source}: the ends of a range must be numbers", hint=f"write {FORM}") from error
    return checked(name, NumberRange(kind="int" if kind == "int" else "float", low=low, high=high, log=len(parts) == 3))


def checked(name: str, value: NumberRange | Choices) -> NumberRange | Choices:
    if isinstance(value, Choices):
        try:
            texts = [canonical_json(choice) for choice in value.choices]
        except (TypeError, ValueError) as error:
            raise UsageError(f"parameter {name!r} has a choice that is no JSON value: {error}") from error
        if len(set(texts)) < len(texts):
            raise UsageError(f"parameter {name!r} has a choice twice: {', '.join(texts)}")
        return value
    whole = value.kind == "float" or (value.low.is_integer() and value.high.is_integer())
    ends = math.isfinite(value.low) and math.isfinite(value.high) and value.low < value.high
    if not whole or not ends or (value.log and value.low <= 0):
        need = "finite ends" if value.kind == "float" else "whole numbers at its ends"
        above = ", the lower above 0," if value.log else ""
        raise UsageError(
            f"parameter {name!r}: a range of {value.kind} needs {need}{above} and the lower below the upper, "
            f"got {value.low:g} to {value.high:g}"
        )
    return value


def _number(value: Any) -> Any:
    """YAML takes 1e-3 for text."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _stored(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float | str) else canonical_json(value)


def same(a: Any, b: Any) -> bool:
    """Equal, and of one kind: True is not 1."""
    return isinstance(a, bool) == isinstance(b, bool) and a == b
