"""Protocols and scales in words."""

from __future__ import annotations

import pytest

from vqa_train.datasets.protocols import parse_protocol
from vqa_train.datasets.protocols.config import KINDS
from vqa_train.pipelines.report.words import protocol_text, scale_text


@pytest.mark.parametrize(
    ("protocol", "text"),
    [
        ("splits", "the dataset's own split"),
        ("hash:test=0.3,train=0.7", "one split by hash, 30% for testing, groups kept whole"),
        ("kfold:k=5", "5-fold cross-validation, groups kept whole"),
        ("kfold:k=5,repeats=3,by=row", "5-fold cross-validation, 3 times over, row by row"),
        ("repeated:repeats=100,test_fraction=0.2", "100 random splits, 20% held out in each, groups kept whole"),
        ("leave_one_dataset_out", "each dataset in turn held out"),
        ("leave_one_group_out:source=scene", "each scene in turn held out"),
        ("cross_dataset", "trained on each dataset, tested on each other one, groups kept whole"),
        ("file:splits.json", "splits read from a file"),
    ],
)
def test_protocols_in_words(protocol: str, text: str) -> None:
    assert protocol_text(parse_protocol(protocol).model_dump(mode="json")) == text


def test_every_kind_has_words() -> None:
    assert {kind for kind in KINDS if protocol_text({"kind": kind}).split(",")[0] == kind} == set()


def test_the_better_end_of_a_scale_is_said() -> None:
    assert scale_text({"mos": (1, 5)}, "higher_is_better") == "mos 1 to 5 (higher is better)"
    assert scale_text({"a": (0, 100), "b": (0, 1)}, "lower_is_better") == "a 0 to 100, b 0 to 1 (lower is better)"
