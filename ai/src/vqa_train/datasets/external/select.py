"""Picks feature columns by name, by glob (`f_*`) and by range (`f_0..f_59`), in the order of the file."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase

from vqa_train.datasets.external.base import FeatureFile, FeatureFileError

_RANGE = ".."


def select_columns(file: FeatureFile, patterns: Sequence[str], taken: Collection[str]) -> list[str]:
    """The columns that any of `patterns` names, each once, in the file's order; globs and ranges leave out `taken`.

    Raises:
        FeatureFileError: a pattern that names no column.
    """
    chosen: set[str] = set()
    for pattern in patterns:
        found = _matches(file, pattern, taken)
        if not found:
            raise FeatureFileError(f"{file.what} has no column that fits {pattern!r}", hint=file.nearest(pattern))
        chosen.update(found)
    return [name for name in file.names if name in chosen]


def _matches(file: FeatureFile, pattern: str, taken: Collection[str]) -> list[str]:
    if pattern in file.names:
        return [pattern]
    first, dots, last = pattern.partition(_RANGE)
    if dots and first in file.names and last in file.names:
        start, stop = file.names.index(first), file.names.index(last)
        return [name for name in file.names[start : stop + 1] if name not in taken]
    return [name for name in file.names if fnmatchcase(name, pattern) and name not in taken]
