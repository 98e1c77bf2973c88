"""A row is written as it is or not at all: every mismatch with the spec is an error that names it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest

from vqa_train.core.errors import Reason, StoreError
from vqa_train.core.types import FeatureSpec, OutputSpec
from vqa_train.store.rows import check_spec, checked_row, num_views, row_digest


def with_output(row, name, value):
    return replace(row, outputs={**row.outputs, name: value})


def test_a_good_row_passes_with_plain_facts(spec, make_row):
    row = make_row(spec, 1)
    row = replace(row, facts={**row.facts, "num_frames": np.int64(25), "fps": 30})
    facts = checked_row(spec, row).facts
    assert (facts["num_frames"], facts["fps"]) == (25, 30.0)
    assert (type(facts["num_frames"]), type(facts["fps"])) == (int, float)


@pytest.mark.parametrize("key", ["", "A" * 64, "0" * 63, "g" * 64, "0" * 64 + "\n"])
def test_a_key_is_a_lower_case_sha256(spec, make_row, key):
    with pytest.raises(StoreError, match="64 lower-case hex digits"):
        checked_row(spec, replace(make_row(spec, 1), key=key))


@pytest.mark.parametrize("view", [-1, 2])
def test_a_view_is_one_of_the_samplings(spec, make_row, view):
    with pytest.raises(StoreError, match="view must be 0 to 1"):
        checked_row(spec, replace(make_row(spec, 1), view=view))


@pytest.mark.parametrize(
    ("value", "got"),
    [
        (np.zeros(4, np.float64), r"float64 \(4,\)"),
        (np.zeros(5, np.float32), r"float32 \(5,\)"),
        (np.zeros((1, 4), np.float32), r"float32 \(1, 4\)"),
        ([0.0] * 4, "list"),
    ],
)
def test_an_output_has_the_specs_shape_and_float32(spec, make_row, value, got):
    with pytest.raises(StoreError, match=rf"'pooled' must be float32 \(4,\), got {got}"):
        checked_row(spec, with_output(make_row(spec, 1), "pooled", value))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_none_is_refused_with_its_reason(spec, make_row, bad):
    values = np.array([0, bad, 0, bad], np.float32)
    with pytest.raises(StoreError, match="2 of 4 values of output 'pooled'") as caught:
        checked_row(spec, with_output(make_row(spec, 1), "pooled", values))
    assert caught.value.reason is Reason.NON_FINITE


def test_a_single_number_may_be_a_numpy_scalar(spec, make_row):
    checked_row(spec, with_output(make_row(spec, 1), "sharpness", np.float32(0.5)))
    with pytest.raises(StoreError, match=r"must be float32 \(\), got float"):
        checked_row(spec, with_output(make_row(spec, 1), "sharpness", 0.5))


def test_outputs_are_exactly_the_specs(spec, make_row):
    row = make_row(spec, 1)
    with pytest.raises(StoreError, match="expected outputs"):
        checked_row(spec, with_output(row, "more", np.zeros(1, np.float32)))
    with pytest.raises(StoreError, match="expected outputs"):
        checked_row(spec, replace(row, outputs={"pooled": row.outputs["pooled"]}))


@pytest.mark.parametrize(("fact", "value"), [("fps", "24"), ("width", 1.5), ("codec", None), ("num_frames", True)])
def test_facts_have_their_types(spec, make_row, fact, value):
    row = make_row(spec, 1)
    with pytest.raises(StoreError, match=f"fact '{fact}' must be"):
        checked_row(spec, replace(row, facts={**row.facts, fact: value}))


def test_facts_are_finite(spec, make_row):
    row = make_row(spec, 1)
    with pytest.raises(StoreError, match="fact 'fps' must be finite"):
        checked_row(spec, replace(row, facts={**row.facts, "fps": float("inf")}))


def test_a_video_row_carries_all_facts_and_a_text_row_none(spec, text_spec, make_row):
    with pytest.raises(StoreError, match="expected facts"):
        checked_row(spec, replace(make_row(spec, 1), facts={}))
    text = make_row(text_spec, 1)
    assert checked_row(text_spec, text).facts == {}
    with pytest.raises(StoreError, match="expected facts"):
        checked_row(text_spec, replace(text, facts={"fps": 24.0}))


def test_text_has_one_view(spec, text_spec):
    assert (num_views(spec), num_views(text_spec)) == (2, 1)


def test_the_digest_is_the_sha256_of_json_and_little_endian_floats(spec, make_row):
    row = make_row(spec, 7, view=1)
    identity = json.dumps([row.key, 1, dict(row.facts)], sort_keys=True, separators=(",", ":"))
    floats = b"".join(row.outputs[o.name].astype("<f4").tobytes() for o in spec.outputs)
    assert row_digest(spec, row) == hashlib.sha256(identity.encode() + floats).hexdigest()[:16]


@pytest.mark.usefixtures("broken_documents")
@pytest.mark.parametrize(
    "outputs",
    [
        (),
        (OutputSpec(name="a", shape=(1,)), OutputSpec(name="a", shape=(1,))),
        (OutputSpec(name="view", shape=(1,)),),
        (OutputSpec(name="video_sha256", shape=(1,)),),
        (OutputSpec(name="fps", shape=(1,)),),
        (OutputSpec(name="a.b", shape=(1,)),),
        (OutputSpec(name="", shape=(1,)),),
        (OutputSpec(name="a", shape=(3, 0)),),
    ],
)
def test_a_spec_that_is_no_set_of_columns_is_refused(outputs):
    with pytest.raises(StoreError, match="feature set x@"):
        check_spec(FeatureSpec(backbone="x", definition=1, modality="video", outputs=outputs))
