"""A split plan: rows by name and the folds over them, the same for every order of the rows, with its own sha256."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.errors import ConfigError
from vqa_train.core.hashing import sha256_json
from vqa_train.core.types import Video
from vqa_train.datasets.protocols.config import Protocol

SPLITS_SCHEMA = "vqa-train/splits/1"
_LISTED = 5

Rows = NDArray[np.int64]


class PlanRow(NamedTuple):
    """One row: name of its dataset, id in it, sha256 of its bytes (None where a file made by hand leaves it out)."""

    dataset: str
    id: str
    video_sha256: str | None


@dataclass(frozen=True, kw_only=True)
class PlanFold:
    """One fold; rows are numbers into the plan's rows, ascending.

    Attributes:
        name: unique in the plan.
        train, test: disjoint.
        validation: rows that choose the epoch where the splits name such a part; empty otherwise.
        left_out: rows that would train, but share a group or their bytes with a test row.
        cell: (trained on, tested on) of a cross-dataset matrix.
    """

    name: str
    train: Rows
    test: Rows
    validation: Rows
    left_out: int = 0
    cell: tuple[str, str] | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON form; `validation`, `left_out` and `cell` only where there is something to say."""
        value: dict[str, Any] = {"name": self.name, "train": self.train.tolist(), "test": self.test.tolist()}
        if len(self.validation):
            value["validation"] = self.validation.tolist()
        if self.left_out:
            value["left_out"] = self.left_out
        if self.cell is not None:
            value["cell"] = list(self.cell)
        return value


@dataclass(frozen=True, kw_only=True)
class SplitPlan:
    """What a protocol decided.

    Attributes:
        protocol: with every default filled in.
        rows: sorted by dataset and id.
        folds: at least one.
        warnings: what whoever reports the numbers must know; not part of the plan's identity.
    """

    protocol: Protocol
    rows: tuple[PlanRow, ...]
    folds: tuple[PlanFold, ...]
    warnings: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"SplitPlan({self.protocol.text()!r}, rows={len(self.rows)}, folds={len(self.folds)})"

    def content(self) -> dict[str, Any]:
        """The JSON document without its sha256."""
        return {
            "schema": SPLITS_SCHEMA,
            "protocol": self.protocol.model_dump(mode="json"),
            "rows": [row._asdict() for row in self.rows],
            "folds": [fold.to_json() for fold in self.folds],
        }

    @cached_property
    def sha256(self) -> str:
        """Of the canonical JSON of `content`."""
        return sha256_json(self.content())

    def to_json(self) -> dict[str, Any]:
        """The document of schema `vqa-train/splits/1`."""
        return {**self.content(), "sha256": self.sha256}

    @property
    def within(self) -> str:
        """`all` labelled rows, or those without the dataset's own test part (`train`)."""
        return str(getattr(self.protocol, "rows", "all"))

    def positions(self, datasets: Sequence[str], videos: Sequence[Video]) -> Rows:
        """For each row of the plan its number among the given ones.

        Raises:
            ConfigError: rows that the plan has and the caller lacks, the other way round, or other bytes under an
                id; it names them.
        """
        where = {(dataset, video.id): i for i, (dataset, video) in enumerate(zip(datasets, videos, strict=True))}
        known = {(row.dataset, row.id) for row in self.rows}
        lacking = [f"{row.dataset}/{row.id}" for row in self.rows if (row.dataset, row.id) not in where]
        unknown = [
            f"{dataset}/{name}"
            for (dataset, name), i in where.items()
            if (dataset, name) not in known and not (self.within == "train" and videos[i].split == "test")
        ]
        changed = [
            f"{row.dataset}/{row.id}"
            for row in self.rows
            if (row.dataset, row.id) in where
            and row.video_sha256 not in (None, videos[where[row.dataset, row.id]].sha256)
        ]
        problems = [
            f"{what}: {_some(names)}"
            for what, names in (
                ("rows of the splits that are not there (or lack features or labels)", lacking),
                ("rows that the splits do not know", unknown),
                ("rows with other bytes", changed),
            )
            if names
        ]
        if problems:
            raise ConfigError(
                f"the splits are for other rows; {'; '.join(problems)}",
                hint="use the dataset and features that the splits were made for, or make new splits",
            )
        return np.asarray([where[row.dataset, row.id] for row in self.rows], dtype=np.int64)

    def placed(self, positions: Rows) -> tuple[PlanFold, ...]:
        """The folds with their rows numbered by `positions`."""
        return tuple(
            replace(
                fold,
                train=np.sort(positions[fold.train]),
                test=np.sort(positions[fold.test]),
                validation=np.sort(positions[fold.validation]),
            )
            for fold in self.folds
        )


def _some(names: Sequence[str]) -> str:
    ordered = sorted(names)
    more = f" and {len(ordered) - _LISTED} more" if len(ordered) > _LISTED else ""
    return ", ".join(ordered[:_LISTED]) + more
