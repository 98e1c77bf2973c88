"""Sealed JSON is JSON for everyone, and no byte of it can change unnoticed."""

from __future__ import annotations

import json
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from vqa_train.core.config import StrictModel
from vqa_train.core.errors import StoreError
from vqa_train.core.hashing import sha256_bytes
from vqa_train.core.versions import version
from vqa_train.store.seal import check_seal, parse_sealed, sealed


class Note(StrictModel):
    schema_: Literal["note/1"] = Field(alias="schema")
    text: str
    seal: str


VALUE = {"schema": "note/1", "text": "naïve “text”\nof two lines"}


def test_any_json_reader_gets_the_value_back_with_a_seal_over_the_head():
    data = sealed(VALUE)
    assert {k: v for k, v in json.loads(data).items() if k != "seal"} == VALUE
    head = data[: data.index(b' "seal"')]
    assert json.loads(data)["seal"] == sha256_bytes(head)


def test_parsing_gives_the_model():
    assert parse_sealed(Note, sealed(VALUE), "a note").text == VALUE["text"]


def test_sealing_again_replaces_the_seal():
    assert sealed(json.loads(sealed(VALUE))) == sealed(VALUE)


def test_every_change_of_any_single_byte_is_found():
    data = sealed(VALUE)
    for position in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[position] ^= 1 << bit
            with pytest.raises(StoreError, match="damaged"):
                check_seal(bytes(changed), "a note")


@given(st.integers(0, 200), st.integers(0, 200))
def test_a_cut_or_lengthened_file_is_found(start, end):
    data = sealed(VALUE)
    piece = data[start : max(start, len(data) - end)]
    if piece == data:
        piece = data + b"\n"
    with pytest.raises(StoreError, match="damaged"):
        check_seal(piece, "a note")


def test_content_of_another_schema_is_refused_by_place():
    with pytest.raises(StoreError, match="a note: schema: .*note/1"):
        parse_sealed(Note, sealed({**VALUE, "schema": "note/2"}), "a note")


class Later(StrictModel):
    """What the reader of version 1.2 knows: a field that 1.1 did not have yet."""

    schema_: Annotated[str, version("note/1.2")] = Field(alias="schema")
    text: str
    colour: str = "none"
    seal: str


@pytest.mark.parametrize("schema", ["note/1", "note/1.1", "note/1.2"])
def test_an_older_minor_version_opens(schema):
    assert parse_sealed(Later, sealed({**VALUE, "schema": schema}), "a note").colour == "none"


@pytest.mark.parametrize("schema", ["note/1.3", "note/2", "note/2.0", "note/10"])
def test_a_newer_version_is_refused_with_what_to_install_whatever_else_is_in_it(schema):
    data = sealed({"schema": schema, "unheard": [1], "text": 3})
    with pytest.raises(StoreError, match=rf"a note has schema '{schema}'.* reads 'note/1.2' - .*pip install --upgrade"):
        parse_sealed(Later, data, "a note")


@pytest.mark.parametrize("schema", ["note/0", "note/0.9"])
def test_an_older_major_version_says_what_reads_it(schema):
    with pytest.raises(StoreError, match=r"older version: pip install 'vqa-train<"):
        parse_sealed(Later, sealed({**VALUE, "schema": schema}), "a note")


@pytest.mark.parametrize(
    "schema", ["other/1.2", "note/", "note/-1", "note/1.2.3", "note/9999999999", "", 1, None, ["x"]]
)
def test_what_is_no_version_of_this_file_is_refused(schema):
    with pytest.raises(StoreError, match="another kind"):
        parse_sealed(Later, sealed({**VALUE, "schema": schema}), "a note")


def test_unknown_fields_are_refused():
    with pytest.raises(StoreError, match="extra"):
        parse_sealed(Note, sealed({**VALUE, "extra": 1}), "a note")


def test_nan_is_not_written():
    with pytest.raises(ValueError, match="JSON compliant"):
        sealed({"x": float("nan")})


def test_an_undecodable_file_name_is_kept_as_its_escape():
    name = b"caf\xe9.mp4".decode("utf-8", "surrogateescape")
    data = sealed({"argv": [name]})
    check_seal(data, "a run")
    assert json.loads(data)["argv"] == [name]
