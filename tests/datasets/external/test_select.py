"""Feature columns are picked by name, glob and range, in the file's order, without what is an id or a label."""

from __future__ import annotations

import pytest

from vqa_train.datasets.external.base import FeatureFileError
from vqa_train.datasets.external.open import open_feature_file
from vqa_train.datasets.external.select import select_columns


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("video_id,f_0,f_1,mos,f_2,f_10,g[1],last\n")
    return open_feature_file(path)


@pytest.mark.parametrize(
    ("patterns", "chosen"),
    [
        (["f_*"], ["f_0", "f_1", "f_2", "f_10"]),
        (["f_1..last"], ["f_1", "f_2", "f_10", "g[1]", "last"]),
        (["*"], ["f_0", "f_1", "f_2", "f_10", "g[1]", "last"]),
        (["last", "f_?"], ["f_0", "f_1", "f_2", "last"]),
        (["g[1]"], ["g[1]"]),
        (["f_0", "f_*", "f_0..f_1"], ["f_0", "f_1", "f_2", "f_10"]),
        (["mos"], ["mos"]),
    ],
)
def test_patterns(file, patterns, chosen):
    assert select_columns(file, patterns, {"video_id", "mos"}) == chosen


@pytest.mark.parametrize("pattern", ["h_*", "f_0..f_99", "last..f_0", "F_*"])
def test_a_pattern_without_a_column_is_an_error(file, pattern):
    with pytest.raises(FeatureFileError, match="no column that fits"):
        select_columns(file, ["f_0", pattern], {"video_id", "mos"})
