"""models push: a model into a registry elsewhere; registry.json there is written last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vqa_train.core.errors import ModelError
from vqa_train.pipelines.models.change import check_alias
from vqa_train.pipelines.models.open_remote import open_remote
from vqa_train.pipelines.models.parts import RegisteredModel, intact_parts
from vqa_train.pipelines.models.remotes import Models, with_version
from vqa_train.registry.entries import AliasMove, ModelVersions, RegistryEntry
from vqa_train.registry.locate import place_of, policy
from vqa_train.registry.registry import ModelRegistry
from vqa_train.registry.sidecar import SIDECAR_FILE

SCHEMA = "vqa-train/models-push/1"


@dataclass(frozen=True)
class Pushed:
    """What was pushed.

    Attributes:
        files: names that were not there yet.
        alias: that was pointed to it there.
    """

    model: str
    destination: str
    files: list[str]
    sidecar_sha256: str
    alias: str | None

    def to_json(self) -> dict[str, Any]:
        """The document of `models push --json`."""
        return {"schema": SCHEMA, **asdict(self)}


def push_model(
    model: str,
    destination: str,
    registry: Path = Path("model"),
    *,
    alias: str | None = None,
    require_signature: Sequence[str] = (),
) -> Pushed:
    """Copy a model, all of whose files are as they must be, into a registry elsewhere; registry.json there is last.

    A version that is there already with the same sidecar is completed and nothing else; one with another sidecar is
    refused, as versions do not change.

    Args:
        model: named as `registry.locate` takes it.
        destination: `hf://ORG/REPO[@REVISION]`, another URL or a folder.
        alias: point this alias there to it.

    Raises:
        ModelError: no such model, a file of it differs, another model has the version there, or it cannot be written.
        UsageError: a malformed name or destination.
        DependencyError: the package for the destination is not installed.
    """
    root, ref = place_of(model, registry)
    found = RegisteredModel.find(ModelRegistry(root, require_signature=policy(require_signature)), str(ref))
    parts = intact_parts(found)
    check_alias(alias)
    there = open_remote(destination)
    put = there.publish(parts, lambda models: _with_model(models, found, alias, there.address))
    return Pushed(found.label, there.address, put, found.entry.sidecar_sha256, alias)


def _with_model(models: Models, model: RegisteredModel, alias: str | None, address: str) -> Models:
    name, version = model.sidecar.name, model.sidecar.version
    found = models.get(name)
    there = found.versions.get(version) if found is not None else None
    if there is None:
        entry = RegistryEntry(
            sidecar=f"{model.prefix}/{SIDECAR_FILE}",
            sidecar_sha256=model.entry.sidecar_sha256,
            onnx_sha256=model.entry.onnx_sha256,
        )
        models = with_version(models, name, version, entry)
    elif there.sidecar_sha256 != model.entry.sidecar_sha256:
        raise ModelError(
            f"registry {address} has another model {model.label!r}, with sidecar {there.sidecar_sha256[:12]}, not "
            f"{model.entry.sidecar_sha256[:12]}",
            hint="versions do not change: register this one under another --version",
        )
    some = models[name]
    if alias is None or some.aliases.get(alias) == version:
        return models
    at = datetime.now(UTC).isoformat(timespec="seconds")
    move = AliasMove(alias=alias, version=version, previous=some.aliases.get(alias), at=at, by="push")
    aliases = dict(sorted({**some.aliases, alias: version}.items()))
    return {**models, name: ModelVersions(versions=some.versions, aliases=aliases, moves=[*some.moves, move])}
