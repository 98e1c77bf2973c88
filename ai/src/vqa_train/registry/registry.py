"""model/registry.json: which models are registered, found by name, version or alias, and verified by hash."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path

from vqa_train.core.errors import ModelError
from vqa_train.core.files import atomic_write_json, confined, locked
from vqa_train.core.hashing import sha256_file
from vqa_train.core.plugins import did_you_mean
from vqa_train.registry.entries import AliasMove, ModelVersions, RegistryEntry, RegistryFile, read_registry
from vqa_train.registry.reference import ModelRef
from vqa_train.registry.sidecar import FileHash, ModelSidecar, read_sidecar

__all__ = ["AliasMove", "ModelRegistry", "ModelVersions", "RegistryEntry"]

REGISTRY_FILE = "registry.json"
_LOCK_FILE = ".registry.lock"


class ModelRegistry:
    """The models under one folder.

    Args:
        root: the folder that holds registry.json; it need not exist for a registry to be written.
        require_signature: files or texts of public keys; a model that none of them signed is refused. Empty for no
            such policy.
    """

    def __init__(self, root: Path, *, require_signature: Sequence[str] = ()) -> None:
        self.root = root
        self.path = root / REGISTRY_FILE
        self.require_signature = tuple(require_signature)

    def models(self) -> dict[str, ModelVersions]:
        """Every model by name; none when there is no registry.json yet.

        Raises:
            ConfigError: registry.json is not JSON or not of the schema.
        """
        return read_registry(self.path) if self.path.is_file() else {}

    def resolve(self, model: str | ModelRef) -> tuple[str, str]:
        """Name and version of the model that is meant; NAME alone is the champion, else the version registered last.

        Raises:
            ModelError: there is no such model, version or alias.
            UsageError: `model` is no name.
        """
        ref = ModelRef.parse(model) if isinstance(model, str) else model
        models = self.models()
        if ref.name not in models:
            what = "has no model" if self.path.is_file() else "does not exist, so it has no model"
            raise ModelError(
                f"registry {str(self.path)!r} {what} {ref.name!r}", hint=did_you_mean(ref.name, list(models))
            )
        return ref.name, models[ref.name].resolve(ref)

    def find(self, model: str | ModelRef) -> tuple[ModelSidecar, Path]:
        """The sidecar of a registered model, verified, and the folder that its files are relative to.

        Raises:
            ModelError: there is no such model, its sidecar or card was changed, it names another head than the
                registry, or no required key signed it.
            ConfigError: registry.json or the sidecar is malformed.
            UsageError: `model` is no name.
        """
        sidecar, path = self.described(model)
        if sidecar.card is not None:
            check_card(path.parent, sidecar.card)
        if self.require_signature:
            from vqa_train.registry.signature import PublicKey, verify

            verify(path, [PublicKey.read(key) for key in self.require_signature])
        return sidecar, path.parent

    def described(self, model: str | ModelRef) -> tuple[ModelSidecar, Path]:
        """The sidecar of a registered model, as registry.json says it is, and its file; no card or signature is looked
        at.

        Raises:
            ModelError, ConfigError, UsageError: as `find`.
        """
        name, version = self.resolve(model)
        entry = self.models()[name].versions[version]
        label = f"{name}:{version}"
        path = self._sidecar(label, entry)
        sidecar = read_sidecar(path)
        if not sidecar.registered or sidecar.name != name or sidecar.version != version:
            raise ModelError(f"sidecar {str(path)!r} is not of a registered model {label!r}")
        if sidecar.onnx.sha256 != entry.onnx_sha256:
            raise ModelError(
                f"model {label!r}: its sidecar names a head with sha256 {sidecar.onnx.sha256[:12]}, "
                f"the registry one with {entry.onnx_sha256[:12]}"
            )
        return sidecar, path

    def _sidecar(self, label: str, entry: RegistryEntry) -> Path:
        path = confined(self.root, entry.sidecar)
        try:
            there = path.is_file()
        except OSError as error:  # a name that no file can have
            raise ModelError(f"sidecar of model {label!r} cannot be looked for: {error.strerror}") from error
        if not there:
            raise ModelError(f"sidecar {str(path)!r} of model {label!r} is missing", hint="register the model again")
        found = sha256_file(path)
        if found != entry.sidecar_sha256:
            raise ModelError(
                f"sidecar {str(path)!r} of model {label!r} has sha256 {found[:12]}, "
                f"the registry says {entry.sidecar_sha256[:12]}",
                hint="it was changed after it was registered; restore it or register the model again",
            )
        return path

    def put(self, name: str, version: str, entry: RegistryEntry) -> None:
        """Add one version, as the one registered last, or replace it in its place; call it inside `locked`.

        Raises:
            OSError: registry.json cannot be written; it is then unchanged.
        """
        models = self.models()
        found = models.get(name)
        others = {} if found is None else dict(found.versions)
        last = max((other.number for other in others.values()), default=0)
        number = others[version].number if version in others else last + 1
        versions = {**others, version: entry.model_copy(update={"number": number})}
        models[name] = (
            ModelVersions(versions=versions) if found is None else found.model_copy(update={"versions": versions})
        )
        self._write(models)

    def drop(self, name: str, version: str) -> None:
        """Take one version, and the aliases that point to it, out of registry.json; call it inside `locked`.

        Raises:
            ModelError: there is no such version.
            OSError: registry.json cannot be written; it is then unchanged.
        """
        self.resolve(ModelRef(name, version=version))
        models = self.models()
        found = models.pop(name)
        versions = {other: entry for other, entry in found.versions.items() if other != version}
        if versions:
            lost = [alias for alias, target in found.aliases.items() if target == version]
            moves = [*found.moves, *(_move(alias, None, version, "remove", None) for alias in lost)]
            aliases = {alias: target for alias, target in found.aliases.items() if alias not in lost}
            models[name] = ModelVersions(versions=versions, aliases=aliases, moves=moves)
        self._write(models)

    def move_alias(
        self, name: str, alias: str, version: str | None, *, by: str = "alias", evidence: str | None = None
    ) -> AliasMove | None:
        """Point an alias of a model to a version, or remove it with None; call it inside `locked`.

        Args:
            by: the command that asks for it.
            evidence: sha256 of the document that justifies it.

        Returns:
            The move as it was recorded; None where the alias points there already.

        Raises:
            ModelError: there is no such model or version, or no such alias to remove.
            OSError: registry.json cannot be written; it is then unchanged.
        """
        ref = ModelRef(name, version=version) if version is not None else ModelRef(name, alias=alias)
        self.resolve(ref)
        models = self.models()
        found = models[name]
        previous = found.aliases.get(alias)
        if previous == version:
            return None
        move = _move(alias, version, previous, by, evidence)
        aliases = {other: target for other, target in found.aliases.items() if other != alias}
        if version is not None:
            aliases[alias] = version
        models[name] = ModelVersions(
            versions=found.versions, aliases=dict(sorted(aliases.items())), moves=[*found.moves, move]
        )
        self._write(models)
        return move

    def _write(self, models: dict[str, ModelVersions]) -> None:
        file = RegistryFile(models=dict(sorted(models.items())))
        atomic_write_json(self.path, file.model_dump(mode="json", by_alias=True))

    def locked(self) -> AbstractContextManager[None]:
        """Hold the registry for a read-modify-write; another process waits. A crash releases the lock."""
        return locked(self.root / _LOCK_FILE)


def check_card(folder: Path, card: FileHash) -> None:
    """Whether a model's card is the one that its sidecar names.

    Raises:
        ModelError: it is missing or was changed.
    """
    path = confined(folder, card.file)
    try:
        found = sha256_file(path)
    except OSError as error:
        raise ModelError(f"model card {str(path)!r} cannot be read: {error.strerror}") from error
    if found != card.sha256:
        raise ModelError(
            f"model card {str(path)!r} has sha256 {found[:12]}, its sidecar says {card.sha256[:12]}",
            hint="it was changed after it was registered; restore it or register the model again",
        )


def _move(alias: str, version: str | None, previous: str | None, by: str, evidence: str | None) -> AliasMove:
    at = datetime.now(UTC).isoformat(timespec="seconds")
    return AliasMove(alias=alias, version=version, previous=previous, at=at, by=by, evidence=evidence)
