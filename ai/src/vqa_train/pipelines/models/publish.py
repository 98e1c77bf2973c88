"""Moves a finished model folder into the registry; registry.json is written last, so no reader sees half a model."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

from vqa_train.core.errors import ModelError, VqaError
from vqa_train.core.files import fsync_dir
from vqa_train.core.hashing import sha256_file
from vqa_train.pipelines.score.scorer import Scorer
from vqa_train.registry.reference import ModelRef
from vqa_train.registry.registry import ModelRegistry, RegistryEntry
from vqa_train.registry.sidecar import CARD_FILE, HEAD_FILE, SIDECAR_FILE, ModelSidecar

_OURS = {HEAD_FILE, SIDECAR_FILE, CARD_FILE, f"{SIDECAR_FILE}.minisig", "backbones", "tokenizers"}


def publish(registry: ModelRegistry, staging: Path, sidecar: ModelSidecar, *, overwrite: bool) -> ModelSidecar:
    """Move the finished folder `staging` to NAME/VERSION, then write registry.json.

    A version that is registered already, unchanged and intact, is left as it is; a damaged one is replaced.

    Raises:
        ModelError: another model has the name and version and `overwrite` is off, or a foreign folder is in the way.
        OSError: the registry cannot be written; it is then as it was.
    """
    name, version = sidecar.name, sidecar.version
    target = registry.root / name / version
    replaced = registry.root / f".{name}.{uuid.uuid4().hex[:8]}.replaced"
    with registry.locked():
        found = registry.models().get(name)
        before = None
        if found is not None and version in found.versions:
            existing = _same_model(registry, sidecar)
            if existing is not None and _is_intact(registry, ModelRef(name, version=version)):
                return existing
            if existing is None and not overwrite:
                raise ModelError(
                    f"registry {str(registry.path)!r} has another model {name!r} of version {version!r}",
                    hint="choose another --version or --name, or give --overwrite",
                )
            before = (registry.root / found.versions[version].sidecar).parent
        elif target.exists():
            _refuse_foreign(target)
        if target.exists():
            target.rename(replaced)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            staging.rename(target)
            fsync_dir(target.parent)
            entry = RegistryEntry(
                sidecar=f"{name}/{version}/{SIDECAR_FILE}",
                sidecar_sha256=sha256_file(target / SIDECAR_FILE),
                onnx_sha256=sidecar.onnx.sha256,
            )
            registry.put(name, version, entry)
        except BaseException:
            # Whatever registry.json still says must stay true.
            shutil.rmtree(target, ignore_errors=True)
            if replaced.exists():
                replaced.rename(target)
            raise
        shutil.rmtree(replaced, ignore_errors=True)
        if before == target.parent:
            _remove_flat(before)
    return sidecar


def is_registered(registry: ModelRegistry, sidecar: ModelSidecar) -> bool:
    """Whether this very model is registered under its name and version."""
    return _same_model(registry, sidecar) is not None


def next_version(registry: ModelRegistry, name: str) -> str:
    """One more than the highest version that is a number; "1" for the first."""
    found = registry.models().get(name)
    numbers = [int(version) for version in (found.versions if found else ()) if version.isdecimal()]
    return str(max(numbers, default=0) + 1)


def _same_model(registry: ModelRegistry, sidecar: ModelSidecar) -> ModelSidecar | None:
    """The registered sidecar where it describes the same model; None where it differs or cannot be read."""
    try:
        existing, _ = registry.find(ModelRef(sidecar.name, version=sidecar.version))
    except VqaError:
        return None
    return existing if existing.identity() == sidecar.identity() else None


def _is_intact(registry: ModelRegistry, ref: ModelRef) -> bool:
    try:
        Scorer(str(ref), registry=registry.root)
    except ModelError:
        return False
    return True


def _remove_flat(folder: Path) -> None:
    """What a version without a folder of its own left beside the folders of versions."""
    for name in sorted(_OURS):
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _refuse_foreign(target: Path) -> None:
    """A folder without an entry is the rest of a crash, unless something else lives there."""
    names = {path.name for path in target.iterdir()} if target.is_dir() else {target.name}
    foreign = sorted(names - _OURS)
    if foreign:
        raise ModelError(
            f"{str(target)!r} is in the way: it is no registered model and holds {foreign[0]!r}",
            hint="choose another --version or --name, or move it away",
        )
