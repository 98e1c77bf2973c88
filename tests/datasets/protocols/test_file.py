"""Splits files: what was written is read again, what was changed is refused, other rows are named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vqa_train.core.errors import ConfigError
from vqa_train.core.types import Video
from vqa_train.datasets.protocols import parse_protocol, plan_splits, read_plan, write_plan

ROWS = [
    Video(id=f"v{i}", path="x", sha256=f"{i:064x}", bytes=1, group=f"g{i // 2}", split="test" if i > 9 else None)
    for i in range(12)
]
SET = ["set"] * len(ROWS)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    write_plan(tmp_path / "splits.json", plan_splits(parse_protocol("kfold:k=3"), SET, ROWS))
    return tmp_path / "splits.json"


def edited(path: Path, **changes: Any) -> Path:
    value = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in value.items() if v is not None}))
    return path


def test_a_file_gives_the_same_plan_again_in_any_order_of_rows(written: Path) -> None:
    first = plan_splits(parse_protocol("kfold:k=3"), SET, ROWS)
    again = plan_splits(parse_protocol(f"file:{written}"), SET, ROWS[::-1])
    assert again.sha256 == first.sha256
    assert again.warnings == first.warnings
    positions = again.positions(SET, ROWS[::-1])
    assert [ROWS[::-1][i].id for i in again.placed(positions)[0].test] == sorted(
        (ROWS[::-1][i].id for i in again.placed(positions)[0].test), key=lambda name: -int(name[1:])
    )
    ids = {first.rows[i].id for i in first.folds[0].test}
    assert {ROWS[::-1][i].id for i in again.placed(positions)[0].test} == ids
    before = written.read_bytes()
    write_plan(written, again)
    assert written.read_bytes() == before


def test_a_plan_of_training_rows_leaves_the_test_part_alone(tmp_path: Path) -> None:
    write_plan(tmp_path / "s.json", plan_splits(parse_protocol("kfold:k=2,rows=train"), SET, ROWS))
    again = plan_splits(parse_protocol(f"file:{tmp_path / 's.json'}"), SET, ROWS)
    assert len(again.rows) == 10
    assert again.warnings == ()


def test_rows_that_differ_are_named(written: Path) -> None:
    protocol = parse_protocol(f"file:{written}")
    with pytest.raises(ConfigError, match=r"not there.*: set/v0, set/v1$|not there.*: set/v0, set/v1 -"):
        plan_splits(protocol, SET[2:], ROWS[2:])
    more = [*ROWS, replace(ROWS[0], id="new")]
    with pytest.raises(ConfigError, match=r"do not know: set/new"):
        plan_splits(protocol, [*SET, "set"], more)
    changed = [*ROWS[:-1], replace(ROWS[-1], sha256="f" * 64)]
    with pytest.raises(ConfigError, match=r"rows with other bytes: set/v11"):
        plan_splits(protocol, SET, changed)
    with pytest.raises(ConfigError, match=r"set/v0, set/v1, set/v10, set/v11, set/v2 and 7 more"):
        plan_splits(protocol, ["other"] * 12, ROWS)


def test_a_changed_file_is_refused(written: Path) -> None:
    folds = json.loads(written.read_text())["folds"]
    folds[0]["test"], folds[1]["test"] = folds[1]["test"], folds[0]["test"]
    with pytest.raises(ConfigError, match="was changed: its content has sha256"):
        read_plan(edited(written, folds=folds))


def test_a_file_made_by_hand_needs_no_hashes(tmp_path: Path) -> None:
    path = tmp_path / "published.json"
    document = {
        "schema": "vqa-train/splits/1",
        "protocol": {"kind": "file"},
        "rows": [{"dataset": "set", "id": video.id} for video in ROWS],
        "folds": [{"name": "official", "train": list(range(8)), "test": [8, 9, 10, 11]}],
    }
    path.write_text(json.dumps(document))
    plan = plan_splits(parse_protocol(f"file:{path}"), SET, ROWS)
    (fold,) = plan.placed(plan.positions(SET, ROWS))
    assert fold.test.tolist() == [8, 9, 10, 11]
    document["folds"] = [{"name": "official", "train": list(range(7)), "test": [7, 8, 9, 10, 11]}]
    path.write_text(json.dumps(document))
    warnings = plan_splits(parse_protocol(f"file:{path}"), SET, ROWS).warnings
    assert any("1 of 6 groups have rows in both" in warning for warning in warnings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": "vqa-train/splits/2"}, "has schema 'vqa-train/splits/2', expected"),
        ({"folds": [{"name": "a", "train": [0, 1], "test": [1]}]}, "row in two of its parts"),
        ({"folds": [{"name": "a", "train": [0], "test": [12]}]}, "has row 12, there are 12 rows"),
        ({"folds": [{"name": "a", "train": [0], "test": []}] * 2}, "two folds of one name"),
        ({"folds": [{"name": "a", "train": [-1], "test": []}]}, "greater than or equal to 0"),
        ({"rows": [{"dataset": "set", "id": "v0"}] * 12}, "names row set/v0 twice"),
        ({"protocol": {"kind": "kfold", "k": 0}}, "greater than or equal to 2"),
    ],
)
def test_malformed_files_are_refused(written: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_plan(edited(written, **changes, sha256=None))


def test_no_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"splits file .*absent\.json' does not exist"):
        read_plan(tmp_path / "absent.json")
