"""Finds a model that was named in any of the ways a user may: registry, ready-made scorer, folder, bundle."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from vqa_train.core.errors import ModelError, UsageError
from vqa_train.registry.cache import ready_models
from vqa_train.registry.reference import ModelRef
from vqa_train.registry.registry import REGISTRY_FILE, ModelRegistry
from vqa_train.registry.sidecar import SIDECAR_FILE, ModelSidecar

BUNDLE_SUFFIX = ".tar.zst"
POLICY_VARIABLE = "VQA_TRAIN_REQUIRE_SIGNATURE"
"""Environment variable: public keys (files or texts, commas or colons between them), one of which must have signed."""


def locate(
    model: str | Path, registry: Path = Path("model"), *, require_signature: Sequence[str] = ()
) -> tuple[ModelSidecar, Path]:
    """The verified sidecar of a model and the folder that its files are relative to.

    Args:
        model: NAME, NAME:VERSION or NAME@ALIAS of the registry or else of a ready-made scorer of this machine; or the
            path of a model's folder, of a folder whose registry.json has one model, or of a `.tar.zst` bundle.
        registry: the folder that holds registry.json, for names.
        require_signature: public keys, see `ModelRegistry`; those of the environment's policy are always added.

    Raises:
        ModelError: no such model, or it is not what it claims to be.
        UsageError: `model` is neither a name nor a path that exists, or the path has several models.
        ConfigError: registry.json or the sidecar is malformed.
    """
    root, ref = place_of(model, registry)
    return ModelRegistry(root, require_signature=policy(require_signature)).find(ref)


def policy(require_signature: Sequence[str] = ()) -> tuple[str, ...]:
    """The keys asked for: those given, or else those of the environment.

    Raises:
        UsageError: the environment's list is there, but names no key: nobody means a policy that allows all.
    """
    if require_signature:
        return tuple(require_signature)
    text = os.environ.get(POLICY_VARIABLE)
    if text is None:
        return ()
    keys = tuple(key.strip() for key in re.split(f"[,{re.escape(os.pathsep)}]", text) if key.strip())
    if not keys:
        raise UsageError(f"{POLICY_VARIABLE} names no key", hint="public keys with commas between them, or unset it")
    return keys


def place_of(model: str | Path, registry: Path = Path("model")) -> tuple[Path, ModelRef]:
    """The registry folder that has a model, and the model's name there; arguments and errors as for `locate`."""
    path = Path(model)
    if path.name.endswith(BUNDLE_SUFFIX):
        from vqa_train.registry.bundle import unpacked

        return _only_model(unpacked(path))
    if isinstance(model, Path) or len(path.parts) > 1:
        return _of_folder(path)
    ref = ModelRef.parse(str(model))
    if ref.name not in ModelRegistry(registry).models():
        if ref.name in ModelRegistry(ready_models()).models():
            return ready_models(), ref
        if any((path / name).is_file() for name in (SIDECAR_FILE, REGISTRY_FILE)):
            return _of_folder(path)
    return registry, ref


def _of_folder(path: Path) -> tuple[Path, ModelRef]:
    if (path / SIDECAR_FILE).is_file():
        # NAME/VERSION below the registry; NAME alone as it was before there were versions.
        absolute = path.absolute()
        for root in (absolute.parents[1], absolute.parent):
            for name, found in ModelRegistry(root).models().items():
                for version, entry in found.versions.items():
                    if (root / entry.sidecar).parent == absolute:
                        return root, ModelRef(name, version=version)
        raise ModelError(
            f"model folder {str(path)!r} is in no registry", hint=f"no {REGISTRY_FILE} above it names its sidecar"
        )
    if (path / REGISTRY_FILE).is_file():
        return _only_model(path)
    # NAME, NAME:VERSION or NAME@ALIAS below a registry.
    if (path.parent / REGISTRY_FILE).is_file():
        return path.parent, ModelRef.parse(path.name)
    raise ModelError(
        f"there is no model at {str(path)!r}",
        hint="a model's folder, a folder with registry.json, a .tar.zst bundle, or a name with --registry",
    )


def _only_model(root: Path) -> tuple[Path, ModelRef]:
    found = [f"{name}:{version}" for name, some in ModelRegistry(root).models().items() for version in some.versions]
    if len(found) != 1:
        raise UsageError(
            f"{str(root)!r} has {len(found)} models, expected one",
            hint=f"name one with --registry {root}: {', '.join(found[:5])}" if found else "it is no bundle",
        )
    return root, ModelRef.parse(found[0])
