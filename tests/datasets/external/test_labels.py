"""Labels are checked row by row before anything is written."""

from __future__ import annotations

import numpy as np
import pytest

from vqa_train.core.errors import Reason
from vqa_train.datasets.external.base import FeatureFileError
from vqa_train.datasets.external.labels import LabelColumns, read_labels
from vqa_train.datasets.external.open import open_feature_file

COLUMNS = LabelColumns(
    id="id", targets={"overall": "mos"}, std={"overall": "sd"}, group="scene", split="part", prompt="text"
)
HEADER = "id,mos,sd,scene,part,text\n"


@pytest.fixture
def read(tmp_path):
    """`read(rows, columns, ranges)`: the labels in a CSV of these lines."""

    def call(rows, columns=COLUMNS, ranges=None):
        path = tmp_path / "x.csv"
        path.write_text(HEADER + rows)
        return read_labels(open_feature_file(path), columns, ranges or {})

    return call


def test_every_kind_of_label_is_read(read):
    labels = read('a,1.5,0.2,s1,Training,"a cat"\nb,,,,,\nc,4,0,s1,VAL,\n')
    assert len(labels) == 3
    assert labels.ids == ["a", "b", "c"]
    np.testing.assert_array_equal(labels.targets["overall"], [1.5, np.nan, 4])
    np.testing.assert_array_equal(labels.std["overall"], [0.2, np.nan, 0])
    assert (labels.groups, labels.splits, labels.prompts) == (["s1", "", "s1"], ["train", "", "val"], ["a cat", "", ""])


def test_without_ids_the_rows_are_numbered_from_1(read):
    labels = read("a,1,,,,\nb,2,,,,\n", LabelColumns(id=None))
    assert (labels.ids, labels.targets, labels.groups) == (["1", "2"], {}, None)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a,1,,,,\n ,2,,,,\n", "row 2 column 'id': the id is empty"),
        ("a,1,,,,\nb,2,,,,\na ,3,,,,\n", "row 3 column 'id': id 'a' stands already in row 1"),
        ("a,1,,,,\nb,inf,,,,\n", "row 2 column 'mos': inf is no score"),
        ("a,1,,,,\nb,5.1,,,,\n", "row 2 column 'mos': 5.1 is outside the range 1 to 5"),
        ("a,0.9,,,,\n", "row 1 column 'mos': 0.9 is outside the range 1 to 5"),
        ("a,1,-0.1,,,\n", "row 1 column 'sd': -0.1 is no standard deviation"),
        ("a,1,inf,,,\n", "row 1 column 'sd': inf is no standard deviation"),
        ("a,1,,,train,\nb,1,,,Hold-out,\n", "row 2 column 'part': unknown split 'Hold-out' - known: train"),
        ("a,good,,,,\n", "row 1 column 'mos': 'good' is not a number"),
    ],
)
def test_what_is_wrong_is_named_with_row_and_column(read, rows, message):
    with pytest.raises(FeatureFileError, match=message):
        read(rows, ranges={"overall": (1.0, 5.0)})


def test_ids_carry_their_reason(read):
    with pytest.raises(FeatureFileError) as caught:
        read("a,1,,,,\na,1,,,,\n")
    assert caught.value.reason is Reason.LABEL_MISMATCH
