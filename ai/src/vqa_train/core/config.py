"""YAML and JSON at the border: safe loading, duplicate keys and unknown keys refused, one-line errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from vqa_train.core.errors import ConfigError
from vqa_train.core.plugins import did_you_mean
from vqa_train.core.versions import refusal

_MAX_BYTES = 256 * 1024 * 1024
_MAX_ALIASES = 100
# Collections within collections. PyYAML's time grows with the square of it: 20,000 brackets took a minute.
_MAX_DEPTH = 100


class StrictModel(BaseModel):
    """Base of every file schema: immutable, unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses duplicate keys, alias bombs and deep nesting."""

    aliases = 0
    depth = 0

    def fetch_flow_collection_start(self, token_class: Any) -> None:
        self._refuse_deep(self.flow_level)
        super().fetch_flow_collection_start(token_class)

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            self.aliases += 1
            if self.aliases > _MAX_ALIASES:
                raise yaml.YAMLError(f"more than {_MAX_ALIASES} aliases")
        self._refuse_deep(self.depth)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def add_indent(self, column: int) -> bool:
        self._refuse_deep(len(self.indents))
        return super().add_indent(column)

    @staticmethod
    def _refuse_deep(depth: int) -> None:
        if depth > _MAX_DEPTH:
            raise yaml.YAMLError(f"nested more than {_MAX_DEPTH} deep")

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str | int | float | bool) and key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key!r}", key_node.start_mark)
            if isinstance(key, str | int | float | bool):
                seen.add(key)
        return super().construct_mapping(node, deep=deep)


def _read(path: Path, what: str) -> str:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ConfigError(f"{what} {str(path)!r} is over {_MAX_BYTES >> 20} MiB")
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ConfigError(f"{what} {str(path)!r} does not exist") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{what} {str(path)!r} is not UTF-8 text") from error
    except OSError as error:
        raise ConfigError(f"{what} {str(path)!r} cannot be read: {error.strerror}") from error


def load_yaml(path: Path, what: str = "YAML file") -> Any:
    """The value in a YAML file, through the safe loader.

    Raises:
        ConfigError: missing, unreadable, not YAML, duplicate keys, too many aliases, too deep.
    """
    text = _read(path, what)
    try:
        # _Loader is a SafeLoader; C's loader cannot check duplicate keys.
        return yaml.load(text, Loader=_Loader)  # noqa: S506
    except (yaml.YAMLError, RecursionError, ValueError, OverflowError) as error:
        # ValueError: a date that is none, a number of more digits than Python takes.
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or str(error)
        raise ConfigError(f"{what} {str(path)!r}{where}: {problem}") from error


def load_json(path: Path, what: str = "JSON file") -> Any:
    """The value in a JSON file.

    Raises:
        ConfigError: missing, unreadable, not JSON, duplicate keys.
    """
    try:
        return json.loads(_read(path, what), object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{what} {str(path)!r} is not JSON: {error}") from error


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"duplicate key {next(key for key in keys if keys.count(key) > 1)!r:.100}")
    return value


M = TypeVar("M", bound=BaseModel)


def parse(model: type[M], value: Any, source: str) -> M:
    """`value` as a validated `model`.

    Raises:
        ConfigError: one line with the first problem, its place and, for an unknown key, the nearest known one.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        for problem in error.errors(include_url=False):
            if problem["loc"] in (("schema",), ("schema_version",)) and problem["type"] == "literal_error":
                message, hint = refusal(problem["input"], str(problem["ctx"]["expected"]).strip("'"))
                raise ConfigError(f"{source} {message}", hint=hint) from error
        # A misspelt key also makes the right one missing; the spelling is what to tell.
        first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
        location = first["loc"]
        place = ".".join(str(part) for part in location) or "top level"
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        if first["type"] == "extra_forbidden":
            fields = list(_fields_at(model, location[:-1]))
            raise ConfigError(
                f"{source}: unknown key {place!r}{more}", hint=did_you_mean(str(location[-1]), fields)
            ) from error
        got = f", got {first['input']!r}" if first["type"] != "missing" else ""
        raise ConfigError(f"{source}: {place}: {first['msg']}{got[:200]}{more}") from error


def _fields_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    current: Any = model
    for part in location:
        if isinstance(part, int) or not (isinstance(current, type) and issubclass(current, BaseModel)):
            continue
        field = current.model_fields.get(part)
        current = _inner_model(field.annotation) if field is not None else None
    if isinstance(current, type) and issubclass(current, BaseModel):
        return [f.alias or name for name, f in current.model_fields.items()]
    return []


def _inner_model(annotation: Any) -> Any:
    """The first BaseModel inside a (possibly generic or optional) annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _inner_model(argument)
        if found is not None:
            return found
    return None
