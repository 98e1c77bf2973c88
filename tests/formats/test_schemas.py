"""Every format has a JSON Schema that is valid, closed, and as tools/schemas.py and the code have it."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from vqa_train.core.errors import Reason

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "formats" / "schemas"
NAMES = sorted(path.name for path in FOLDER.glob("*.json"))
NAMELESS = {"protocol.json", "reason.json", "run-history.json", "run-metrics.json"}
"""Parts of other schemas, and files of a run that name no schema."""
NO_JSON = {"vqa-train/shard/1": "metadata of a Parquet file"}


def formats() -> set[str]:
    """Every schema that the package names."""
    sources = (ROOT / "ai" / "src" / "vqa_train").rglob("*.py")
    found = {name for path in sources for name in re.findall(r"vqa-train/[a-z-]+/[0-9]+", path.read_text("utf-8"))}
    return found - NO_JSON.keys()


def objects(schema: Any) -> Iterator[dict[str, Any]]:
    """Every subschema that lists properties."""
    if isinstance(schema, dict):
        if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
            yield schema
        for value in schema.values():
            yield from objects(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from objects(value)


def references(schema: Any) -> Iterator[str]:
    """Every $ref."""
    if isinstance(schema, dict):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"]
        for value in schema.values():
            yield from references(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from references(value)


@pytest.fixture(scope="session")
def generator() -> ModuleType:
    """tools/schemas.py."""
    spec = importlib.util.spec_from_file_location("schemas_tool", ROOT / "tools" / "schemas.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_format_has_a_schema_and_every_schema_a_format(documents: ModuleType) -> None:
    expected = {documents.file_name(schema) for schema in formats()} | NAMELESS
    assert sorted(expected) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_schema_is_valid_and_closed_and_names_its_format(documents: ModuleType, name: str) -> None:
    schema = documents.schemas()[name]
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == Draft202012Validator.META_SCHEMA["$id"]
    assert schema["$id"] == name
    assert schema["description"].endswith(".")
    if name not in NAMELESS:
        assert documents.file_name(schema["title"]) == name
        for form in schema.get("oneOf", [schema]):
            tag = "schema_version" if "schema_version" in form["properties"] else "schema"
            assert form["properties"][tag] == {"const": schema["title"]}
            assert (form["type"], form["additionalProperties"]) == ("object", False)
    # Only an entry of run_provenance has further keys, which say what else is known of it.
    opened = [found for found in objects(schema) if found.get("additionalProperties") is not False]
    assert [sorted(found["properties"]) for found in opened] == (
        [["bytes", "kind", "path", "sha256"]] if name == "run-provenance-1.json" else []
    )


@pytest.mark.parametrize("name", NAMES)
def test_references_lead_somewhere(documents: ModuleType, name: str) -> None:
    resolver = documents.validator(name)._resolver
    for reference in references(documents.schemas()[name]):
        assert resolver.lookup(reference).contents


def test_schemas_of_classes_and_the_index_are_up_to_date(generator: ModuleType) -> None:
    stale = [path.name for path, text in generator.contents().items() if path.read_text("utf-8") != text]
    assert not stale, f"run `python tools/schemas.py`: {', '.join(stale)}"


def test_reason_codes_are_those_of_the_package(documents: ModuleType) -> None:
    assert sorted(documents.schemas()["reason.json"]["enum"]) == sorted(Reason)


def test_every_gate_section_has_limits(generator: ModuleType) -> None:
    from vqa_train.pipelines.gates.config import SECTIONS

    assert [name for name in SECTIONS if generator.limits_of(name) is None] == []


def test_kept_formats_are_named_in_a_page(generator: ModuleType) -> None:
    pages = "".join(path.read_text("utf-8") for path in (ROOT / "docs").rglob("*.md") if path.name != "schemas.md")
    assert sorted(name for name in generator.FILES if name not in pages) == []
