"""Writes the JSON Schemas of docs/formats/schemas that follow from the classes that read a format, and the index page.

    python tools/schemas.py            write what has changed
    python tools/schemas.py --check    write nothing; exit code 1 and the names where a file is out of date

A format that no class reads (a report of `--json`) has its schema written by hand in the same folder; it is left alone.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import re
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "formats" / "schemas"
PAGE = ROOT / "docs" / "formats" / "schemas.md"
DIALECT = "https://json-schema.org/draft/2020-12/schema"

CLASSES = {
    "vqa-train/dataset/1": "datasets.manifest:DatasetManifest",
    "vqa-train/failure/1": "store.records:FailureRecord",
    "vqa-train/feature-set/1": "store.records:SetRecord",
    "vqa-train/fit/1": "pipelines.fit.config:FitConfig",
    "vqa-train/head/2": "heads.checkpoint:_Header",
    "vqa-train/matrix/1": "store.records:MatrixRecord",
    "vqa-train/model/1": "registry.sidecar:ModelSidecar",
    "vqa-train/registry/1": "registry.entries:_FileBefore",
    "vqa-train/registry/2": "registry.entries:RegistryFile",
    "vqa-train/row-index/1": "store.index_file:IndexRecord",
    "vqa-train/run/2": "pipelines.runs:RunRecord",
    "vqa-train/run-features/1": "pipelines.fit.run_features:RunFeatures",
    "vqa-train/run-status/1": "pipelines.extract.heartbeat:RunStatus",
    "vqa-train/shard-commit/1": "store.records:ShardCommit",
    "vqa-train/space/1": "pipelines.tune.space:_SpaceFile",
    "vqa-train/splits/1": "datasets.protocols.file:_Document",
    "vqa-train/store/1": "store.records:StoreRecord",
    "vqa-train/store-quarantine/1": "store.records:QuarantineRecord",
    "vqa-train/store-snapshot/1": "store.records:SnapshotRecord",
    "vqa-train/store-tag/1": "store.records:TagRecord",
    "vqa-train/training-statistics/1": "registry.facts:TrainingStatistics",
    "vqa-train/weights/1": "weights.manifest:WeightsManifest",
    "vqa-train/weights-lock/1": "weights.pins:_LockFile",
}
"""Schema -> the class that reads it (or whose values it holds), in vqa_train."""

WRITTEN_BY_HAND = {"vqa-train/dataset/1", "vqa-train/weights/1"}
"""Formats whose reader takes a file without the key `schema`."""

FILES = {
    *CLASSES, "vqa-train/backbone-onnx/1", "vqa-train/calibration/1", "vqa-train/feature-spec/1", "vqa-train/gates/1",
    "vqa-train/ladder-record/1", "vqa-train/partial-fit/1", "vqa-train/protocol-report/1", "vqa-train/run-provenance/1",
    "vqa-train/score-journal/1", "vqa-train/study/1",
}  # fmt: skip
"""Formats of files that are kept; the others are what commands report with `--json`."""

PARTS = {"protocol.json", "reason.json"}
"""Schemas that others refer to, of no document of their own."""

UNNAMED = {"run-history.json", "run-metrics.json"}
"""Schemas of files that name none: what they hold follows from the run.json beside them."""

ABOUT = {
    "vqa-train/dataset/1": "NAME.yaml: a dataset's identity, licence, scale, columns, label tables, files and splits.",
    "vqa-train/failure/1": "One line of failures/<uuid>.jsonl in a feature set: an input that gave no feature.",
    "vqa-train/fit/1": "A recipe of `fit` (YAML), and its resolved form in a run folder.",
    "vqa-train/head/2": "The metadata in the header of head.safetensors: how to build the networks.",
    "vqa-train/model/1": "model.json, the sidecar of an exported or registered model.",
    "vqa-train/registry/1": "registry.json as it was with one version of every model; still read.",
    "vqa-train/registry/2": "registry.json: models, their versions, aliases and how those moved.",
    "vqa-train/run-features/1": "features.json of a run folder: which rows of which shards a fit read.",
    "vqa-train/space/1": "A search space of `tune` (YAML): the settings that vary, and over what.",
    "vqa-train/splits/1": "splits.json: which rows train, validate and test in every fold.",
    "vqa-train/training-statistics/1": "statistics.json of a run folder: columns of the inputs and the model's own "
    "scores on the training rows, against which drift is measured.",
    "vqa-train/weights/1": "weights.yaml: where the weights are published, which bytes, under which licence.",
    "vqa-train/weights-lock/1": "weights.lock.json: which bytes were seen first, enforced from then on.",
    "vqa-train/gates/1": "A gate file (YAML): limits per gate; what it leaves out has the default.",
}
"""Schema -> what it is of, where the class's own first line does not say it."""

_SPEC = {"$ref": "feature-spec-1.json"}
_PROVENANCE = {"$ref": "run-provenance-1.json"}
_PROTOCOL = {"$ref": "protocol.json"}
_SHA256 = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
FIELDS: dict[tuple[str, str], dict[str, Any]] = {
    ("FitConfig", "protocol"): {"anyOf": [{"type": "string"}, _PROTOCOL], "default": "splits"},
    ("ModelInput", "spec"): _SPEC,
    ("ModelSidecar", "metrics"): {"anyOf": [{"$ref": "eval-1.json"}, {"type": "null"}]},
    ("ModelSidecar", "parity"): {"$ref": "export-report-1.json#/$defs/Parity"},
    ("ModelSidecar", "run_provenance"): _PROVENANCE,
    ("ProtocolSummary", "protocol"): _PROTOCOL,
    ("RunInput", "fingerprint"): _SHA256,
    ("RunInput", "spec"): _SPEC,
    ("RunMember", "config"): {"$ref": "fit-1.json#/$defs/TrainConfig"},
    ("RunRecord", "calibration"): {"anyOf": [{"$ref": "calibration-1.json"}, {"type": "null"}]},
    ("RunRecord", "config"): {"$ref": "fit-1.json"},
    ("RunRecord", "config_sha256"): _SHA256,
    ("RunRecord", "files"): {"type": "object", "additionalProperties": _SHA256},
    ("RunRecord", "protocol"): _PROTOCOL,
    ("RunRecord", "run_provenance"): _PROVENANCE,
    ("RunRecord", "splits_sha256"): _SHA256,
    ("RunStatus", "sets"): {"type": "array", "items": {"$ref": "extract-report-1.json#/$defs/SetReport"}},
    ("SetRecord", "spec"): _SPEC,
    ("Target", ""): {"string_or": True},
    ("_Document", "protocol"): _PROTOCOL,
    ("_SpaceFile", "params"): {
        "type": "object",
        "minProperties": 1,
        "additionalProperties": {
            "anyOf": [
                {"type": "string", "description": "As on the command line: float:1e-4:1e-2:log."},
                {"$ref": "#/$defs/NumberRange"},
                {"$ref": "#/$defs/Choices"},
            ]
        },
    },
}
"""(class, field) -> a schema that says more than the class's annotation."""

EXTRA = {"vqa-train/space/1": ("pipelines.tune.range:NumberRange", "pipelines.tune.range:Choices")}
"""Schema -> classes that only `FIELDS` refers to."""


def main() -> int:
    """Write or check every generated file; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where a file is out of date")
    check = parser.parse_args().check
    stale = [path for path, text in contents().items() if not path.is_file() or path.read_text("utf-8") != text]
    for path in stale:
        print(f"{'out of date' if check else 'written'}: {path.relative_to(ROOT)}")
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(contents()[path], "utf-8")
    if not check and stale:
        PAGE.write_text(index_page(), "utf-8")
    return 1 if check and stale else 0


def contents() -> dict[Path, str]:
    """Path -> text of every generated file."""
    found = {FOLDER / file_name(schema): _text(of_class(schema)) for schema in CLASSES}
    found[FOLDER / "protocol.json"] = _text(protocol())
    found[FOLDER / file_name("vqa-train/gates/1")] = _text(gates())
    found[PAGE] = index_page()
    return found


def file_name(schema: str) -> str:
    """`vqa-train/run/2` -> `run-2.json`."""
    return schema.removeprefix("vqa-train/").replace("/", "-") + ".json"


def of_class(schema: str) -> dict[str, Any]:
    """The JSON Schema of a format that a class reads."""
    kind = _load(CLASSES[schema])
    body = _schema_of(kind)
    for name in EXTRA.get(schema, ()):
        body.setdefault("$defs", {})[name.partition(":")[2]] = _schema_of(_load(name))
    tag = "schema_version" if "schema_version" in body["properties"] else "schema"
    properties = {tag: {"const": schema}, **{k: v for k, v in body.pop("properties").items() if k != tag}}
    required = [name for name in body.pop("required", []) if name != tag]
    if schema not in WRITTEN_BY_HAND:
        required.insert(0, tag)
    definitions = body.pop("$defs", {})
    document = _head(schema, ABOUT.get(schema, body["description"]))
    document |= {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    return {**document, **({"$defs": definitions} if definitions else {})}


def protocol() -> dict[str, Any]:
    """What a protocol of held-out rows may be; no file of its own, other schemas refer to it."""
    from vqa_train.datasets.protocols.config import KINDS

    choices = [{**_schema_of(kind), "title": name} for name, kind in KINDS.items()]
    for choice in choices:
        choice["required"] = ["kind"]
    about = "A protocol: which rows train and which test. Part of other documents."
    return {"$schema": DIALECT, "$id": "protocol.json", "title": "protocol", "description": about, "oneOf": choices}


def gates() -> dict[str, Any]:
    """A gate file: one section per gate."""
    from vqa_train.pipelines.gates.config import SECTIONS

    sections: dict[str, Any] = {"schema": {"const": "vqa-train/gates/1"}}
    definitions: dict[str, Any] = {}
    for name in SECTIONS:
        limits = limits_of(name)
        if limits is None:
            sections[name] = {"type": ["object", "null"], "description": f"Limits of the gate {name}."}
            continue
        body = _schema_of(limits)
        definitions |= body.pop("$defs", {})
        sections[name] = {"anyOf": [body, {"type": "null"}]}
    document = _head("vqa-train/gates/1", ABOUT["vqa-train/gates/1"])
    document |= {"type": "object", "properties": sections, "required": ["schema"], "additionalProperties": False}
    return {**document, **({"$defs": definitions} if definitions else {})}


def limits_of(section: str) -> type[BaseModel] | None:
    """The class of a gate's limits: the one `...Limits` that pipelines/gates/<section>.py has; None without one."""
    try:
        module = importlib.import_module(f"vqa_train.pipelines.gates.{section}")
    except ModuleNotFoundError as error:
        if error.name != f"vqa_train.pipelines.gates.{section}":
            raise
        return None
    found = [
        value
        for name, value in vars(module).items()
        if name.endswith("Limits") and isinstance(value, type) and issubclass(value, BaseModel)
    ]
    return found[0] if len(found) == 1 else None


def index_page() -> str:
    """docs/formats/schemas.md."""
    rows: dict[bool, list[str]] = {True: [], False: []}
    for path in sorted(FOLDER.glob("*.json")):
        value = json.loads(path.read_text("utf-8"))
        if path.name not in PARTS:
            about = " ".join(value["description"].split()).replace("|", "\\|")
            rows[value["title"] in FILES or path.name in UNNAMED].append(
                f"| [`{value['title']}`](schemas/{path.name}) | {about} |"
            )
    return _PAGE.format(files="\n".join(rows[True]), reports="\n".join(rows[False]))


_PAGE = """# JSON Schemas

Every document that vqa-train writes or reads as JSON, JSON Lines or YAML carries the name and version of its format in
`schema` (a model's sidecar in `schema_version`), and has a [JSON Schema](https://json-schema.org) of draft 2020-12 in
`docs/formats/schemas/`: `vqa-train/run/2` has `run-2.json`. They refer to each other by file name, so keep them in one
folder. With the package `jsonschema`:

```python
import json
from pathlib import Path

from jsonschema import Draft202012Validator
from referencing import Registry, Resource

schemas = {{path.name: json.loads(path.read_text()) for path in Path("docs/formats/schemas").glob("*.json")}}
registry = Registry().with_resources((name, Resource.from_contents(value)) for name, value in schemas.items())
document = json.loads(Path("model/NAME/1/model.json").read_text())
Draft202012Validator(schemas["model-1.json"], registry=registry).validate(document)
```

- A key that a schema does not list is an error, unless the key is a name of yours (a target, an input, a dataset) or
  the value is free (`meta` of a head, `details` of a gate).
- A number that is not defined (NaN) is null. Durations are in seconds, sizes in bytes, times UTC in ISO 8601.
- What a schema cannot say (a hash that must match, a row that stands twice) is checked by the reader.
- A schema that follows from the class that reads the format is written by `python tools/schemas.py`; the others are
  written by hand. The tests hold every document that they see being written against its schema.
- An optional key may be added to a format of one version; anything else takes a new version and a new file here. A
  program that reads reports should therefore ignore keys that it does not know.

## Files

| schema | what |
|---|---|
{files}

## Reports of `--json`

| schema | what |
|---|---|
{reports}
"""


def _head(schema: str, about: str) -> dict[str, Any]:
    return {"$schema": DIALECT, "$id": file_name(schema), "title": schema, "description": about}


def _load(name: str) -> type[BaseModel]:
    module, _, attribute = name.partition(":")
    found: type[BaseModel] = getattr(importlib.import_module(f"vqa_train.{module}"), attribute)
    return found


def _schema_of(kind: type[BaseModel]) -> dict[str, Any]:
    """pydantic's schema of a class, with descriptions from docstrings and without its generated titles."""
    value = kind.model_json_schema(by_alias=True, ref_template="#/$defs/{model}")
    documented = {found.__name__: found for found in _classes(kind)}
    definitions = value.pop("$defs", {})
    body = _described(value, kind)
    for name, definition in definitions.items():
        definitions[name] = _described(definition, documented.get(name))
    if not definitions:
        return body
    return {**body, "$defs": dict(sorted(definitions.items()))}


def _described(schema: dict[str, Any], kind: type[BaseModel] | None) -> dict[str, Any]:
    schema = _tidy(schema)
    if kind is None:
        return schema
    about, attributes = _docstring(kind)
    schema["description"] = about
    aliases = {name: field.alias or name for name, field in kind.model_fields.items()}
    properties = schema.get("properties", {})
    for name, alias in aliases.items():
        if (kind.__name__, name) in FIELDS:
            properties[alias] = dict(FIELDS[kind.__name__, name])
        if name in attributes:
            properties[alias]["description"] = attributes[name]
    if (kind.__name__, "") in FIELDS:
        return {"anyOf": [{"type": "string"}, schema]}
    return schema


def _tidy(value: Any) -> Any:
    """A schema without pydantic's titles (a property called `title` is none); names that must match a pattern must."""
    if isinstance(value, Mapping):
        kept = {k: v for k, v in value.items() if not (k == "title" and isinstance(v, str))}
        closed = {"additionalProperties": False} if "patternProperties" in kept else {}
        return {k: _tidy(v) for k, v in kept.items()} | closed
    return [_tidy(item) for item in value] if isinstance(value, list) else value


def _classes(kind: type[BaseModel]) -> set[type[BaseModel]]:
    """The class and every class of its fields."""
    found: set[type[BaseModel]] = set()
    waiting: list[Any] = [kind]
    while waiting:
        item = waiting.pop()
        if isinstance(item, type) and issubclass(item, BaseModel):
            if item not in found:
                found.add(item)
                waiting += [field.annotation for field in item.model_fields.values()]
        else:
            waiting += getattr(item, "__args__", ())
    return found


def _docstring(kind: type[BaseModel]) -> tuple[str, dict[str, str]]:
    """First paragraph, and attribute -> what it is, from `Attributes:` here and in the classes it extends."""
    attributes: dict[str, str] = {}
    for owner in reversed([base for base in kind.__mro__ if issubclass(base, BaseModel) and base.__doc__]):
        attributes |= _attributes(inspect.cleandoc(owner.__doc__ or ""))
    about = inspect.cleandoc(kind.__dict__.get("__doc__") or "").partition("\n\n")[0]
    return _sentence(" ".join(about.split())), attributes


def _attributes(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    section = re.search(r"^Attributes:\n((?:[ ]+.*\n?|\n)+)", text, re.MULTILINE)
    for entry in re.split(r"\n(?=\S)", textwrap.dedent(section[1]) if section else ""):
        names, colon, what = entry.partition(":")
        words = " ".join(what.split())
        for name in names.split(","):
            if colon and words:
                found[name.strip()] = _sentence(words)
    return found


def _sentence(text: str) -> str:
    """A docstring's words as a schema says them."""
    text = re.sub(r"\bNone\b", "null", text)
    first = text.partition(" ")[0]
    # "sha256 of ..." and `a name` stay as they are.
    return text if re.search(r"[0-9`_]", first) else text[:1].upper() + text[1:]


def _text(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.exit(main())
