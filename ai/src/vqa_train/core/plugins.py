"""Lazy registries: name -> "module:attribute", built in or from third parties' entry points."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from vqa_train.core.errors import DependencyError, UsageError

_MAX_NAME = 200


def did_you_mean(name: str, known: list[str]) -> str:
    """A hint that names the nearest known names, or all of them."""
    # A name of 100,000 characters out of a hostile file would take seconds.
    near = difflib.get_close_matches(name[:_MAX_NAME], known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known)) or 'none'}"


@contextmanager
def needs(what: str, extra: str) -> Iterator[None]:
    """Around imports: a package that is not installed becomes an error that names the extra to install.

    Raises:
        DependencyError: a package is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if str(error.name).startswith("vqa_train."):
            raise  # a fault of ours, which no installation mends
        raise DependencyError(
            f"{what} needs the package {error.name!r}, which is not installed", hint=f"pip install 'vqa-train[{extra}]'"
        ) from error


class Registry:
    """Plug-ins of one kind; nothing is imported before it is asked for.

    Args:
        kind: what one entry is, for messages ("backbone").
        builtin: name -> "module:attribute".
        extra: the optional install that provides third-party imports of this kind ("backbones").
    """

    def __init__(self, kind: str, builtin: Mapping[str, str], *, extra: str | None = None) -> None:
        self.kind = kind
        self._builtin = dict(builtin)
        self._extra = extra

    @cached_property
    def _entry_points(self) -> dict[str, EntryPoint]:
        plural = f"{self.kind}es" if self.kind.endswith("s") else f"{self.kind}s"
        return {e.name: e for e in entry_points(group=f"vqa_train.{plural}")}

    def names(self) -> list[str]:
        """Every known name, sorted; a built-in name wins over an entry point of the same name."""
        return sorted({*self._builtin, *self._entry_points})

    def __contains__(self, name: object) -> bool:
        return name in self._builtin or name in self._entry_points

    def get(self, name: str) -> Any:
        """The class or function registered as `name`.

        Raises:
            UsageError: no such name (with the nearest known one).
            DependencyError: its module needs a package that is not installed.
        """
        if name not in self:
            raise UsageError(f"unknown {self.kind} {name!r}", hint=did_you_mean(name, self.names()))
        try:
            if name in self._builtin:
                module, _, attribute = self._builtin[name].partition(":")
                return getattr(import_module(module), attribute)
            return self._entry_points[name].load()
        except ModuleNotFoundError as error:
            if str(error.name).startswith("vqa_train."):
                raise  # a fault of ours, which no installation mends
            extra = f"pip install 'vqa-train[{self._extra}]'" if self._extra else "install it"
            raise DependencyError(
                f"{self.kind} {name!r} needs the package {error.name!r}, which is not installed", hint=extra
            ) from error
