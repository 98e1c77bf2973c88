"""What registry.json holds: models, their versions, aliases and how those moved; reads the file of before versions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from vqa_train.core.config import StrictModel, load_json, parse
from vqa_train.core.errors import ModelError, VqaError
from vqa_train.core.files import confined
from vqa_train.core.plugins import did_you_mean
from vqa_train.registry.reference import CHAMPION, NAME_PATTERN, ModelRef
from vqa_train.registry.sidecar import ModelName, Sha256

REGISTRY_SCHEMA = "vqa-train/registry/2"
_BEFORE = "vqa-train/registry/1"

Name = Annotated[str, StringConstraints(pattern=rf"^{NAME_PATTERN}$")]


class RegistryEntry(StrictModel):
    """One version of a model.

    Attributes:
        sidecar: path relative to the registry.
        sidecar_sha256: of its bytes.
        onnx_sha256: of the head.
        number: 1 for the version of this name that was registered first, and so on.
    """

    sidecar: str
    sidecar_sha256: Sha256
    onnx_sha256: Sha256
    number: int = Field(default=1, ge=1)


class AliasMove(StrictModel):
    """One move of an alias.

    Attributes:
        alias: which.
        version: where it points; None when it was removed.
        previous: where it pointed before; None when it is new.
        at: UTC, ISO 8601.
        by: the command that moved it, `alias` or `promote`.
        evidence: sha256 of the document that justified it.
    """

    alias: Name
    version: Name | None
    previous: Name | None
    at: str
    by: str
    evidence: Sha256 | None = None


class ModelVersions(StrictModel):
    """All versions of a model.

    Attributes:
        versions: version -> its entry.
        aliases: alias -> version.
        moves: of the aliases, oldest first.
    """

    versions: dict[Name, RegistryEntry] = Field(min_length=1)
    aliases: dict[Name, Name] = Field(default_factory=dict)
    moves: list[AliasMove] = Field(default_factory=list)

    @model_validator(mode="after")
    def _aliases_point_somewhere(self) -> ModelVersions:
        lost = sorted(alias for alias, version in self.aliases.items() if version not in self.versions)
        if lost:
            raise ValueError(f"aliases {lost} point to versions that are not there")
        return self

    def in_order(self) -> list[str]:
        """Versions as they were registered, the last one last."""
        return sorted(self.versions, key=lambda version: self.versions[version].number)

    def resolve(self, ref: ModelRef) -> str:
        """The version that is meant.

        Raises:
            ModelError: there is no such version or alias.
        """
        if ref.version is not None:
            if ref.version not in self.versions:
                raise ModelError(
                    f"model {ref.name!r} has no version {ref.version!r}", hint=f"there is {', '.join(self.in_order())}"
                )
            return ref.version
        if ref.alias is not None:
            if ref.alias not in self.aliases:
                raise ModelError(
                    f"model {ref.name!r} has no alias {ref.alias!r}",
                    hint=did_you_mean(ref.alias, list(self.aliases)),
                )
            return self.aliases[ref.alias]
        return self.aliases.get(CHAMPION) or self.in_order()[-1]


class RegistryFile(StrictModel):
    """The file: schema and model name -> its versions."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    schema_: Literal["vqa-train/registry/2"] = Field(default="vqa-train/registry/2", alias="schema")
    models: dict[ModelName, ModelVersions] = Field(default_factory=dict)


class _EntryBefore(StrictModel):
    sidecar: str
    sidecar_sha256: Sha256
    onnx_sha256: Sha256


class _FileBefore(StrictModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    schema_: Literal["vqa-train/registry/1"] = Field(alias="schema")
    models: dict[ModelName, _EntryBefore] = Field(default_factory=dict)


def read_registry(path: Path) -> dict[str, ModelVersions]:
    """Every model in a registry.json.

    Raises:
        ConfigError: it is not JSON or not of the schema.
    """
    value = load_json(path, "model registry")
    if not isinstance(value, dict) or value.get("schema") != _BEFORE:
        return dict(parse(RegistryFile, value, str(path)).models)
    before = parse(_FileBefore, value, str(path)).models
    return {
        name: ModelVersions(versions={_version(path.parent, entry): RegistryEntry(**entry.model_dump())})
        for name, entry in before.items()
    }


def _version(root: Path, entry: _EntryBefore) -> str:
    """What the sidecar calls itself; `find` says what is wrong with one that cannot be read."""
    try:
        value: Any = json.loads(confined(root, entry.sidecar).read_bytes())
    except (OSError, ValueError, RecursionError, VqaError):
        return "1"
    version = value.get("version") if isinstance(value, dict) else None
    return version if isinstance(version, str) and version else "1"
