"""The files of a model, every one against its hash; nothing is refused, every difference is a check."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vqa_train.core.errors import ModelError, VqaError
from vqa_train.core.files import confined
from vqa_train.core.hashing import sha256_bytes, sha256_file
from vqa_train.onnx.interface import GraphInterface, read_interface
from vqa_train.onnx.runtime import EXTERNAL_KEY
from vqa_train.pipelines.gates.model import GateModel
from vqa_train.pipelines.gates.result import Check
from vqa_train.registry.locate import place_of
from vqa_train.registry.registry import ModelRegistry
from vqa_train.registry.sidecar import read_sidecar, sidecar_path
from vqa_train.registry.signature import PublicKey, signature_path, verify


@dataclass
class OpenedFiles:
    """A model whose files were looked at.

    Attributes:
        label: how reports name it.
        model: None where the sidecar could not be read.
        checks: of sidecar, card and signature.
    """

    label: str
    model: GateModel | None
    checks: list[Check] = field(default_factory=list)


@dataclass(frozen=True)
class GraphFile:
    """An ONNX file: its interface where it could be read, and whether its bytes are those that were promised."""

    path: Path
    graph: GraphInterface | None
    intact: bool


def open_files(model: str, registry: Path, keys: Sequence[str]) -> OpenedFiles:
    """Find a model without refusing what differs.

    Args:
        model: reference of a registered model or an exported ONNX file.
        registry: folder of registry.json.
        keys: public keys, one of which must have signed the sidecar; none for no policy.

    Raises:
        ModelError: there is no such model.
        UsageError: neither a name nor a path that exists.
    """
    if model.endswith(".onnx"):
        path = Path(model)
        if not path.is_file() and not sidecar_path(path).is_file():
            raise ModelError(f"model {model!r} does not exist", hint="`vqa-train export` writes it and its sidecar")
        return _opened(path.name, sidecar_path(path), None, keys, head=path)
    root, ref = place_of(model, registry)
    models = ModelRegistry(root)
    name, version = models.resolve(ref)
    label, entry = f"{name}:{version}", models.models()[name].versions[version]
    opened = _opened(label, confined(root, entry.sidecar), entry.sidecar_sha256, keys, registry=root)
    if opened.model is not None:
        sidecar = opened.model.sidecar
        opened.checks += [
            Check.equal("sidecar.name", f"{sidecar.name}:{sidecar.version}", label, "as the registry has it"),
            Check.equal("sidecar.registered", sidecar.registered, True),
            same_hash("sidecar.head", sidecar.onnx.sha256, entry.onnx_sha256, "as the registry has it"),
        ]
        if sidecar.card is not None:
            card = confined(opened.model.head.parent, sidecar.card.file)
            opened.checks.append(hash_check("card.sha256", card, sidecar.card.sha256))
    return opened


def _opened(
    label: str,
    path: Path,
    sha256: str | None,
    keys: Sequence[str],
    *,
    head: Path | None = None,
    registry: Path | None = None,
) -> OpenedFiles:
    checks = [] if sha256 is None else [hash_check("sidecar.sha256", path, sha256)]
    try:
        sidecar = read_sidecar(path)
    except VqaError as error:
        return OpenedFiles(label, None, [*checks, Check.failed("sidecar.schema", str(error))])
    checks.append(Check.passed("sidecar.schema", value=sidecar.schema_version))
    if keys:
        checks.append(_signature(path, keys))
    elif signature_path(path).is_file():
        checks.append(Check.passed("signature", "there, but not verified: --require-signature KEY verifies it"))
    place = head if head is not None else confined(path.parent, sidecar.onnx.file)
    return OpenedFiles(label, GateModel(label, sidecar, place, registry), checks)


def _signature(path: Path, keys: Sequence[str]) -> Check:
    known = [PublicKey.read(key) for key in keys]
    try:
        signed = verify(path, known)
    except VqaError as error:
        return Check.failed("signature", str(error))
    return Check.passed("signature", f"by key {signed.key_id}: {signed.comment}")


def hash_check(name: str, path: Path, sha256: str) -> Check:
    """Whether a file is there with this hash."""
    try:
        found = sha256_file(path)
    except OSError as error:
        return Check.failed(name, f"{str(path)!r} cannot be read: {error.strerror}")
    return same_hash(name, found, sha256, "" if found == sha256 else f"{str(path)!r} was changed")


def same_hash(name: str, found: str | None, expected: str, message: str = "") -> Check:
    """Whether two hashes are the same; their first 12 digits are shown."""
    said = None if found is None else found[:12]
    return Check(name, "pass" if found == expected else "fail", message, said, expected[:12], "==")


def graph_file(name: str, path: Path, sha256: str) -> tuple[GraphFile, list[Check]]:
    """An ONNX file and the files of weights beside it, against their hashes; its interface is read, it is not run."""
    try:
        data = path.read_bytes()
    except OSError as error:
        failed = Check.failed(f"{name}.sha256", f"{str(path)!r} cannot be read: {error.strerror}")
        return GraphFile(path, None, False), [failed]
    found = sha256_bytes(data)
    checks = [same_hash(f"{name}.sha256", found, sha256, "" if found == sha256 else f"{str(path)!r} was changed")]
    try:
        graph = read_interface(path, data)
    except VqaError as error:
        return GraphFile(path, None, False), [*checks, Check.failed(f"{name}.graph", str(error))]
    checks += _external(name, path, graph)
    return GraphFile(path, graph, all(check.verdict == "pass" for check in checks)), checks


def _external(name: str, path: Path, graph: GraphInterface) -> list[Check]:
    """Weights outside the file, which its metadata names by hash."""
    text = graph.metadata.get(EXTERNAL_KEY, "{}")
    try:
        hashes = {str(file): str(entry["sha256"]) for file, entry in json.loads(text).items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return [Check.failed(f"{name}.weights", f"malformed metadata {EXTERNAL_KEY!r}")]
    checks = []
    uncovered = sorted(graph.facts.locations - hashes.keys())
    if uncovered or (graph.facts.external and not graph.facts.locations):
        checks.append(Check.failed(f"{name}.weights", f"weights outside the file that no hash covers: {uncovered}"))
    for file, sha256 in sorted(hashes.items()):
        if Path(file).name != file or file in ("", ".", ".."):
            checks.append(Check.failed(f"{name}.weights", f"weights {file!r} are not beside the file"))
        else:
            checks.append(hash_check(f"{name}.weights.{file}", path.parent / file, sha256))
    return checks
