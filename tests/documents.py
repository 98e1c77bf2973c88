"""Holds every document that the package writes while the tests run against its JSON Schema; see conftest.py.

What is written passes through `json.dumps`, `yaml.safe_dump` or `store.seal.sealed`. A mapping with a schema of ours
that a module of the package hands over is read back and validated; that every format has one is a test of its own. With
$VQA_KEEP_DOCUMENTS=FOLDER the richest document of each format is kept there: so tests/formats/documents was made.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from vqa_train.store import seal

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "formats" / "schemas"
# Of one format, in one test: the rest would say the same again.
_PER_TEST = 2
_MOST_BYTES = 12_000
_PATH = re.compile(r"(?<![\w.:/~])/(?:[^\s/\"',]+/)+")
_MACHINE = {"host": "host", "platform": "Linux-x86_64", "pid": 1, "cpus": 2}


@cache
def schemas() -> dict[str, dict[str, Any]]:
    """File name -> schema, of every file in docs/formats/schemas."""
    return {path.name: json.loads(path.read_text("utf-8")) for path in sorted(FOLDER.glob("*.json"))}


@cache
def validator(name: str) -> Draft202012Validator:
    """Of the schema in the file `name`; it finds its siblings."""
    registry: Registry[Any] = Registry().with_resources(
        (name, Resource.from_contents(value)) for name, value in schemas().items()
    )
    return Draft202012Validator(schemas()[name], registry=registry)


def format_of(value: Any) -> str | None:
    """The schema that a document names, where it is one of ours."""
    found = (value.get("schema") or value.get("schema_version")) if isinstance(value, dict) else None
    return found if isinstance(found, str) and found.startswith("vqa-train/") else None


def file_name(schema: str) -> str:
    """`vqa-train/run/2` -> `run-2.json`."""
    return schema.removeprefix("vqa-train/").replace("/", "-") + ".json"


def problems(value: Any) -> list[str]:
    """What is wrong with a document, one line each."""
    schema = format_of(value)
    assert schema is not None, "no document of ours"
    return [
        f"{schema}: {'/'.join(map(str, error.absolute_path)) or 'top level'}: {error.message:.300}"
        for error in validator(file_name(schema)).iter_errors(value)
    ]


class Watch:
    """Collects what is wrong with the documents of the test that runs.

    Args:
        keep: folder that gets one document of each format.
    """

    def __init__(self, keep: Path | None = None) -> None:
        self.found: list[str] = []
        self.paused = False
        self._seen: Counter[str] = Counter()
        self._keep = keep
        self._richness: dict[str, tuple[int, int]] = {}

    def begin(self) -> None:
        """A test begins."""
        self._seen.clear()

    def end(self) -> list[str]:
        """What was wrong since the last `end`."""
        found, self.found, self.paused = self.found, [], False
        return list(dict.fromkeys(found))

    @contextmanager
    def watching(self) -> Iterator[None]:
        """While it lasts, documents are looked at as they are written."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(json, "dumps", self._wrapped(json.dumps, json.loads))
            patch.setattr(yaml, "safe_dump", self._wrapped(yaml.safe_dump, yaml.safe_load))
            original = seal.sealed
            wrapped = self._wrapped(original, json.loads)
            # Modules that are imported already have it under their own name.
            having = [module for name, module in list(sys.modules.items()) if name.startswith("vqa_train.")]
            for module in having:
                if vars(module).get("sealed") is original:
                    patch.setattr(module, "sealed", wrapped)
            yield

    def _wrapped(self, dump: Callable[..., Any], load: Callable[[Any], Any]) -> Callable[..., Any]:
        def dumps(value: Any, *arguments: Any, **options: Any) -> Any:
            text = dump(value, *arguments, **options)
            schema = format_of(value)
            # A test may write what is broken on purpose; the package never.
            ours = str(sys._getframe(1).f_globals.get("__name__")).startswith("vqa_train.")
            if ours and schema is not None and isinstance(text, str | bytes) and file_name(schema) in schemas():
                self._look(schema, text, load)
            return text

        return dumps

    def _look(self, schema: str, text: str | bytes, load: Callable[[Any], Any]) -> None:
        self._seen[schema] += 1
        if self.paused or self._seen[schema] > _PER_TEST:
            return
        value = load(text)
        wrong = problems(value)
        self.found += wrong
        if self._keep is not None and not wrong:
            for part in ours_in(scrubbed(value)):
                self._keep_richest(str(format_of(part)), part)

    def _keep_richest(self, schema: str, value: Any) -> None:
        text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
        richness = (len(set(key_paths(value))), -len(text))
        if len(text) <= _MOST_BYTES and richness > self._richness.get(schema, (0, 0)) and self._keep is not None:
            self._richness[schema] = richness
            self._keep.mkdir(parents=True, exist_ok=True)
            (self._keep / file_name(schema)).write_text(text, "utf-8")


def ours_in(value: Any) -> Iterator[dict[str, Any]]:
    """A document of ours and those inside it."""
    if isinstance(value, dict):
        if format_of(value) is not None:
            yield value
        for entry in value.values():
            yield from ours_in(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from ours_in(entry)


def key_paths(value: Any, path: str = "") -> Iterator[str]:
    """Every place in a document that has a value, list entries as one."""
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from key_paths(entry, f"{path}/{key}")
    elif isinstance(value, list):
        for entry in value:
            yield from key_paths(entry, f"{path}/*")
    else:
        yield f"{path}:{type(value).__name__}"


def scrubbed(value: Any) -> Any:
    """A document without folders and names of the machine."""
    if isinstance(value, dict):
        return {
            _PATH.sub("/data/", key): _MACHINE[key]
            if isinstance(entry, str | int) and key in _MACHINE
            else scrubbed(entry)
            for key, entry in value.items()
        }
    if isinstance(value, list):
        return [scrubbed(entry) for entry in value]
    return _PATH.sub("/data/", value) if isinstance(value, str) else value
