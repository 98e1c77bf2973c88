"""Nothing of a test row reaches training: whatever is done to it, a fold's heads stay the same bit for bit.

The check is itself checked: variants of the trainer with a planted leak make it fail.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from vqa_train.core.errors import ConfigError
from vqa_train.core.types import Video
from vqa_train.datasets.protocols import parse_protocol, plan_splits
from vqa_train.datasets.protocols.units import units_of
from vqa_train.evaluation.srocc import srocc
from vqa_train.heads import HEADS, prepare
from vqa_train.heads.config import TrainConfig
from vqa_train.heads.table import build_table
from vqa_train.pipelines.fit.config import MemberConfig
from vqa_train.pipelines.fit.crossfit import CrossFit, Fold

ROWS = 72
OPTIONS: dict[str, dict[str, Any]] = {"fusion": {"text": ["text"]}}
PROTOCOLS = (
    "splits",
    "hash:train=0.5,val=0.2,test=0.3",
    "kfold:k=3",
    "repeated:repeats=2",
    "leave_one_group_out:source=codec",
    "leave_one_dataset_out",
    "cross_dataset:k=2",
    "kfold:k=2,by=row",
)


def videos() -> list[Video]:
    splits = ("train", "val", "test", "train")
    return [
        Video(
            id=f"v{i:02d}", path="x", sha256=f"{i // 2:064x}", bytes=1, group=f"g{i // 3}",
            split=splits[i // 3 % 4], attributes={"codec": "abc"[i // 6 % 3]},
        )
        for i in range(ROWS)
    ]  # fmt: skip


DATASETS = ["one" if i < ROWS // 2 else "two" for i in range(ROWS)]


class Content:
    """Features and labels of the rows, which a test may spoil."""

    def __init__(self, *, over_time: bool = False) -> None:
        rng = np.random.default_rng(3)
        shape = (ROWS, 3, 4) if over_time else (ROWS, 6)
        self.features = {"video": rng.normal(size=shape), "text": rng.normal(size=(ROWS, 3))}
        signal = self.features["video"].reshape(ROWS, -1)[:, 0]
        self.targets = np.stack([signal + rng.normal(size=ROWS), rng.normal(size=ROWS)], axis=1)
        self.std = rng.uniform(0.1, 1, size=(ROWS, 2))

    def spoiled(self, rows: NDArray[np.int64], how: str) -> Content:
        """A copy in which the given rows are something else."""
        copy = Content.__new__(Content)
        copy.features = {name: matrix.copy() for name, matrix in self.features.items()}
        copy.targets, copy.std = self.targets.copy(), self.std.copy()
        for matrix in (*copy.features.values(), copy.targets, copy.std):
            if how == "permuted":
                matrix[rows] = matrix[np.roll(rows, 1)] * 3
            else:
                matrix[rows] = {"nan": np.nan, "huge": 1e30}[how]
        return copy


def member(kind: str, **settings: Any) -> MemberConfig:
    head = {"kind": kind, "hidden": (8,), "options": OPTIONS.get(kind, {}), **settings.pop("head", {})}
    closed = HEADS.get(kind).closed_form
    values = {"epochs": 4, "batch_size": 16, "patience": None if closed else 2, "std_weighting": True, **settings}
    return MemberConfig(name=kind, train=TrainConfig.model_validate({"head": head, **values}))


def folds_of(text: str) -> list[Fold]:
    plan = plan_splits(parse_protocol(text), DATASETS, videos())
    placed = plan.placed(plan.positions(DATASETS, videos()))
    return [Fold(name=f.name, train=f.train, test=f.test, validation=f.validation) for f in placed]


def fitted(content: Content, folds: list[Fold], recipe: MemberConfig) -> dict[str, Any]:
    """Everything that training decided for the first fold, as bytes and numbers."""
    units = units_of(DATASETS, videos())
    table = build_table(
        {name: matrix.astype(np.float32) for name, matrix in content.features.items()},
        content.targets.astype(np.float32),
        ("overall", "detail"),
        units,
        [f"{v.sha256}/{v.id}" for v in videos()],
        datasets=DATASETS,
        target_std=content.std.astype(np.float32),
    )
    cross = CrossFit(table, units, [recipe])
    for fold in folds:
        cross.add(fold)
    cross.train()
    head = cross.heads(0)[0].fitted
    found = {name: value.numpy().tobytes() for name, value in head.module.state_dict().items()}
    return {**found, "history": head.history, "best": head.best_epoch, "scales": head.scales, "chosen": head.chosen}


def leaks(folds: list[Fold], recipe: MemberConfig) -> list[str]:
    """What of the first and the last fold changes with its test rows."""
    content = Content(over_time=HEADS.get(recipe.train.head.kind).takes_time)
    changed = []
    for number in {0, len(folds) - 1}:
        # Rows that test here train elsewhere, so this fold trains alone.
        alone = [folds[number]]
        honest = fitted(content, alone, recipe)
        for how in ("nan", "huge", "permuted"):
            where = f"{folds[number].name}, {how}"
            try:
                again = fitted(content.spoiled(folds[number].test, how), alone, recipe)
            except ConfigError as error:
                changed.append(f"{where}: {error}")
                continue
            changed += [f"{where}: {name}" for name in honest if honest[name] != again[name]]
    return changed


@pytest.mark.parametrize("text", PROTOCOLS)
def test_no_protocol_lets_a_test_row_into_training(text: str) -> None:
    assert leaks(folds_of(text), member("mlp")) == []


@pytest.mark.parametrize("kind", HEADS.names())
def test_no_head_looks_at_a_test_row(kind: str) -> None:
    assert leaks(folds_of("repeated:repeats=2"), member(kind)) == []


@pytest.mark.parametrize(
    "settings",
    [
        {"head": {"output": "ordinal", "bins": 5}},
        {"head": {"output": "heteroscedastic"}},
        {"drop_sets": 0.3, "scales": "monotone", "validation": {"fraction": 0}, "patience": None},
        {"loss": {"smooth_l1": 0, "huber": 1, "rank": 1, "plcc": 1, "srocc": 1}, "ema": None, "schedule": "one_cycle"},
    ],
)
def test_no_output_or_loss_looks_at_a_test_row(settings: dict[str, Any]) -> None:
    assert leaks(folds_of("kfold:k=2"), member("mlp", **settings)) == []


def test_the_check_finds_statistics_over_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = prepare.scalings
    monkeypatch.setattr(prepare, "scalings", lambda table, parts: honest(table, [np.arange(ROWS) for _ in parts]))
    found = leaks(folds_of("kfold:k=3"), member("mlp"))
    assert any("input_mean" in text for text in found)
    assert any("target_std" in text for text in found)


def test_the_check_finds_test_rows_among_the_validation_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    def leaky(self: CrossFit, fold: Fold, config: TrainConfig) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return fold.train, fold.test

    monkeypatch.setattr(CrossFit, "_parts", leaky)
    assert any("history" in text for text in leaks(folds_of("kfold:k=3"), member("mlp")))


def test_the_check_finds_one_test_row_among_the_training_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    def leaky(self: CrossFit, fold: Fold, config: TrainConfig) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return np.append(fold.train, fold.test[:1]), fold.test[:0]

    monkeypatch.setattr(CrossFit, "_parts", leaky)
    recipe = member("mlp", patience=None, validation={"fraction": 0})
    assert leaks(folds_of("kfold:k=3"), recipe)


def test_validation_rows_come_from_the_folds_training_part_and_share_no_group_with_it() -> None:
    content, units = Content(), units_of(DATASETS, videos())
    table = build_table(
        {"video": content.features["video"].astype(np.float32)}, content.targets.astype(np.float32), ("a", "b"),
        units, None,
    )  # fmt: skip
    cross = CrossFit(table, units, [member("mlp")])
    for fold in folds_of("repeated:repeats=5"):
        number = cross.add(fold)
        job = cross.jobs[number]
        assert len(job.validation)
        assert {*job.train.tolist(), *job.validation.tolist()} == set(fold.train.tolist())
        assert not {units[i] for i in job.train} & {units[i] for i in job.validation}


def test_content_that_repeats_inside_groups_is_worthless_by_group_and_everything_by_row() -> None:
    """Features and labels are random per group and the same for its members: there is nothing to learn but identity."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(60), 4)
    matrix = rng.normal(size=(60, 8))[groups].astype(np.float32)
    labels = rng.uniform(1, 5, size=(60, 1))[groups].astype(np.float32)
    rows = [Video(id=f"v{i}", path="x", sha256=f"{i:064x}", bytes=1, group=f"g{g}") for i, g in enumerate(groups)]
    found = {}
    for by in ("group", "row"):
        plan = plan_splits(parse_protocol(f"kfold:k=5,by={by}"), ["set"] * len(rows), rows)
        units = units_of(["set"] * len(rows), rows)
        table = build_table({"f": matrix}, labels, ("mos",), units, None)
        cross = CrossFit(table, units, [member("kernel_ridge", std_weighting=False)])
        numbers = [
            cross.add(Fold(name=f.name, train=f.train, test=f.test))
            for f in plan.placed(plan.positions(["set"] * len(rows), rows))
        ]
        cross.train()
        held = cross.held_out(numbers)
        predicted = np.concatenate([h.predicted[:, 0] for h in held])
        found[by] = srocc(predicted, np.concatenate([labels[h.fold.test, 0] for h in held]))
    # By group 60 independent pairs: the standard error of a rank correlation of 0 is 0.13.
    assert abs(found["group"]) < 0.4
    assert found["row"] > 0.95
