"""models list and show: what is registered, one row a version, or everything of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vqa_train.core.errors import ModelError, VqaError
from vqa_train.pipelines.models.parts import Part, RegisteredModel
from vqa_train.registry.locate import place_of, policy
from vqa_train.registry.registry import ModelRegistry, ModelVersions
from vqa_train.registry.signature import PublicKey, read_signature, signature_path, verify

LIST_SCHEMA = "vqa-train/models-list/1"
SHOW_SCHEMA = "vqa-train/models-show/1"


@dataclass(frozen=True)
class Signature:
    """What is known of a model's signature.

    Attributes:
        key_id: that the file claims; None where there is no signature.
        verified: whether one of the required keys made it; None where no key was given to verify it with.
        comment: the trusted comment; None until verified.
    """

    key_id: str | None = None
    verified: bool | None = None
    comment: str | None = None


@dataclass(frozen=True)
class Listed:
    """One version of a model.

    Attributes:
        champion_or_last: whether NAME alone means it.
        bytes: of its files, those of large backbones in the cache too.
        registered: when, UTC, ISO 8601, as its provenance says.
        problem: why nothing more is known; None for a model whose description is as registered.
    """

    name: str
    version: str
    aliases: list[str]
    champion_or_last: bool
    kind: str | None = None
    targets: list[str] | None = None
    bytes: int | None = None
    signature: Signature | None = None
    registered: str | None = None
    problem: str | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def list_models(registry: Path = Path("model"), *, require_signature: Sequence[str] = ()) -> list[Listed]:
    """Every version of every model, by name and as they were registered; no file but the sidecars is hashed.

    Raises:
        ConfigError: registry.json is malformed.
        UsageError: a malformed key.
    """
    opened = ModelRegistry(registry)
    keys = [PublicKey.read(key) for key in policy(require_signature)]
    return [
        _row(opened, name, version, versions, keys)
        for name, versions in opened.models().items()
        for version in versions.in_order()
    ]


def _row(registry: ModelRegistry, name: str, version: str, found: ModelVersions, keys: list[PublicKey]) -> Listed:
    aliases = [alias for alias, target in found.aliases.items() if target == version]
    _, default = registry.resolve(name)
    try:
        model = RegisteredModel.described(registry, f"{name}:{version}")
    except (VqaError, OSError) as error:
        problem = error.message if isinstance(error, VqaError) else str(error)
        return Listed(name, version, aliases, default == version, problem=problem)
    return Listed(
        name,
        version,
        aliases,
        default == version,
        kind=model.sidecar.kind,
        targets=model.sidecar.targets,
        bytes=_size(model),
        signature=signature_of(model, keys),
        registered=registered_at(model),
    )


def _size(model: RegisteredModel) -> int:
    inside = sum(path.stat().st_size for path in model.folder.rglob("*") if path.is_file())
    cached = {o.sha256: o.bytes for item in model.sidecar.inputs if (o := item.backbone_onnx) is not None and o.cached}
    return inside + sum(cached.values())


def registered_at(model: RegisteredModel) -> str | None:
    """When it was registered, as its provenance says."""
    started = model.sidecar.run_provenance.get("started")
    return started if isinstance(started, str) else None


def signature_of(model: RegisteredModel, keys: Sequence[PublicKey]) -> Signature:
    """What the signature file claims and, with keys, whether it is true.

    Raises:
        DependencyError: there are keys and `cryptography` is not installed.
    """
    sidecar = model.folder / Path(model.entry.sidecar).name
    try:
        claimed = read_signature(signature_path(sidecar)).key_id
    except ModelError:
        return Signature(verified=False if keys else None)
    if not keys:
        return Signature(claimed)
    try:
        signed = verify(sidecar, keys)
    except ModelError:
        return Signature(claimed, verified=False)
    return Signature(signed.key_id, verified=True, comment=signed.comment)


@dataclass(frozen=True)
class Shown:
    """Everything of one model: its row, files, moves of its name's aliases, and its sidecar."""

    row: Listed
    model: RegisteredModel
    parts: list[Part]
    moves: list[dict[str, Any]]

    def to_json(self) -> dict[str, Any]:
        """The document of `models show --json`."""
        files = [
            {"kind": part.kind, "what": part.what, "file": part.name, "sha256": part.sha256, "bytes": part.bytes}
            for part in self.parts
        ]
        return {
            "schema": SHOW_SCHEMA,
            **self.row.to_json(),
            "sidecar_sha256": self.model.entry.sidecar_sha256,
            "onnx_sha256": self.model.entry.onnx_sha256,
            "files": files,
            "moves": self.moves,
            "sidecar": self.model.sidecar.to_json(),
        }


def show_model(model: str, registry: Path = Path("model"), *, require_signature: Sequence[str] = ()) -> Shown:
    """Everything of one model, whose sidecar, card and signature (where required) were verified.

    Args:
        model: named as `registry.locate` takes it.

    Raises:
        ModelError: no such model, or it is not what it claims to be.
        ConfigError: registry.json or the sidecar is malformed.
        UsageError: a malformed name or key.
    """
    root, ref = place_of(model, registry)
    keys = policy(require_signature)
    opened = ModelRegistry(root, require_signature=keys)
    found = RegisteredModel.find(opened, str(ref))
    versions = opened.models()[found.sidecar.name]
    row = _row(opened, found.sidecar.name, found.sidecar.version, versions, [PublicKey.read(key) for key in keys])
    moves = [move.model_dump(mode="json") for move in versions.moves]
    return Shown(row, found, found.parts(), moves)
