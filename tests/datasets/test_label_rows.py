"""Single cells of a label table: scores, splits, ids and paths."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqa_train.core.config import parse
from vqa_train.core.errors import LabelError, Reason
from vqa_train.core.types import Reference
from vqa_train.datasets.adapters.csv import CsvAdapter
from vqa_train.datasets.files_table import FileEntry
from vqa_train.datasets.label_rows import LabelRows, parse_score
from vqa_train.datasets.manifest import DatasetManifest, LabelTable


def rows(text: str, *, labelled: bool = True, **columns: Any) -> LabelRows:
    value = {
        "name": "t",
        "license": "MIT",
        "mos": {"min": 1, "max": 5},
        "targets": ["mos"],
        "columns": {"id": "id", **columns},
        "labels": [{"path": "l.csv"}],
    }
    table = LabelTable(path="l.csv", labelled=labelled)
    return LabelRows(parse(DatasetManifest, value, "test"), CsvAdapter(), table, text.encode())


@pytest.mark.parametrize(
    "text", ["", " ", "n/a", "NA", "-", "nan", "NaN", "inf", "-Infinity", "1e999", "3,5", "1_0", "4 5"]
)
def test_what_is_not_a_finite_number_is_missing(text: str) -> None:
    assert parse_score(text) is None
    assert rows(f'id,mos\na,"{text}"\nb,3\n').known(0) == {}


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_finite_number_is_read_exactly(value: float) -> None:
    assert parse_score(repr(value)) == value


@given(st.text(max_size=12))
def test_any_text_is_a_finite_number_or_missing(text: str) -> None:
    value = parse_score(text)
    assert value is None or math.isfinite(value)


@pytest.mark.parametrize("score", ["1", "5", "1.0000", "5e0"])
def test_the_ends_of_the_range_are_inside(score: str) -> None:
    assert rows(f"id,mos\na,{score}\n").known(0) == {"mos": float(score)}


@pytest.mark.parametrize("score", ["0.999", "5.001", "-3", "1e300"])
def test_a_score_out_of_range_names_table_row_and_column(score: str) -> None:
    with pytest.raises(LabelError, match=r"label table 'l\.csv' row 2 \(line 3\) column 'mos'.*range 1 to 5") as caught:
        rows(f"id,mos\na,3\nb,{score}\n")
    assert caught.value.reason == Reason.LABEL_MISMATCH


def test_standard_deviations_are_kept_and_never_negative() -> None:
    table = rows("id,mos,sd\na,3,0.5\nb,3,\n", std={"mos": "sd"})
    entry = FileEntry("a.mp4", "0" * 64, 1)
    assert table.video(0, entry, {}).label_std == {"mos": 0.5}
    assert table.video(1, entry, {}).label_std == {}
    with pytest.raises(LabelError, match="column 'sd': the standard deviation -1 is negative"):
        rows("id,mos,sd\na,3,-1\n", std={"mos": "sd"})


def test_split_words() -> None:
    table = rows("id,mos,part\na,3,Training\nb,3,validation\nc,3,TEST\nd,3,\n", split="part")
    assert table.splits == ["train", "val", "test", None]
    with pytest.raises(LabelError, match=r"row 1 \(line 2\) column 'part': unknown split 'holdout'.*known: train"):
        rows("id,mos,part\na,3,holdout\n", split="part")


def test_an_empty_id_is_refused() -> None:
    with pytest.raises(LabelError, match=r"row 2 \(line 3\) column 'id': the id is empty"):
        rows("id,mos\na,3\n,3\n")


@pytest.mark.parametrize("path", ["../a.mp4", "/data/a.mp4", "C:\\a.mp4"])
def test_a_path_that_climbs_is_refused(path: str) -> None:
    with pytest.raises(LabelError, match=r"row 1 \(line 2\) column 'file': path .* leaves the data root") as caught:
        rows(f"id,file,mos\na,{path},3\n", path="file")
    assert caught.value.reason == Reason.PATH_ESCAPE


def test_columns_become_the_fields_of_a_video() -> None:
    table = rows(
        "id,mos,text,scene,ref,kind\na,3,hello,s1,r,blur\nb,3,,,,\n",
        prompt="text",
        group="scene",
        reference="ref",
        attributes=["kind"],
    )
    entry = FileEntry("x/a.mp4", "0" * 64, 9)
    pristine = Reference(id="r", path="r.mp4", sha256="1" * 64, bytes=7)
    full, bare = table.video(0, entry, {}, pristine), table.video(1, entry, {})
    assert list(table.references) == ["r", ""]
    assert (full.prompt, full.group, full.reference, full.attributes) == ("hello", "s1", pristine, {"kind": "blur"})
    assert (bare.prompt, bare.group, bare.reference, bare.attributes) == (None, None, None, {"kind": ""})
    assert (full.path, full.bytes) == ("x/a.mp4", 9)


def test_only_a_table_declared_unlabelled_may_lack_its_scores() -> None:
    assert rows("id\na\n", labelled=False).scores == {}
    with pytest.raises(LabelError, match="no column 'mos'"):
        rows("id\na\n")
