"""The schemas of the store's files: one version each, one entry per row."""

from __future__ import annotations

from typing import get_args

import pytest
from pydantic import ValidationError

from vqa_train.store import layout
from vqa_train.store.records import (
    FailureRecord,
    SetRecord,
    ShardCommit,
    SnapshotRecord,
    StoreRecord,
)


@pytest.mark.parametrize(
    ("model", "version"),
    [
        (StoreRecord, layout.STORE_SCHEMA),
        (SetRecord, layout.SET_SCHEMA),
        (ShardCommit, layout.COMMIT_SCHEMA),
        (SnapshotRecord, layout.SNAPSHOT_SCHEMA),
        (FailureRecord, layout.FAILURE_SCHEMA),
    ],
)
def test_each_file_is_read_under_the_version_it_is_written_with(model, version):
    assert get_args(model.model_fields["schema_"].annotation) == (version,)


def test_a_commit_has_one_key_view_and_digest_per_row(features, make_row):
    commit = features.append([make_row(features.spec, 1)], profile={}, run_id="r")
    value = commit.model_dump(by_alias=True)
    with pytest.raises(ValidationError, match="rows is 2, but there are 1 keys"):
        ShardCommit.model_validate({**value, "rows": 2})
    with pytest.raises(ValidationError, match="0 digests"):
        ShardCommit.model_validate({**value, "digests": ()})
