"""models alias, remove and sign: what changes a registry in place."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vqa_train.core.errors import ModelError, UsageError
from vqa_train.core.files import fsync_dir
from vqa_train.pipelines.models.parts import RegisteredModel, intact_parts
from vqa_train.registry.locate import place_of, policy
from vqa_train.registry.reference import ModelRef
from vqa_train.registry.registry import ModelRegistry
from vqa_train.registry.sidecar import CARD_FILE, HEAD_FILE, SIDECAR_FILE
from vqa_train.registry.signature import SIGNATURE_SUFFIX, SecretKey, sign, signature_path

ALIAS_SCHEMA = "vqa-train/models-alias/1"
REMOVE_SCHEMA = "vqa-train/models-remove/1"
SIGN_SCHEMA = "vqa-train/models-sign/1"


def check_alias(alias: str | None) -> None:
    """Raises UsageError where `alias` could not be one."""
    if alias is not None and ModelRef.parse(alias).name != alias:
        raise UsageError(f"{alias!r} is no name of an alias", hint="letters, digits, '.', '_', '+' and '-'")


@dataclass(frozen=True)
class AliasChange:
    """Where an alias points.

    Attributes:
        version: None where it was removed.
        previous: None where it is new.
        changed: False where it pointed there already.
    """

    name: str
    alias: str
    version: str | None
    previous: str | None
    changed: bool

    def to_json(self) -> dict[str, Any]:
        """The document of `models alias --json`."""
        return {"schema": ALIAS_SCHEMA, **asdict(self)}


def set_alias(
    model: str, alias: str, registry: Path = Path("model"), *, require_signature: Sequence[str] = ()
) -> AliasChange:
    """Point an alias to a version, whose sidecar and signature (where required) are verified first.

    Args:
        model: NAME:VERSION, or another reference that means one version.

    Raises:
        ModelError: there is no such version, or it is not what registry.json says.
        UsageError: a malformed name or alias.
        OSError: registry.json cannot be written.
    """
    check_alias(alias)
    opened = ModelRegistry(registry, require_signature=policy(require_signature))
    with opened.locked():
        name, version = opened.resolve(model)
        opened.find(ModelRef(name, version=version))
        previous = opened.models()[name].aliases.get(alias)
        moved = opened.move_alias(name, alias, version, by="alias")
    return AliasChange(name, alias, version, previous, moved is not None)


def remove_alias(model: str, alias: str, registry: Path = Path("model")) -> AliasChange:
    """Take an alias away.

    Args:
        model: NAME, or NAME:VERSION where it must point to that version.

    Raises:
        ModelError: there is no such model or alias, or it points elsewhere.
        OSError: registry.json cannot be written.
    """
    opened, ref = ModelRegistry(registry), ModelRef.parse(model)
    with opened.locked():
        _, previous = opened.resolve(ModelRef(ref.name, alias=alias))
        if ref.version is not None and ref.version != previous:
            raise ModelError(f"alias {alias!r} of {ref.name!r} points to version {previous!r}, not {ref.version!r}")
        opened.move_alias(ref.name, alias, None, by="alias")
    return AliasChange(ref.name, alias, None, previous, True)


@dataclass(frozen=True)
class Removed:
    """What was removed: a version, and with `force` the aliases that pointed to it."""

    name: str
    version: str
    aliases: list[str]
    folder: str

    def to_json(self) -> dict[str, Any]:
        """The document of `models remove --json`."""
        return {"schema": REMOVE_SCHEMA, **asdict(self)}


def remove_model(model: str, registry: Path = Path("model"), *, force: bool = False) -> Removed:
    """Take one version out of the registry, then delete its folder; backbones in the cache stay.

    registry.json is written first: a crash in between leaves a folder that nothing names, which registering that
    version again replaces.

    Args:
        model: NAME:VERSION, in full.
        force: also when an alias points to it; the alias goes too.

    Raises:
        ModelError: there is no such version, or an alias points to it.
        UsageError: `model` has no version.
        OSError: registry.json cannot be written, or the folder not deleted.
    """
    ref = ModelRef.parse(model)
    if ref.version is None:
        raise UsageError(f"{model!r} names no version", hint="give NAME:VERSION; `vqa-train models list` shows them")
    opened = ModelRegistry(registry)
    with opened.locked():
        opened.resolve(ref)
        found = opened.models()[ref.name]
        aliases = sorted(alias for alias, target in found.aliases.items() if target == ref.version)
        if aliases and not force:
            raise ModelError(
                f"model {str(ref)!r} has the alias {', '.join(aliases)}",
                hint="move the alias with `vqa-train models alias` first, or give --force",
            )
        folder = (registry / found.versions[ref.version].sidecar).parent
        opened.drop(ref.name, ref.version)
        _delete(registry, ref, folder)
    return Removed(ref.name, ref.version, aliases, folder.as_posix())


def _delete(registry: Path, ref: ModelRef, folder: Path) -> None:
    if folder == registry / ref.name:
        # Of before there were versions: folders of other versions may lie in it.
        for name in (HEAD_FILE, SIDECAR_FILE, SIDECAR_FILE + SIGNATURE_SUFFIX, CARD_FILE):
            (folder / name).unlink(missing_ok=True)
        for name in ("backbones", "tokenizers"):
            shutil.rmtree(folder / name, ignore_errors=True)
    elif folder == registry / ref.name / str(ref.version) and folder.is_dir():
        away = registry / f".{ref.name}.{uuid.uuid4().hex[:8]}.removed"
        folder.rename(away)
        shutil.rmtree(away)
    parent = registry / ref.name
    if parent.is_dir() and not any(parent.iterdir()):
        parent.rmdir()
    fsync_dir(registry)


@dataclass(frozen=True)
class SignedModel:
    """A signature that was made."""

    model: str
    file: str
    key_id: str
    comment: str
    sidecar_sha256: str

    def to_json(self) -> dict[str, Any]:
        """The document of `models sign --json`."""
        return {"schema": SIGN_SCHEMA, **asdict(self)}


def sign_model(
    model: str,
    secret: SecretKey,
    registry: Path = Path("model"),
    *,
    comment: str | None = None,
    overwrite: bool = False,
) -> SignedModel:
    """Sign the sidecar of a model all of whose files are as the chain of hashes says.

    Args:
        comment: the trusted comment; None for the model's name and the time.
        overwrite: replace a signature that is there.

    Raises:
        ModelError: there is no such model, a file of it differs, or it is signed already.
        UsageError: a malformed name or comment.
        DependencyError: `cryptography` is not installed.
        OSError: the signature cannot be written.
    """
    root, ref = place_of(model, registry)
    found = RegisteredModel.find(ModelRegistry(root), str(ref))
    parts = intact_parts(found)
    sidecar = next(part.path for part in parts if part.kind == "sidecar")
    if signature_path(sidecar).exists() and not overwrite:
        raise ModelError(f"model {found.label!r} is signed already", hint="give --overwrite to sign it anew")
    text = comment if comment is not None else f"model {found.label}, {datetime.now(UTC).isoformat(timespec='seconds')}"
    path = sign(sidecar, secret, text)
    return SignedModel(
        found.label, f"{found.prefix}/{path.name}", secret.public.key_id, text, found.entry.sidecar_sha256
    )
