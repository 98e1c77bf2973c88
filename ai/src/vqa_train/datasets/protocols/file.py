"""Splits files: a plan as JSON, verified by its own sha256 when it is read.

How to bump the version: change SPLITS_SCHEMA in plan.py and the Literal below, teach `read_plan` the older form or
make it refuse with the version to install, and write the change into docs/protocols.md and CHANGELOG.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from vqa_train.core.config import StrictModel, load_json, parse
from vqa_train.core.errors import ConfigError
from vqa_train.core.files import atomic_write_bytes
from vqa_train.core.hashing import canonical_json
from vqa_train.datasets.protocols.config import parse_protocol
from vqa_train.datasets.protocols.plan import SPLITS_SCHEMA, PlanFold, PlanRow, SplitPlan

Index = Annotated[int, Field(ge=0, lt=2**31)]


class _Row(StrictModel):
    dataset: str
    id: str
    video_sha256: str | None = None


class _Fold(StrictModel):
    name: Annotated[str, Field(min_length=1)]
    train: list[Index] = Field(min_length=1)
    test: list[Index]
    validation: list[Index] = Field(default_factory=list)
    left_out: int = Field(default=0, ge=0)
    cell: tuple[str, str] | None = None


class _Document(StrictModel):
    schema_: Literal["vqa-train/splits/1"] = Field(alias="schema")
    protocol: dict[str, Any]
    rows: list[_Row] = Field(min_length=1)
    folds: list[_Fold] = Field(min_length=1)
    sha256: str | None = None


def write_plan(path: Path, plan: SplitPlan) -> None:
    """Write the plan, atomically; the same plan gives the same bytes."""
    atomic_write_bytes(path, (canonical_json(plan.to_json()) + "\n").encode("utf-8"))


def read_plan(path: Path) -> SplitPlan:
    """The plan in a splits file.

    A file made by hand may leave out `sha256` and each row's `video_sha256`; what is there is checked.

    Raises:
        ConfigError: missing, another schema, changed since it was written, a row named twice, an index without a row,
            or a row in two parts of a fold.
    """
    source = f"splits file {str(path)!r}"
    value = load_json(path, "splits file")
    schema = value.get("schema") if isinstance(value, dict) else None
    if schema != SPLITS_SCHEMA:
        raise ConfigError(
            f"{source} has schema {schema!r}, expected {SPLITS_SCHEMA!r}", hint="name a splits.json of a run"
        )
    document = parse(_Document, value, source)
    rows = tuple(PlanRow(row.dataset, row.id, row.video_sha256) for row in document.rows)
    folds = tuple(
        PlanFold(
            name=fold.name,
            train=np.asarray(fold.train, dtype=np.int64),
            test=np.asarray(fold.test, dtype=np.int64),
            validation=np.asarray(fold.validation, dtype=np.int64),
            left_out=fold.left_out,
            cell=fold.cell,
        )
        for fold in document.folds
    )
    plan = SplitPlan(protocol=parse_protocol(document.protocol, source), rows=rows, folds=folds)
    if document.sha256 is not None and document.sha256 != plan.sha256:
        raise ConfigError(
            f"{source} was changed: its content has sha256 {plan.sha256[:12]}, it says {document.sha256[:12]}",
            hint="take the file of the run again; a file edited on purpose leaves `sha256` out",
        )
    _check(source, plan)
    return plan


def _check(source: str, plan: SplitPlan) -> None:
    names = [(row.dataset, row.id) for row in plan.rows]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigError(f"{source} names row {'/'.join(twice)} twice")
    folds = [fold.name for fold in plan.folds]
    if len(set(folds)) < len(folds):
        raise ConfigError(f"{source} has two folds of one name")
    for fold in plan.folds:
        used = np.concatenate([fold.train, fold.test, fold.validation])
        if used.max() >= len(names):
            raise ConfigError(f"{source}: fold {fold.name!r} has row {used.max()}, there are {len(names)} rows")
        if len(np.unique(used)) < len(used):
            raise ConfigError(f"{source}: fold {fold.name!r} has a row in two of its parts, or twice in one")
