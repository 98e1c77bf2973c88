"""model/registry.json: which models are registered, found by name and verified by hash."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field

from vqa_train.core.config import StrictModel, load_json, parse
from vqa_train.core.errors import ModelError
from vqa_train.core.files import atomic_write_json, confined, locked
from vqa_train.core.hashing import sha256_file
from vqa_train.core.plugins import did_you_mean
from vqa_train.registry.sidecar import ModelName, ModelSidecar, Sha256, read_sidecar

REGISTRY_FILE = "registry.json"
_LOCK_FILE = ".registry.lock"


class RegistryEntry(StrictModel):
    """Where a model's sidecar is, relative to the registry, and the hashes of sidecar and head."""

    sidecar: str
    sidecar_sha256: Sha256
    onnx_sha256: Sha256


class RegistryFile(StrictModel):
    """The file: schema and model name -> entry."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    schema_: Literal["vqa-train/registry/1"] = Field(default="vqa-train/registry/1", alias="schema")
    models: dict[ModelName, RegistryEntry] = Field(default_factory=dict)


class ModelRegistry:
    """The models under one folder.

    Args:
        root: the folder that holds registry.json; it need not exist for a registry to be written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.path = root / REGISTRY_FILE

    def models(self) -> dict[str, RegistryEntry]:
        """Every entry by name; none when there is no registry.json yet.

        Raises:
            ConfigError: registry.json is not JSON or not of the schema.
        """
        if not self.path.is_file():
            return {}
        return dict(parse(RegistryFile, load_json(self.path, "model registry"), str(self.path)).models)

    def find(self, name: str) -> tuple[ModelSidecar, Path]:
        """The sidecar of a registered model, verified, and the folder that its files are relative to.

        Raises:
            ModelError: no such model, or a sidecar that is missing, changed or not what the entry says.
            ConfigError: registry.json or the sidecar does not follow its schema.
        """
        models = self.models()
        if name not in models:
            what = "has no model" if self.path.is_file() else "does not exist, so it has no model"
            raise ModelError(f"registry {str(self.path)!r} {what} {name!r}", hint=did_you_mean(name, list(models)))
        entry = models[name]
        path = confined(self.root, entry.sidecar)
        try:
            there = path.is_file()
        except OSError as error:  # a name that no file can have
            raise ModelError(f"sidecar of model {name!r} cannot be looked for: {error.strerror}") from error
        if not there:
            raise ModelError(f"sidecar {str(path)!r} of model {name!r} is missing", hint="register the model again")
        found = sha256_file(path)
        if found != entry.sidecar_sha256:
            raise ModelError(
                f"sidecar {str(path)!r} of model {name!r} has sha256 {found[:12]}, "
                f"the registry says {entry.sidecar_sha256[:12]}",
                hint="it was changed after it was registered; restore it or register the model again",
            )
        sidecar = read_sidecar(path)
        if not sidecar.registered or sidecar.name != name:
            raise ModelError(f"sidecar {str(path)!r} is not of a registered model {name!r}")
        if sidecar.onnx.sha256 != entry.onnx_sha256:
            raise ModelError(
                f"model {name!r}: its sidecar names a head with sha256 {sidecar.onnx.sha256[:12]}, "
                f"the registry one with {entry.onnx_sha256[:12]}"
            )
        return sidecar, path.parent

    def put(self, name: str, entry: RegistryEntry) -> None:
        """Add or replace one entry, atomically; call it inside `locked`.

        Raises:
            OSError: registry.json cannot be written; it is then unchanged.
        """
        models = {**self.models(), name: entry}
        file = RegistryFile(models=dict(sorted(models.items())))
        atomic_write_json(self.path, file.model_dump(mode="json", by_alias=True))

    def locked(self) -> AbstractContextManager[None]:
        """Hold the registry for a read-modify-write; another process waits. A crash releases the lock."""
        return locked(self.root / _LOCK_FILE)
