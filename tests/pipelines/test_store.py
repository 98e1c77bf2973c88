"""The store's reports: JSON values with a schema each, counted from what is there."""

from __future__ import annotations

import json

import numpy as np
import pytest

from vqa_train.core.errors import Reason
from vqa_train.core.types import FeatureSpec, OutputSpec
from vqa_train.pipelines.store import look as pipeline
from vqa_train.store.rows import Failure, FeatureRow
from vqa_train.store.store import FeatureStore

SPEC = FeatureSpec(
    backbone="bge",
    definition=1,
    modality="text",
    outputs=(OutputSpec(name="pooled", shape=(3,)),),
    random_seed=7,
)


def row(number: int) -> FeatureRow:
    return FeatureRow(key=f"{number:064x}", outputs={"pooled": np.full(3, number, np.float32)})


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "store"
    features = FeatureStore(root).create_set(SPEC, license="MIT")
    features.append([row(1), row(2)], profile={"device": "cpu"}, run_id="r")
    features.snapshot()
    features.append([row(2), row(3)], profile={"device": "cuda"}, run_id="r")
    failures = [
        Failure(key="f" * 64, id="a", path="a.mp4", reason=Reason.TIMEOUT, message="slow"),
        Failure(key=None, id="b", path="b.mp4", reason=Reason.UNREADABLE, message="gone"),
        Failure(key=f"{1:064x}", id="c", path="c.mp4", reason=Reason.CRASH, message="but then it worked"),
    ]
    features.add_failures(failures, "r")
    return root


def test_info_counts_what_is_there(root):
    report = pipeline.info(root)
    assert report["schema"] == "vqa-train/store-info/1"
    (found,) = report["sets"]
    assert {k: found[k] for k in ("name", "fingerprint", "modality", "license", "random_weights")} == {
        "name": SPEC.set_name,
        "fingerprint": SPEC.fingerprint,
        "modality": "text",
        "license": "MIT",
        "random_weights": True,
    }
    assert (found["keys"], found["rows"], found["duplicate_rows"], found["shards"]) == (3, 3, 1, 2)
    assert found["bytes"] == sum(path.stat().st_size for path in root.rglob("*.parquet"))
    assert found["outputs"] == {"pooled": [3]}
    assert sorted(p["profile"]["device"] for p in found["profiles"]) == ["cpu", "cuda"]
    assert [p["rows"] for p in found["profiles"]] == [2, 2]
    assert found["failures"] == {"timeout": 1, "unreadable": 1}
    assert (len(found["snapshot"]), found["shards_since_snapshot"]) == (64, 1)


def test_info_of_a_set_without_anything(tmp_path):
    FeatureStore(tmp_path / "s").create_set(SPEC, license="MIT")
    (found,) = pipeline.info(tmp_path / "s")["sets"]
    assert (found["rows"], found["snapshot"], found["shards_since_snapshot"]) == (0, None, 0)


def test_failures_are_listed_by_reason(root):
    report = pipeline.failures(root)
    assert [(f["set"], f["id"], f["reason"]) for f in report["failures"]] == [
        (SPEC.set_name, "a", "timeout"),
        (SPEC.set_name, "b", "unreadable"),
    ]
    assert [f["id"] for f in pipeline.failures(root, Reason.UNREADABLE)["failures"]] == ["b"]
    assert pipeline.failures(root, Reason.TOO_LARGE)["failures"] == []


def test_verify_reports_what_it_read_and_found(root):
    report = pipeline.verify(root)
    assert (report["ok"], report["sets"], report["shards"], report["rows"], report["problems"]) == (True, 1, 2, 4, [])
    shard = next(root.rglob("*.parquet"))
    shard.write_bytes(shard.read_bytes()[:-1])
    report = pipeline.verify(root)
    assert (report["ok"], len(report["problems"])) == (False, 1)


def test_gc_lists_and_deletes(root):
    shard = next(root.rglob("*.parquet")).with_name("orphan.parquet")
    shard.write_bytes(b"12345")
    report = pipeline.gc(root, grace_s=0)
    assert (report["deleted"], report["bytes"], [f["why"] for f in report["files"]]) == (
        False,
        5,
        ["shard without a commit"],
    )
    assert shard.exists()
    assert pipeline.gc(root, grace_s=0, delete=True)["deleted"]
    assert not shard.exists()


@pytest.mark.parametrize("report", [pipeline.info, pipeline.failures, pipeline.verify, pipeline.gc])
def test_reports_are_strict_json_under_a_version(root, report):
    value = report(root)
    assert json.loads(json.dumps(value, allow_nan=False)) == value
    assert value["schema"].startswith("vqa-train/store-")
    assert value["schema"].endswith("/1")
