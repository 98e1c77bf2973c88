"""Documents as real runs wrote them follow their schema, and broken ones do not."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from vqa_train.cli.common import emit_json
from vqa_train.store import seal

ROOT = Path(__file__).resolve().parents[2]
KEPT = Path(__file__).with_name("documents")
NAMES = sorted(path.name for path in KEPT.glob("*.json"))
# Below these keys a document may say anything: configurations, settings of one kind, free notes.
FREE = {
    "choices", "config", "counts", "details", "facts", "imported", "meta", "options", "parameters", "preprocessing",
    "quantization", "scales", "settings",
}  # fmt: skip


def load(name: str) -> dict[str, Any]:
    """A kept document."""
    value: dict[str, Any] = json.loads((KEPT / name).read_text("utf-8"))
    return value


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a document; of a list its first entry stands for all."""
    if path:
        yield path
    if isinstance(value, dict):
        for key, entry in value.items():
            if key not in FREE:
                yield from places(entry, (*path, key))
    elif isinstance(value, list) and value:
        yield from places(value[0], (*path, 0))


def changed(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy with another value at a place."""
    result = copy.deepcopy(document)
    owner = result
    for part in path[:-1]:
        owner = owner[part]
    owner[path[-1]] = value
    return result


def without(document: Any, key: str) -> Any:
    """A copy without a key of the top level."""
    return {name: value for name, value in document.items() if name != key}


def test_every_format_has_a_document(documents: ModuleType) -> None:
    parts = {name for name, schema in documents.schemas().items() if not schema["title"].startswith("vqa-train/")}
    assert sorted(set(documents.schemas()) - parts - set(NAMES)) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_document_follows_its_schema(documents: ModuleType, name: str) -> None:
    document = load(name)
    assert documents.file_name(documents.format_of(document)) == name
    assert documents.problems(document) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_broken_document_is_refused(documents: ModuleType, name: str) -> None:
    document, check = load(name), documents.validator(name).is_valid
    schema = documents.schemas()[name]
    forms = schema.get("oneOf", [schema])
    required = set.intersection(*(set(form["required"]) for form in forms))
    accepted = [f"without {key}" for key in sorted(required) if check(without(document, key))]
    tag = "schema_version" if "schema_version" in document else "schema"
    accepted += ["another version"] if check({**document, tag: "vqa-train/other/9"}) else []
    accepted += ["an unknown key"] if check({**document, "no_such_key": 1}) else []
    for path in places(document):
        # No field of ours takes a mapping of this, nor a list of lists of it.
        wrong = [[{"?": [None]}]] if isinstance(_at(document, path), dict) else {"?": [[None]]}
        if check(changed(document, path, wrong)):
            accepted.append(f"{'/'.join(map(str, path))} = {wrong}")
    assert accepted == []


def _at(document: Any, path: tuple[Any, ...]) -> Any:
    for part in path:
        document = document[part]
    return document


@pytest.mark.parametrize(
    "path", [*sorted(ROOT.glob("ai/configs/**/*.yaml")), ROOT / "manifests" / "weights.yaml"], ids=str
)
def test_yaml_that_comes_with_the_package_follows_its_schema(documents: ModuleType, path: Path) -> None:
    value = yaml.safe_load(path.read_text("utf-8"))
    assert documents.problems(value) == []


@pytest.mark.usefixtures("broken_documents")
def test_what_the_package_writes_is_looked_at(documents: ModuleType, tmp_path: Path) -> None:
    outer, watch = json.dumps, documents.Watch()
    with watch.watching():
        emit_json({"schema": "vqa-train/study/1"}, str(tmp_path / "report.json"))
        # As a module of the package would.
        exec("sealed({'schema': 'vqa-train/store-tag/1'})", {"__name__": "vqa_train.any", "sealed": seal.sealed})
        json.dumps({"schema": "vqa-train/ladder/1"})
    assert json.dumps is outer
    found = watch.end()
    assert {line.partition(":")[0] for line in found} == {"vqa-train/study/1", "vqa-train/store-tag/1"}
    assert "vqa-train/study/1: top level: 'recipe' is a required property" in found
    assert watch.end() == []


def test_a_kept_document_names_no_folder_of_the_machine(documents: ModuleType) -> None:
    value = {
        "path": "/tmp/a b/c/x.json",
        "text": "of '/home/u/v.mp4' it",
        "url": "s3://bucket/a/b",
        "host": "h",
        "r": "~/a/b",
    }
    # A space ends a path: what follows is not known to be one.
    expected = {"path": "/data/a b/c/x.json", "text": "of '/data/v.mp4' it", "host": "host"}
    assert documents.scrubbed(value) == {**value, **expected}
