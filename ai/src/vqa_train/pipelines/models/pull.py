"""models pull: a model from a registry elsewhere, verified before anything of it is where a reader looks."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from vqa_train.core.errors import ModelError, UsageError
from vqa_train.core.files import atomic_write_bytes
from vqa_train.core.hashing import sha256_file
from vqa_train.pipelines.models.change import check_alias
from vqa_train.pipelines.models.export import registry_of
from vqa_train.pipelines.models.open_remote import open_remote
from vqa_train.pipelines.models.parts import ONNX_FOLDER, Part, RegisteredModel, in_cache, weights_of
from vqa_train.pipelines.models.publish import publish
from vqa_train.pipelines.models.remotes import Contents, MissingFileError, Models, Remote
from vqa_train.pipelines.models.verify import verify_model
from vqa_train.registry.cache import keep
from vqa_train.registry.entries import RegistryEntry
from vqa_train.registry.locate import policy
from vqa_train.registry.reference import ModelRef
from vqa_train.registry.registry import REGISTRY_FILE, ModelRegistry
from vqa_train.registry.sidecar import SIDECAR_FILE, read_sidecar
from vqa_train.registry.signature import SIGNATURE_SUFFIX, PublicKey, signature_path, verify

SCHEMA = "vqa-train/models-pull/1"
_MOST_SIDECAR_BYTES = 256 << 20
_MOST_SIGNATURE_BYTES = 16_384

Log = Callable[[str], None]


def _silent(_: str) -> None:
    return None


@dataclass(frozen=True)
class Pulled:
    """What was pulled.

    Attributes:
        changed: False where it was here already, whole.
        files: that were fetched.
        bytes: of them.
        signed_by: the key that signed it; None where no key was required.
        alias: that was pointed to it here.
    """

    model: str
    source: str
    changed: bool
    files: int
    bytes: int
    sidecar_sha256: str
    signed_by: str | None
    alias: str | None

    def to_json(self) -> dict[str, Any]:
        """The document of `models pull --json`."""
        return {"schema": SCHEMA, **asdict(self)}


def pull_model(
    source: str,
    model: str | None = None,
    registry: Path = Path("model"),
    *,
    alias: str | None = None,
    overwrite: bool = False,
    require_signature: Sequence[str] = (),
    log: Log = _silent,
) -> Pulled:
    """Copy a model of a registry elsewhere into one here, after everything about it was verified.

    Until then nothing of it is where a reader would look, and after a refusal the registry here is as it was.

    Args:
        source: `hf://ORG/REPO[@REVISION]`, another URL or a folder.
        model: NAME, NAME:VERSION or NAME@ALIAS there; None where it has one name only.
        alias: point this alias here to it.
        overwrite: replace another model of that name and version.
        require_signature: public keys, one of which must have signed it.

    Raises:
        ModelError: no such model there, or it is not what its registry says; another model has the version here.
        UsageError: a malformed name, source or key; several models there and none named.
        ConfigError: its registry.json or sidecar is malformed.
        DependencyError: the package for the source is not installed.
        OSError: the registry here cannot be written.
    """
    check_alias(alias)
    there = open_remote(source)
    contents = there.read()
    ref = _chosen(contents.models, model, there.address)
    name, version = ref.name, contents.models[ref.name].resolve(ref)
    entry = contents.models[name].versions[version]
    keys = policy(require_signature)
    here = ModelRegistry(registry, require_signature=keys)
    staging, was_there = registry / f".{name}.{uuid.uuid4().hex[:8]}.pull", registry.exists()
    try:
        staging.mkdir(parents=True)
        fetched = _fetch_model(there, contents, ModelRef(name, version=version), staging, log)
        staged = ModelRegistry(staging, require_signature=keys)
        report = verify_model(staged, f"{name}:{version}")
        if not report.ok:
            raise ModelError(
                f"model {name}:{version} of {there.address} is refused: {'; '.join(report.problems)}",
                hint="nothing was changed here; tell whoever publishes it",
            )
        known = [PublicKey.read(key) for key in keys]
        signed_by = verify(staging / name / version / SIDECAR_FILE, known).key_id if known else None
        changed = _install(here, staging, name, version, entry, overwrite=overwrite)
        here.find(ModelRef(name, version=version))
        if alias is not None:
            with here.locked():
                here.move_alias(name, alias, version, by="pull")
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        if not was_there and not any(registry.glob("*")):
            registry.rmdir()
    return Pulled(
        f"{name}:{version}", there.address, changed, len(fetched), sum(fetched), entry.sidecar_sha256, signed_by, alias
    )


def _chosen(models: Models, model: str | None, address: str) -> ModelRef:
    if model is not None:
        ref = ModelRef.parse(model)
        if ref.name not in models:
            raise ModelError(
                f"registry {address} has no model {ref.name!r}", hint=f"it has {', '.join(models) or 'none at all'}"
            )
        return ref
    if len(models) != 1:
        raise UsageError(
            f"registry {address} has {len(models)} models, so one must be named",
            hint=f"one of: {', '.join(models)}" if models else "is that the folder of a registry.json?",
        )
    return ModelRef(next(iter(models)))


def _fetch_model(there: Remote, contents: Contents, ref: ModelRef, staging: Path, log: Log) -> list[int]:
    """A registry in `staging` that has this model alone; sizes of what was fetched.

    What is fetched is bounded by sizes that the sidecar says, and the sidecar must be the one that registry.json names.
    """
    found = contents.models[ref.name].versions[str(ref.version)]
    prefix = f"{ref.name}/{ref.version}"
    folder = staging / prefix
    remote_folder = found.sidecar.rpartition("/")[0]
    sizes: list[int] = []

    def fetch(name: str, target: Path, most_bytes: int) -> None:
        there.fetch(contents, name, target, most_bytes)
        sizes.append(target.stat().st_size)
        log(f"fetched {name} ({sizes[-1] / 1e6:.1f} MB)")

    fetch(found.sidecar, folder / SIDECAR_FILE, _MOST_SIDECAR_BYTES)
    digest = sha256_file(folder / SIDECAR_FILE)
    if digest != found.sidecar_sha256:
        raise ModelError(
            f"sidecar {found.sidecar!r} of {there.address} has sha256 {digest[:12]}, its registry.json says "
            f"{found.sidecar_sha256[:12]}",
            hint="nothing was changed here; tell whoever publishes it",
        )
    try:
        there_signature = found.sidecar + SIGNATURE_SUFFIX
        fetch(there_signature, signature_path(folder / SIDECAR_FILE), _MOST_SIGNATURE_BYTES)
    except MissingFileError:
        log(f"{prefix} is not signed")
    entry = found.model_copy(update={"sidecar": f"{prefix}/{SIDECAR_FILE}", "number": 1})
    model = RegisteredModel(staging, read_sidecar(folder / SIDECAR_FILE), folder, entry)
    atomic_write_bytes(staging / REGISTRY_FILE, registry_of(model))

    def fetch_part(part: Part) -> None:
        inside = part.name.removeprefix(f"{prefix}/")
        name = part.name if inside == part.name else f"{remote_folder}/{inside}"
        fetch(name, staging / part.name, part.most_bytes)

    for part in model.parts():
        if part.kind in ("sidecar", "signature") or in_cache(part):
            continue
        fetch_part(part)
        if part.is_graph and sha256_file(staging / part.name) == part.sha256:
            for weights in weights_of(replace(part, path=staging / part.name)):
                fetch_part(weights)
    return sizes


def _install(
    here: ModelRegistry, staging: Path, name: str, version: str, entry: RegistryEntry, *, overwrite: bool
) -> bool:
    """Move a verified model out of `staging`, large backbones to the cache; whether that changed anything."""
    mended = _keep_backbones(staging)
    folder = staging / name / version
    some = here.models().get(name)
    before = some.versions.get(version) if some is not None else None
    sidecar = read_sidecar(folder / SIDECAR_FILE)
    if before is None or before.sidecar_sha256 != entry.sidecar_sha256:
        publish(here, folder, sidecar, overwrite=overwrite)
        now = here.models()[name].versions[version]
        if now.sidecar_sha256 != entry.sidecar_sha256:
            raise ModelError(
                f"model {name}:{version} was registered here on its own, with another sidecar",
                hint=f"`vqa-train models remove {name}:{version}` first, then pull it",
            )
        return True
    known = ModelRegistry(here.root)
    if verify_model(known, f"{name}:{version}").ok:
        return _take_signature(folder, here.root / before.sidecar) or mended
    publish(here, folder, sidecar, overwrite=True)
    return True


def _take_signature(folder: Path, sidecar: Path) -> bool:
    """Put the signature that was fetched beside a sidecar that is here already; whether that changed anything."""
    fetched, here = signature_path(folder / SIDECAR_FILE), signature_path(sidecar)
    if not fetched.is_file() or (here.is_file() and here.read_bytes() == fetched.read_bytes()):
        return False
    atomic_write_bytes(here, fetched.read_bytes())
    return True


def _keep_backbones(staging: Path) -> bool:
    """Move what was fetched of large backbones to the cache, which lacked them; whether there was any."""
    graphs = sorted((staging / ONNX_FOLDER).glob("*.onnx"))
    for graph in graphs:
        part = Part("backbone", graph.name, f"{ONNX_FOLDER}/{graph.name}", graph)
        beside = [weights.path for weights in weights_of(part)]
        keep(graph, graph.stem, *beside[:1])
    return bool(graphs)
