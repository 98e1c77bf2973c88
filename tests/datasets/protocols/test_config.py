"""Protocols are written as YAML or in short, and say what is wrong with them."""

from __future__ import annotations

import pytest

from vqa_train.core.errors import ConfigError
from vqa_train.datasets.protocols import (
    KINDS,
    FixedSplits,
    HashSplits,
    KFold,
    LeaveOneDatasetOut,
    LeaveOneGroupOut,
    RepeatedRandom,
    SplitsFile,
    parse_protocol,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("splits", FixedSplits()),
        ("hash:train=0.7,val=0.1,test=0.2", HashSplits(train=0.7, val=0.1, test=0.2)),
        ("kfold:k=10, repeats=2", KFold(k=10, repeats=2)),
        ("repeated:repeats=100,test_fraction=0.2,by=row", RepeatedRandom(by="row")),
        ("leave-one-dataset-out", LeaveOneDatasetOut()),
        ("leave_one_group_out:source=codec", LeaveOneGroupOut(source="codec")),
        ("file:runs/a=b,c/splits.json", SplitsFile(path="runs/a=b,c/splits.json")),
    ],
)
def test_short_form(text: str, expected: object) -> None:
    protocol = parse_protocol(text)
    assert protocol == expected
    assert type(protocol) is type(expected)
    assert parse_protocol(protocol.text()) == protocol
    assert parse_protocol(protocol.model_dump(mode="json")) == protocol


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("kfolds", "unknown kind 'kfolds' - did you mean 'kfold'"),
        ("kfold:kk=5", "unknown key 'kk' - did you mean 'k'"),
        ("kfold:k=1", "k: Input should be greater than or equal to 2"),
        ("kfold:k=2,k=3", "expected name=value once"),
        ("kfold:5", "expected name=value once"),
        ("repeated:test_fraction=1", "test_fraction"),
        ("hash:train=0.9", "must sum to 1"),
        ({"kind": "splits", "by": "row"}, "unknown key 'by'"),
        (["kfold"], "expected a protocol such as"),
    ],
)
def test_mistakes_are_named(value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_protocol(value, "--protocol")


def test_every_kind_has_its_own_name() -> None:
    assert {name: cls().kind for name, cls in KINDS.items()} == {name: name for name in KINDS}
