"""What every dataset adapter must do, run over each one that is registered."""

from __future__ import annotations

from pathlib import Path

import pytest

from vqa_train.core.errors import ManifestError
from vqa_train.datasets import ADAPTERS
from vqa_train.datasets.adapters.base import DatasetAdapter, Layout
from vqa_train.datasets.files_table import climbs
from vqa_train.datasets.manifest import Columns, LabelTable


@pytest.fixture(params=ADAPTERS.names())
def adapter(request: pytest.FixtureRequest) -> DatasetAdapter:
    made = ADAPTERS.get(request.param)()
    assert isinstance(made, DatasetAdapter)
    return made


def test_an_empty_folder_gives_a_layout_or_an_error_that_says_what_is_missing(
    adapter: DatasetAdapter, tmp_path: Path
) -> None:
    try:
        layout = adapter.discover(tmp_path)
    except ManifestError as error:
        assert str(tmp_path) in error.message
        assert error.hint
    else:
        assert isinstance(layout, Layout)
        assert set(layout.columns) <= set(Columns.model_fields)


def test_a_table_is_equally_long_columns_of_text(adapter: DatasetAdapter) -> None:
    table = adapter.read_table("train/labels/l.csv", b"id,mos\na,1\nb,2\n", {"id", "mos", "absent"})
    assert {name: list(column) for name, column in table.columns.items()} == {"id": ["a", "b"], "mos": ["1", "2"]}
    assert table.rows == 2


def test_a_file_is_looked_for_inside_the_root(adapter: DatasetAdapter) -> None:
    assert not climbs(adapter.file_hint(LabelTable(path="train/labels/l.csv"), "x.mp4"))
