"""Plans: whole groups, exact sizes, and the same folds for every order of the rows."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqa_train.core.errors import ConfigError
from vqa_train.core.types import Video
from vqa_train.datasets.protocols import SplitPlan, parse_protocol, plan_splits


def video(name: str, group: str | None = None, **fields: Any) -> Video:
    return Video(
        id=name, path=f"{name}.mp4", sha256=fields.pop("sha256", f"hash of {name}"), bytes=1, group=group, **fields
    )


def videos(groups: Sequence[object]) -> list[Video]:
    return [video(f"v{i:03d}", None if group is None else f"g{group}") for i, group in enumerate(groups)]


def plan(text: str, rows: list[Video], datasets: Sequence[str] | None = None) -> SplitPlan:
    return plan_splits(parse_protocol(text), list(datasets or ["set"] * len(rows)), rows)


def named(made: SplitPlan) -> list[tuple[str, list[str], list[str]]]:
    """Folds with ids instead of numbers."""
    ids = [f"{row.dataset}/{row.id}" for row in made.rows]
    return [(f.name, [ids[i] for i in f.train], [ids[i] for i in f.test]) for f in made.folds]


KINDS = (
    "kfold:k=3",
    "kfold:k=2,repeats=3",
    "repeated:repeats=4,test_fraction=0.3",
    "leave_one_group_out",
    "leave_one_group_out:source=codec",
    "hash:train=0.5,val=0.2,test=0.3",
    "leave_one_dataset_out",
    "cross_dataset:k=2",
    "kfold:k=3,by=row",
)


@pytest.mark.parametrize("text", KINDS)
@given(groups=st.lists(st.integers(0, 30), min_size=12, max_size=40), seed=st.integers(0, 999))
def test_no_order_matters_and_nothing_straddles(text: str, groups: list[int], seed: int) -> None:
    draw = random.Random(seed)
    rows = [
        video(f"v{i}", f"g{g}", sha256=f"bytes {draw.randrange(60)}", attributes={"codec": draw.choice("abc")})
        for i, g in enumerate([*range(4), *range(4, 8), *groups])
    ]
    datasets = [("one", "two")[g % 2] for g in [0, 0, 0, 0, 1, 1, 1, 1, *groups]]
    try:
        made = plan(text, rows, datasets)
    except ConfigError as error:
        # Rows that share bytes may join nearly everything into one group.
        assert "at least" in str(error)
        return
    order = draw.sample(range(len(rows)), len(rows))
    again = plan(text, [rows[i] for i in order], [datasets[i] for i in order])
    assert again.sha256 == made.sha256
    assert again.to_json() == made.to_json()
    of = {(d, v.id): v for d, v in zip(datasets, rows, strict=True)}
    content = [of[row.dataset, row.id] for row in made.rows]
    for fold in made.folds:
        assert len(np.intersect1d(fold.train, fold.test)) == 0
        train, test = ([content[i] for i in part] for part in (fold.train, fold.test))
        assert not {v.sha256 for v in train} & {v.sha256 for v in test}
        if "by=row" not in text:
            keys = [{(made.rows[i].dataset, content[i].group) for i in part} for part in (fold.train, fold.test)]
            assert not keys[0] & keys[1]


def test_kfold_tests_every_row_once_in_parts_of_nearly_equal_size() -> None:
    made = plan("kfold:k=4", videos([i // 3 for i in range(60)]))
    assert sorted(i for fold in made.folds for i in fold.test) == list(range(60))
    assert {len(fold.test) for fold in made.folds} == {15}
    assert all(len(fold.train) + len(fold.test) == 60 for fold in made.folds)
    assert [fold.name for fold in made.folds] == ["fold-0", "fold-1", "fold-2", "fold-3"]


@given(groups=st.lists(st.integers(0, 12), min_size=2, max_size=40), k=st.integers(2, 5))
def test_kfold_of_unequal_groups_covers_everything_once(groups: list[int], k: int) -> None:
    if len(set(groups)) < k:
        with pytest.raises(ConfigError, match="at least k groups"):
            plan(f"kfold:k={k}", videos(groups))
        return
    folds = plan(f"kfold:k={k}", videos(groups)).folds
    assert sorted(i for fold in folds for i in fold.test) == list(range(len(groups)))
    for fold in folds:
        assert sorted([*fold.train, *fold.test]) == list(range(len(groups)))
        assert len(fold.test) > 0


def test_kfold_without_groups_is_balanced() -> None:
    folds = plan("kfold:k=5", videos([None] * 103)).folds
    assert sorted(len(fold.test) for fold in folds) == [20, 20, 21, 21, 21]


def test_leave_one_group_out_takes_a_row_without_a_group_as_its_own() -> None:
    rows = [video("a", "y"), video("b", "x"), video("c", "y"), video("z")]
    assert named(plan("leave_one_group_out", rows)) == [
        ("x", ["set/a", "set/c", "set/z"], ["set/b"]),
        ("y", ["set/b", "set/z"], ["set/a", "set/c"]),
        ("z", ["set/a", "set/b", "set/c"], ["set/z"]),
    ]


def test_repeats_of_kfold_are_different_draws() -> None:
    made = plan("kfold:k=2,repeats=3", videos(range(40)))
    assert len({fold.test.tobytes() for fold in made.folds}) == 6
    assert Counter(i for fold in made.folds for i in fold.test) == dict.fromkeys(range(40), 3)


def test_repeated_splits_have_exact_sizes_and_are_all_different() -> None:
    """The KoNViD protocol: 1,200 videos without groups, 100 splits of 960 and 240."""
    made = plan("repeated", videos([None] * 1200))
    assert {(len(fold.train), len(fold.test)) for fold in made.folds} == {(960, 240)}
    assert len({fold.test.tobytes() for fold in made.folds}) == 100
    # Each row tests in about a fifth of the splits: Binomial(100, 0.2) has sd 4.
    counts = np.bincount(np.concatenate([fold.test for fold in made.folds]), minlength=1200)
    assert 3.5 < counts.std() < 4.5
    assert made.warnings == ()


def test_repeated_splits_count_groups() -> None:
    made = plan("repeated:repeats=20,test_fraction=0.25", videos([i // 5 for i in range(40)]))
    assert {len(fold.test) for fold in made.folds} == {10}


def test_salt_and_only_the_salt_changes_the_draw() -> None:
    rows = videos(range(30))
    for kind in ("kfold:k=3", "repeated:repeats=3", "hash:val=0"):
        assert named(plan(kind, rows)) == named(plan(kind, rows))
        assert named(plan(kind, rows)) != named(plan(f"{kind},salt=other", rows))


def test_fixed_splits_are_taken_as_they_are() -> None:
    rows = [video("a", split="train"), video("b", split="val"), video("c", split="test"), video("d", split="train")]
    (fold,) = plan("splits", rows).folds
    assert (fold.train.tolist(), fold.validation.tolist(), fold.test.tolist()) == ([0, 3], [1], [2])


def test_hash_splits_ignore_the_datasets_own_and_keep_to_their_shares() -> None:
    rows = [video(f"v{i}", split="test") for i in range(4000)]
    (fold,) = plan("hash:train=0.6,val=0.3,test=0.1", rows).folds
    # Three standard deviations of a share of 0.6 over 4,000 draws are 0.023.
    shares = [len(part) / 4000 for part in (fold.train, fold.validation, fold.test)]
    assert shares == pytest.approx([0.6, 0.3, 0.1], abs=0.023)
    (whole,) = plan("hash:train=1,val=0,test=0", rows).folds
    assert len(whole.train) == 4000


def test_leave_one_dataset_out_leaves_shared_files_out_of_training() -> None:
    rows = [video("a", sha256="1"), video("b", sha256="2"), video("c", sha256="2"), video("d", sha256="3")]
    made = plan("leave_one_dataset_out", rows, ["one", "one", "two", "two"])
    assert named(made) == [("one", ["two/d"], ["one/a", "one/b"]), ("two", ["one/a"], ["two/c", "two/d"])]
    assert [fold.left_out for fold in made.folds] == [1, 1]


def test_groups_of_two_datasets_are_two_groups() -> None:
    rows = [video(name, "scene1") for name in "abcd"]
    made = plan("leave_one_group_out", rows, ["one", "one", "two", "two"])
    assert [(name, test) for name, _, test in named(made)] == [
        ("one/scene1", ["one/a", "one/b"]),
        ("two/scene1", ["two/c", "two/d"]),
    ]


def test_leave_one_source_out_by_a_column() -> None:
    rows = [
        video("a", "g1", attributes={"codec": "h264"}),
        video("b", "g1", attributes={"codec": "vp9"}),
        video("c", "g2", attributes={"codec": "vp9"}),
        video("d", "g3", attributes={"codec": ""}),
    ]
    made = plan("leave_one_group_out:source=codec", rows)
    # Of group g1 one row tests, so that the other may not train.
    assert named(made) == [("h264", ["set/c", "set/d"], ["set/a"]), ("vp9", ["set/d"], ["set/b", "set/c"])]
    assert made.warnings == ("protocol leave_one_group_out:source=codec: 1 of 4 rows are in no test part",)
    with pytest.raises(ConfigError, match=r"no row has a value for source 'codecs' - known: codec"):
        plan("leave_one_group_out:source=codecs", rows)


def test_cross_dataset_matrix_has_every_cell() -> None:
    rows = videos(range(12))
    made = plan("cross_dataset:k=2", rows, ["one"] * 6 + ["two"] * 6)
    assert [(fold.name, fold.cell, len(fold.train), len(fold.test)) for fold in made.folds] == [
        ("one on one/fold-0", ("one", "one"), 3, 3),
        ("one on one/fold-1", ("one", "one"), 3, 3),
        ("one on two", ("one", "two"), 6, 6),
        ("two on two/fold-0", ("two", "two"), 3, 3),
        ("two on two/fold-1", ("two", "two"), 3, 3),
        ("two on one", ("two", "one"), 6, 6),
    ]


def test_splitting_groups_by_row_says_how_many_straddle() -> None:
    rows = videos([i // 4 for i in range(40)])
    assert plan("repeated:repeats=5", rows).warnings == ()
    (warning,) = plan("repeated:repeats=5,by=row", rows).warnings
    assert "10 of 10 groups have rows in both" in warning
    # One split holds out two rows, of two groups at most.
    (warning,) = [w for w in plan("repeated:repeats=1,test_fraction=0.05,by=row", rows).warnings if "groups" in w]
    assert "2 of 10 groups" in warning or "1 of 10 groups" in warning


def test_files_of_equal_bytes_stay_together_even_by_row() -> None:
    rows = [video(f"v{i}", sha256=str(i // 2)) for i in range(20)]
    for fold in plan("kfold:k=5,by=row", rows).folds:
        assert {i % 2 for i in fold.test} == {0, 1}
        assert len(fold.test) == 4


def test_official_test_rows_are_taken_in_with_a_warning_or_left_out() -> None:
    rows = [video(f"v{i:02d}", split="test" if i < 5 else "train") for i in range(25)]
    made = plan("kfold:k=4", rows)
    assert "takes in 5 rows that the dataset keeps as its test part" in made.warnings[0]
    inside = plan("kfold:k=4,rows=train", rows)
    assert inside.warnings == ()
    assert [row.id for row in inside.rows] == [f"v{i:02d}" for i in range(5, 25)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kfold:k=6", "at least k groups, got k=6 and 5 groups"),
        ("leave_one_dataset_out", "at least 2 values of dataset, got 1"),
        ("cross_dataset", "at least 2 datasets, got set"),
        ("leave_one_group_out:source=codec", "no row has a value.*columns.attributes"),
        ("file:", "names no file"),
    ],
)
def test_too_little_to_split_is_said(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan(text, videos([i // 2 for i in range(10)]))
    with pytest.raises(ConfigError):
        plan("repeated", videos([1, 1, 1]))
