"""models export-bundle: one model with everything that scoring it takes, as a folder or a `.tar.zst`."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from vqa_train.core.errors import ModelError, UsageError, VqaError
from vqa_train.core.files import atomic_write, atomic_write_bytes, fsync_dir
from vqa_train.core.hashing import sha256_bytes, sha256_file
from vqa_train.pipelines.models.parts import ONNX_FOLDER, RegisteredModel, intact_parts
from vqa_train.registry.bundle import check_name, pack
from vqa_train.registry.entries import ModelVersions, RegistryEntry, RegistryFile
from vqa_train.registry.locate import BUNDLE_SUFFIX, place_of, policy
from vqa_train.registry.registry import REGISTRY_FILE, ModelRegistry
from vqa_train.registry.sidecar import SIDECAR_FILE

SCHEMA = "vqa-train/models-export/1"
_OTHER_ARCHIVES = {".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z"}


@dataclass(frozen=True)
class Exported:
    """A bundle that was written.

    Attributes:
        model: NAME:VERSION.
        output: its place.
        files: in it.
        bytes: of the archive, or of the files.
        sha256: of the archive; None for a folder.
        sidecar_sha256: of the model, which everything in the bundle follows from.
    """

    model: str
    output: str
    files: int
    bytes: int
    sha256: str | None
    sidecar_sha256: str

    def to_json(self) -> dict[str, Any]:
        """The document of `models export-bundle --json`."""
        return {"schema": SCHEMA, **asdict(self)}


def export_bundle(
    model: str,
    output: Path,
    registry: Path = Path("model"),
    *,
    overwrite: bool = False,
    require_signature: Sequence[str] = (),
) -> Exported:
    """Write a registry that has one model and every file of it, large backbones from the cache too.

    A `.tar.zst` has the same bytes each time. Nothing is at `output` until it is whole.

    Args:
        model: named as `registry.locate` takes it.
        output: a path that ends in `.tar.zst`, or a folder.
        overwrite: replace a bundle that is there.

    Raises:
        ModelError: no such model, or a file of it is missing or not what the chain of hashes says.
        UsageError: something is at `output` already, or another kind of archive is asked for.
        OSError: it cannot be written.
    """
    archive = output.name.endswith(BUNDLE_SUFFIX)
    if not archive and output.suffix in _OTHER_ARCHIVES:
        raise UsageError(f"{str(output)!r} is no kind of bundle", hint=f"end it in {BUNDLE_SUFFIX}, or name a folder")
    _refuse_existing(output, archive=archive, overwrite=overwrite)
    root, ref = place_of(model, registry)
    found = RegisteredModel.find(ModelRegistry(root, require_signature=policy(require_signature)), str(ref))
    parts = intact_parts(found)
    files: dict[str, Path | bytes] = {check_name(part.name): part.path for part in parts}
    files[REGISTRY_FILE] = registry_of(found)
    wanted = {part.name: part.sha256 for part in parts if part.sha256 is not None}
    if archive:
        atomic_write(output, lambda handle: _pack(handle, files, wanted))
        size, digest = output.stat().st_size, sha256_file(output)
    else:
        _write_folder(output, files, wanted)
        size, digest = sum(path.stat().st_size for path in output.rglob("*") if path.is_file()), None
    return Exported(found.label, str(output), len(files), size, digest, found.entry.sidecar_sha256)


def registry_of(model: RegisteredModel) -> bytes:
    """registry.json of a registry that has this model alone, without the aliases of the one it is from."""
    entry = RegistryEntry(
        sidecar=f"{model.prefix}/{SIDECAR_FILE}",
        sidecar_sha256=model.entry.sidecar_sha256,
        onnx_sha256=model.entry.onnx_sha256,
    )
    return registry_bytes({model.sidecar.name: ModelVersions(versions={model.sidecar.version: entry})})


def registry_bytes(models: Mapping[str, ModelVersions]) -> bytes:
    """The registry.json of `models`."""
    value = RegistryFile(models=dict(sorted(models.items()))).model_dump(mode="json", by_alias=True)
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode("utf-8")


def _refuse_existing(output: Path, *, archive: bool, overwrite: bool) -> None:
    if not output.exists():
        return
    if not overwrite:
        raise UsageError(f"{str(output)!r} exists already", hint="give --overwrite or another name")
    if output.is_dir() == archive or (output.is_dir() and not _is_bundle(output)):
        raise UsageError(
            f"{str(output)!r} is no bundle of this kind, so it is not overwritten", hint="choose another name"
        )


def _is_bundle(folder: Path) -> bool:
    """Whether a folder holds one model and nothing else."""
    try:
        models = ModelRegistry(folder).models()
    except VqaError:
        return False
    expected = {REGISTRY_FILE, ONNX_FOLDER, *models}
    one = [version for some in models.values() for version in some.versions]
    return len(one) == 1 and {path.name for path in folder.iterdir()} <= expected


def _pack(handle: IO[bytes], files: Mapping[str, Path | bytes], wanted: Mapping[str, str]) -> None:
    _compare(pack(handle, files), wanted)


def _compare(hashes: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    for name, sha256 in wanted.items():
        if hashes[name] != sha256:
            raise ModelError(f"file {name!r} changed while it was bundled", hint="run the command again")


def _write_folder(output: Path, files: Mapping[str, Path | bytes], wanted: Mapping[str, str]) -> None:
    temporary = output.parent / f".{output.name}.{uuid.uuid4().hex[:8]}.tmp"
    replaced = output.parent / f".{output.name}.{uuid.uuid4().hex[:8]}.replaced"
    try:
        hashes = {name: _write(temporary / name, content) for name, content in files.items()}
        _compare(hashes, wanted)
        if output.exists():
            output.rename(replaced)
        temporary.rename(output)
        fsync_dir(output.parent)
    finally:
        if replaced.exists() and not output.exists():
            replaced.rename(output)
        for left in (temporary, replaced):
            shutil.rmtree(left, ignore_errors=True)


def _write(path: Path, content: Path | bytes) -> str:
    if isinstance(content, bytes):
        atomic_write_bytes(path, content)
        return sha256_bytes(content)

    def copy(handle: IO[bytes]) -> None:
        with content.open("rb") as data:
            shutil.copyfileobj(data, handle, 1 << 20)

    atomic_write(path, copy)
    return sha256_file(path)
