"""Moves a finished model folder into the registry; registry.json is written last, so no reader sees half a model."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

from vqa_train.core.errors import ModelError, UsageError, VqaError
from vqa_train.core.files import fsync_dir
from vqa_train.core.hashing import sha256_file
from vqa_train.pipelines.score import Scorer
from vqa_train.registry.registry import ModelRegistry, RegistryEntry
from vqa_train.registry.sidecar import ModelSidecar

HEAD_FILE, SIDECAR_FILE, CARD_FILE = "model.onnx", "model.json", "README.md"
_OURS = {HEAD_FILE, SIDECAR_FILE, CARD_FILE, "backbones", "tokenizers"}


def publish(registry: ModelRegistry, staging: Path, sidecar: ModelSidecar, *, overwrite: bool) -> ModelSidecar:
    """Move the finished folder `staging` into place, then write registry.json.

    A model that is registered already, unchanged and intact, is left as it is; a damaged one is replaced.

    Raises:
        ModelError: another model has the name and `overwrite` is off, or a foreign folder is in the way.
        OSError: the registry cannot be written; it is then as it was.
    """
    target = registry.root / sidecar.name
    replaced = registry.root / f".{sidecar.name}.{uuid.uuid4().hex[:8]}.replaced"
    with registry.locked():
        if sidecar.name in registry.models():
            existing = _same_model(registry, sidecar)
            if existing is not None and _is_intact(registry, sidecar.name):
                return existing
            if existing is None and not overwrite:
                raise ModelError(
                    f"registry {str(registry.path)!r} has another model {sidecar.name!r}",
                    hint="choose another --name or give --overwrite",
                )
        elif target.exists():
            _refuse_foreign(target)
        if target.exists():
            target.rename(replaced)
        try:
            staging.rename(target)
            fsync_dir(registry.root)
            entry = RegistryEntry(
                sidecar=f"{sidecar.name}/{SIDECAR_FILE}",
                sidecar_sha256=sha256_file(target / SIDECAR_FILE),
                onnx_sha256=sidecar.onnx.sha256,
            )
            registry.put(sidecar.name, entry)
        except BaseException:
            # Whatever registry.json still says must stay true.
            shutil.rmtree(target, ignore_errors=True)
            if replaced.exists():
                replaced.rename(target)
            raise
        shutil.rmtree(replaced, ignore_errors=True)
    return sidecar


def _same_model(registry: ModelRegistry, sidecar: ModelSidecar) -> ModelSidecar | None:
    """The registered sidecar where it describes the same model; None where it differs or cannot be read."""
    try:
        existing, _ = registry.find(sidecar.name)
    except VqaError:
        return None
    return existing if existing.identity() == sidecar.identity() else None


def _is_intact(registry: ModelRegistry, name: str) -> bool:
    try:
        Scorer(name, registry=registry.root)
    except ModelError:
        return False
    except UsageError:
        return True  # a full-reference model: what the registry itself verifies must do
    return True


def _refuse_foreign(target: Path) -> None:
    """A folder without an entry is the rest of a crash, unless something else lives there."""
    names = {path.name for path in target.iterdir()} if target.is_dir() else {target.name}
    foreign = sorted(names - _OURS)
    if foreign:
        raise ModelError(
            f"{str(target)!r} is in the way: it is no registered model and holds {foreign[0]!r}",
            hint="choose another --name or move it away",
        )
