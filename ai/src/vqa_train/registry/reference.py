"""How a registered model is named: NAME, NAME:VERSION or NAME@ALIAS."""

from __future__ import annotations

import re
from dataclasses import dataclass

from vqa_train.core.errors import UsageError

CHAMPION = "champion"
"""The alias that `promote` moves; NAME alone means it where there is one."""
NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}"
_REFERENCE = re.compile(rf"({NAME_PATTERN})(?:([:@])({NAME_PATTERN}))?")


@dataclass(frozen=True)
class ModelRef:
    """One model of a registry.

    Attributes:
        name: of the model.
        version: which version; None where an alias or nothing is named.
        alias: which alias; None where a version or nothing is named.
    """

    name: str
    version: str | None = None
    alias: str | None = None

    @classmethod
    def parse(cls, text: str) -> ModelRef:
        """The reference that `text` writes.

        Raises:
            UsageError: another form.
        """
        found = _REFERENCE.fullmatch(text)
        if found is None:
            raise UsageError(f"{text!r} names no model", hint="NAME, NAME:VERSION or NAME@ALIAS")
        name, sign, rest = found.groups()
        return cls(name, version=rest if sign == ":" else None, alias=rest if sign == "@" else None)

    def __str__(self) -> str:
        if self.version is not None:
            return f"{self.name}:{self.version}"
        return self.name if self.alias is None else f"{self.name}@{self.alias}"
