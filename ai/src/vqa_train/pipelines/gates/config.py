"""Limits of gates: defaults, then a section of a gate file, then flags."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from vqa_train.core.config import StrictModel, load_yaml, parse
from vqa_train.core.errors import ConfigError
from vqa_train.core.packaged import config_file
from vqa_train.core.plugins import did_you_mean

GATES_SCHEMA = "vqa-train/gates/1"
SECTIONS = ("parity", "drift", "compat", "ops", "profile", "quantize", "bisect", "promote", "compare_models")

Limits = TypeVar("Limits", bound=StrictModel)


def resolve(limits: type[Limits], section: str, file: Path | None, flags: Mapping[str, Any]) -> Limits:
    """The limits of one gate.

    Args:
        limits: their class, whose defaults hold where nothing else is said.
        section: of the gate file, one of `SECTIONS`.
        file: YAML of schema `vqa-train/gates/1`: section -> limits; None for none.
        flags: limit -> value; None where the flag was not given.

    Raises:
        ConfigError: the file is missing, malformed, has an unknown section, or a limit is unknown or out of range.
    """
    values: dict[str, Any] = {} if file is None else _section(file, section)
    values |= {name: value for name, value in flags.items() if value is not None}
    return parse(limits, values, f"{file}: {section}" if file is not None else f"limits of {section}")


def gate_file(file: Path) -> Path:
    """The gate file at `file`, or the one of that name that comes with the package (`release`).

    Raises:
        ConfigError: a name that is neither.
    """
    return config_file(file, "gate file", "gates")


def _section(file: Path, section: str) -> dict[str, Any]:
    file = gate_file(file)
    value = load_yaml(file, "gate file")
    if not isinstance(value, dict) or value.get("schema") != GATES_SCHEMA:
        found = value.get("schema") if isinstance(value, dict) else None
        raise ConfigError(f"gate file {str(file)!r} has schema {found!r}, expected {GATES_SCHEMA!r}")
    for name in value:
        if name != "schema" and name not in SECTIONS:
            raise ConfigError(
                f"gate file {str(file)!r} has an unknown section {name!r}",
                hint=did_you_mean(str(name), list(SECTIONS)),
            )
    found = value.get(section)
    if found is not None and not isinstance(found, dict):
        raise ConfigError(f"gate file {str(file)!r}: section {section!r} must map limits to values")
    return dict(found or {})
