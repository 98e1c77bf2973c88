"""models verify: everything that a model's score rests on, file by file, then the graphs themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from vqa_train.core.errors import ModelError, VqaError
from vqa_train.onnx.runtime import FINGERPRINT_KEY, OnnxModel
from vqa_train.pipelines.models.check_head import check_head
from vqa_train.pipelines.models.parts import ONNX_FOLDER, Part, RegisteredModel, difference, weights_of
from vqa_train.pipelines.models.replay import replay_golden
from vqa_train.registry.locate import place_of, policy
from vqa_train.registry.registry import ModelRegistry
from vqa_train.registry.sidecar import ModelSidecar
from vqa_train.registry.signature import PublicKey, read_signature, signature_path, verify

SCHEMA = "vqa-train/models-verify/1"
Verdict = Literal["ok", "failed", "not_checked"]


@dataclass(frozen=True)
class Checked:
    """One thing that was looked at.

    Attributes:
        part: what: "registry entry", "sidecar", "head", "golden rows", ...
        file: relative to the registry; None where it is no file.
        verdict: "not_checked" says that it could not be, which `message` explains.
        message: what differs, or what was found.
    """

    part: str
    file: str | None
    verdict: Verdict
    message: str = ""


@dataclass
class Verified:
    """What was found out about one model.

    Attributes:
        model: NAME:VERSION, or the text asked for where it cannot be resolved.
        checks: in the order of the chain.
    """

    model: str
    checks: list[Checked] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing differs."""
        return bool(self.checks) and all(check.verdict != "failed" for check in self.checks)

    @property
    def problems(self) -> list[str]:
        """What differs, one line each."""
        return [check.message for check in self.checks if check.verdict == "failed"]

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {"model": self.model, "ok": self.ok, "checks": [asdict(check) for check in self.checks]}


def verify_models(
    models: Sequence[str] | None, registry: Path = Path("model"), *, require_signature: Sequence[str] = ()
) -> list[Verified]:
    """Verify models, or with None every version of every model of the registry.

    Args:
        models: named as `registry.locate` takes them.
        require_signature: public keys, one of which must have signed each of them.

    Raises:
        ModelError: no such model.
        ConfigError: registry.json is malformed.
        UsageError: a malformed name or key.
    """
    keys = policy(require_signature)
    if models is None:
        found = ModelRegistry(registry).models()
        return [
            verify_model(ModelRegistry(registry, require_signature=keys), f"{name}:{version}")
            for name, some in found.items()
            for version in some.in_order()
        ]
    results = []
    for model in models:
        root, ref = place_of(model, registry)
        results.append(verify_model(ModelRegistry(root, require_signature=keys), str(ref)))
    return results


def verify_model(registry: ModelRegistry, model: str) -> Verified:
    """Walk the chain of hashes of one model, check its signature, then run its graphs; goes on after a difference.

    Raises:
        ModelError: there is no such model.
        ConfigError: registry.json is malformed.
        UsageError: a malformed name or key.
        DependencyError: a signature is to be verified and `cryptography` is not installed.
    """
    name, version = registry.resolve(model)
    keys = [PublicKey.read(key) for key in registry.require_signature]
    result = Verified(f"{name}:{version}")
    found = _chain_head(registry, result)
    if found is None:
        return result
    try:
        parts = found.parts()
    except VqaError as error:
        result.checks.append(Checked("files", None, "failed", error.message))
        return result
    right = {part.name: part for part in _files(parts, result)}
    sidecar_file = next(part.path for part in parts if part.kind == "sidecar")
    result.checks.append(_signature(sidecar_file, keys, found))
    result.checks += _head(parts, right, found.sidecar)
    result.checks += _backbones(parts, right, found.sidecar)
    result.checks += _unclaimed(parts, found)
    return result


def _chain_head(registry: ModelRegistry, result: Verified) -> RegisteredModel | None:
    """The entry and the sidecar that it names; the signature is looked at later, so that all the rest is too."""
    try:
        # A card that was changed must not hide what else was: it is among the files.
        found = RegisteredModel.described(registry, result.model)
    except (VqaError, OSError) as error:
        result.checks.append(Checked("registry entry and sidecar", None, "failed", _words(error)))
        return None
    result.checks.append(Checked("registry entry", "registry.json", "ok"))
    return found


def _files(parts: Sequence[Part], result: Verified) -> list[Part]:
    """Add a check for each file with a hash; those that have it."""
    right = []
    for part in parts:
        if part.sha256 is None:
            continue
        wrong = difference(part)
        result.checks.append(Checked(part.what, part.name, "failed" if wrong else "ok", wrong or ""))
        if wrong is not None:
            continue
        try:
            beside = weights_of(part) if part.is_graph else []
        except (VqaError, OSError) as error:
            result.checks.append(Checked(f"weights of {part.what}", part.name, "failed", _words(error)))
            continue
        if len(_files(beside, result)) == len(beside):
            right.append(part)
    return right


def _signature(sidecar: Path, keys: Sequence[PublicKey], found: RegisteredModel) -> Checked:
    file = f"{found.prefix}/{signature_path(sidecar).name}"
    if keys:
        try:
            signed = verify(sidecar, keys)
        except (ModelError, OSError) as error:
            return Checked("signature", file, "failed", _words(error))
        return Checked("signature", file, "ok", f"by key {signed.key_id}: {signed.comment}")
    if not signature_path(sidecar).exists():
        return Checked("signature", None, "not_checked", "it is not signed")
    try:
        claimed = read_signature(signature_path(sidecar))
    except ModelError as error:
        return Checked("signature", file, "failed", _words(error))
    return Checked("signature", file, "not_checked", f"claims key {claimed.key_id}; give --require-signature KEY")


def _head(parts: Sequence[Part], right: dict[str, Part], sidecar: ModelSidecar) -> list[Checked]:
    part = next(part for part in parts if part.kind == "head")
    what = ("graph and sidecar", "golden rows")
    if part.name not in right:
        return [Checked(name, part.name, "not_checked", "the head's file is not what it must be") for name in what]
    try:
        head = OnnxModel(part.path, expected_sha256=part.sha256)
    except ModelError as error:
        return [Checked(what[0], part.name, "failed", _words(error)), _skipped(what[1], part)]
    first = _run(what[0], part, lambda: check_head(head, sidecar))
    if first.verdict == "failed":
        return [first, _skipped(what[1], part)]
    return [first, _run(what[1], part, lambda: replay_golden(head, sidecar))]


def _skipped(what: str, part: Part) -> Checked:
    return Checked(what, part.name, "not_checked", "the graph cannot be run as its sidecar says")


def _backbones(parts: Sequence[Part], right: dict[str, Part], sidecar: ModelSidecar) -> list[Checked]:
    """Each backbone's graph loads and carries the fingerprint of the features that the head was fitted on."""
    by_hash = {part.sha256: part for part in parts if part.kind == "backbone"}
    checks: dict[str, Checked] = {}
    for item in sidecar.inputs:
        part = by_hash.get(item.backbone_onnx.sha256 if item.backbone_onnx else None)
        if part is None:
            message = f"model input {item.name!r} has no backbone ONNX"
            checks[item.name] = Checked(f"graph of input {item.name}", None, "failed", message)
            continue
        if part.name in checks:
            continue
        what = f"graph of {part.what}"
        if part.name not in right:
            checks[part.name] = Checked(what, part.name, "not_checked", "its file is not what it must be")
            continue

        def look(
            part: Part = part, expected: str = item.fingerprint, check: Callable[[], Any] = item.feature_spec
        ) -> None:
            check()
            found = OnnxModel(part.path, expected_sha256=part.sha256).metadata.get(FINGERPRINT_KEY)
            if found != expected:
                raise ModelError(f"{part.what} computes features {str(found)[:12]}, expected {expected[:12]}")

        checks[part.name] = _run(what, part, look)
    return list(checks.values())


def _unclaimed(parts: Sequence[Part], found: RegisteredModel) -> list[Checked]:
    """Files in the model's folder that nothing vouches for."""
    known = {part.path.resolve() for part in parts if part.sha256 is not None or part.kind == "signature"}
    known |= {weights.path.resolve() for part in parts if part.is_graph for weights in _quietly(part)}
    flat = found.folder == found.root / found.sidecar.name
    names = sorted(
        path.relative_to(found.folder).as_posix()
        for path in found.folder.rglob("*")
        if path.is_file() and path.resolve() not in known and not (flat and _in_version(path, found))
    )
    message = "the chain of hashes does not cover it"
    return [Checked("other file", f"{found.prefix}/{name}", "not_checked", message) for name in names]


def _quietly(part: Part) -> list[Part]:
    try:
        return weights_of(part)
    except (VqaError, OSError):
        return []


def _in_version(path: Path, found: RegisteredModel) -> bool:
    """Whether a file belongs to a version that has a folder of its own below that of an older model."""
    first = path.relative_to(found.folder).parts[0]
    return first not in ("backbones", "tokenizers", ONNX_FOLDER) and (found.folder / first).is_dir()


def _run(what: str, part: Part, look: Callable[[], None]) -> Checked:
    try:
        look()
    except VqaError as error:
        return Checked(what, part.name, "failed", _words(error))
    return Checked(what, part.name, "ok")


def _words(error: VqaError | OSError) -> str:
    return error.message if isinstance(error, VqaError) else str(error)
