"""The schemas of the store's files: one version each, one entry per row."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from vqa_train.core.versions import SCHEMA_ERROR
from vqa_train.store import layout
from vqa_train.store.records import (
    FailureRecord,
    QuarantineRecord,
    SetRecord,
    ShardCommit,
    SnapshotRecord,
    StoreRecord,
    TagRecord,
)


@pytest.mark.parametrize(
    ("model", "version"),
    [
        (StoreRecord, layout.STORE_SCHEMA),
        (SetRecord, layout.SET_SCHEMA),
        (ShardCommit, layout.COMMIT_SCHEMA),
        (SnapshotRecord, layout.SNAPSHOT_SCHEMA),
        (FailureRecord, layout.FAILURE_SCHEMA),
        (TagRecord, layout.TAG_SCHEMA),
        (QuarantineRecord, layout.QUARANTINE_SCHEMA),
    ],
)
def test_each_file_is_read_under_the_version_it_is_written_with(model, version):
    name, _, number = version.rpartition("/")
    for schema in (version, f"{name}/{int(number) + 1}", f"{name}/{number}.1", f"other/{number}", None):
        with pytest.raises(ValidationError) as refused:
            model.model_validate({"schema": schema})
        places = [problem["loc"] for problem in refused.value.errors() if problem["type"] == SCHEMA_ERROR]
        assert places == ([] if schema == version else [("schema",)])


def test_a_commit_has_one_key_view_and_digest_per_row(features, make_row):
    commit = features.append([make_row(features.spec, 1)], profile={}, run_id="r")
    value = commit.model_dump(by_alias=True)
    with pytest.raises(ValidationError, match="rows is 2, but there are 1 keys"):
        ShardCommit.model_validate({**value, "rows": 2})
    with pytest.raises(ValidationError, match="0 digests"):
        ShardCommit.model_validate({**value, "digests": ()})
