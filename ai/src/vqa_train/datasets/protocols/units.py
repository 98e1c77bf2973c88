"""What must not straddle training and test rows: groups of a dataset, and files of equal bytes wherever they are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from vqa_train.core.types import Video
from vqa_train.datasets.protocols.config import By

_SEPARATOR = "\x1f"


def units_of(datasets: Sequence[str], videos: Sequence[Video], by: By = "group") -> list[str]:
    """The unit of each row, N names made of content only.

    Rows of one group are one unit; a row without a group, or every row with `by` = "row", is its own. Units that
    share a file's bytes are one, and with `by` = "group" those that share a reference too. With several datasets a
    group is one of its dataset: equal names mean nothing.
    """
    several = len(set(datasets)) > 1
    names = []
    for dataset, video in zip(datasets, videos, strict=True):
        own = ("group", video.group) if by == "group" and video.group is not None else ("id", video.id)
        names.append(_SEPARATOR.join((dataset, *own) if several else own))
    pairs = [(name, video.sha256) for name, video in zip(names, videos, strict=True)]
    if by == "group":
        shown = zip(names, videos, strict=True)
        pairs += [(name, video.reference.sha256) for name, video in shown if video.reference is not None]
    return _joined(names, pairs)


def _joined(names: list[str], pairs: list[tuple[str, str]]) -> list[str]:
    """`names` with those that share a hash, in `pairs` of name and hash, under the least of their names."""
    parent = {name: name for name in names}

    def root(name: str) -> str:
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    first: dict[str, str] = {}
    for name, sha256 in pairs:
        one, other = sorted((root(name), root(first.setdefault(sha256, name))))
        parent[other] = one
    return [root(name) for name in names]


def shown(unit: str) -> str:
    """The name of a unit for people: its group or id, after its dataset where there are several."""
    *dataset, _, name = unit.split(_SEPARATOR)
    return "/".join((*dataset, name))


def members(units: Sequence[str]) -> dict[str, list[int]]:
    """Unit -> its rows."""
    found: defaultdict[str, list[int]] = defaultdict(list)
    for row, unit in enumerate(units):
        found[unit].append(row)
    return found
