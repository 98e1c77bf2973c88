"""The model itself: sidecar, head, backbones, tokenizers, weights, feature sets, and its registration and export."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vqa_train.core.errors import VqaError
from vqa_train.core.files import confined
from vqa_train.core.hashcache import HashCache
from vqa_train.core.hashing import sha256_file, sha256_json
from vqa_train.core.types import FeatureSpec
from vqa_train.pipelines.lineage.config import LineageConfig
from vqa_train.pipelines.lineage.graph import Lineage, Node, file_node
from vqa_train.registry.cache import onnx_cache_path
from vqa_train.registry.locate import locate, place_of
from vqa_train.registry.sidecar import SIDECAR_FILE, ModelInput, ModelSidecar, read_sidecar, sidecar_path
from vqa_train.weights.manifest import WeightsEntry, known_weights
from vqa_train.weights.status import status

_FIT = "fit"


@dataclass(frozen=True)
class TracedModel:
    """The graph with the model in it.

    Attributes:
        sidecar: of the model.
        fit: run_provenance of the fit; None for a model that no fit of vqa-train made.
        above_fit: node that the fit hangs below: the export, or the model where it is not registered.
    """

    lineage: Lineage
    sidecar: ModelSidecar
    fit: Mapping[str, Any] | None
    above_fit: str


def trace_model(config: LineageConfig) -> TracedModel:
    """Open the model and hash what lies beside its sidecar.

    Raises:
        ModelError, UsageError, ConfigError: it cannot be opened.
    """
    sidecar, folder, path, beside = _open(config)
    known = "the registry has the sha256 of its sidecar" if sidecar.registered else ""
    root = Node(
        id=sha256_file(path),
        kind="model",
        name=f"{sidecar.name}:{sidecar.version}",
        status="verified" if sidecar.registered else "not_looked_for",
        detail=known or "it is not registered, so that nothing says what its sidecar should be",
        facts={"kind": sidecar.kind, "targets": sidecar.targets, "license": sidecar.license},
    )
    lineage = Lineage(root)
    members = [member.model_dump(mode="json") for member in sidecar.members or ()]
    onnx = sidecar.onnx
    lineage.add(root.id, "is", file_node("head", onnx.file, onnx.sha256, folder / onnx.file, members=members))
    if sidecar.card is not None:
        card = sidecar.card
        lineage.add(root.id, "is described by", file_node("card", card.file, card.sha256, folder / card.file))
    above = _registration(lineage, sidecar)
    for item in sidecar.inputs:
        _input(lineage, item, folder, beside, config.content)
    return TracedModel(lineage, sidecar, _fit_block(sidecar), above)


def _open(config: LineageConfig) -> tuple[ModelSidecar, Path, Path, Path | None]:
    """Sidecar, its folder, its file, and the folder of a bundle's backbones."""
    if config.model.endswith(".onnx"):
        path = sidecar_path(Path(config.model))
        return read_sidecar(path), path.parent, path, None
    sidecar, folder = locate(config.model, config.registry)
    root, _ = place_of(config.model, config.registry)
    return sidecar, folder, folder / SIDECAR_FILE, root / "onnx"


def _fit_block(sidecar: ModelSidecar) -> Mapping[str, Any] | None:
    found = [block for block in _blocks(sidecar) if block.get("entrypoint") == _FIT]
    return found[0] if found else None


def _blocks(sidecar: ModelSidecar) -> Iterator[Mapping[str, Any]]:
    """The provenance of the model and what it names as its parent, the last command first."""
    block: Any = sidecar.run_provenance
    while isinstance(block, Mapping):
        yield block
        block = block.get("parent")


def _registration(lineage: Lineage, sidecar: ModelSidecar) -> str:
    """Every command above the fit, the last one first, and the exported files that `register` took."""
    above = lineage.root
    for block in _blocks(sidecar):
        if block.get("entrypoint") in (None, _FIT):
            break
        node = run_node(block)
        lineage.add(above, "was made by", node)
        above = node.id
        exported = block.get("inputs") or {}
        onnx, described = exported.get("onnx") or {}, exported.get("sidecar") or {}
        if block.get("entrypoint") == "register" and onnx.get("sha256") and described.get("sha256"):
            same = onnx["sha256"] == sidecar.onnx.sha256
            node = Node(
                id=described["sha256"],
                kind="export",
                name=str(described.get("path", "")),
                status="verified" if same else "differs",
                detail="the exported graph has the sha256 of this head"
                if same
                else f"the exported graph had sha256 {str(onnx['sha256'])[:12]}, this head has another",
                facts={"onnx_sha256": onnx["sha256"]},
            )
            lineage.add(above, "took", node)
            above = node.id
    return above


def run_node(block: Mapping[str, Any]) -> Node:
    """A run_provenance block that a verified file holds; its own hash of the configuration is recomputed."""
    config = block.get("config")
    same = isinstance(config, Mapping) and sha256_json(dict(config)) == block.get("config_sha256")
    facts = ("started", "duration_s", "git", "packages", "python", "platform", "device", "seeds", "counts")
    run_id, entrypoint = str(block.get("run_id", "")), str(block.get("entrypoint", ""))
    return Node(
        # A block without an id (another tool's, or one cut short) is named by its content.
        id=run_id or sha256_json(dict(block)),
        kind="run",
        name=f"{entrypoint} {run_id}".strip(),
        status="verified" if same else "differs",
        detail="its configuration has the sha256 that it states"
        if same
        else "its configuration does not have the sha256 that it states",
        facts={
            "entrypoint": entrypoint,
            "config_sha256": block.get("config_sha256"),
            **{name: block[name] for name in facts if block.get(name) is not None},
        },
    )


def _input(lineage: Lineage, item: ModelInput, folder: Path, beside: Path | None, content: bool) -> None:
    """The feature set of an input, its backbone's graph, its weights."""
    output = f"{item.output}{' of the reference' if item.of == 'reference' else ''}"
    try:
        spec = item.feature_spec()
    except VqaError as error:
        node = Node(id=item.fingerprint, kind="feature_set", name=item.backbone, status="differs", detail=str(error))
        lineage.add(lineage.root, f"input {item.name}: {output}", node)
        return
    node = Node(
        id=item.fingerprint,
        kind="feature_set",
        name=spec.set_name,
        status="verified",
        detail="its spec has this fingerprint; no store was looked into",
        facts={"backbone": spec.backbone, "modality": spec.modality, "license": item.license},
    )
    lineage.add(lineage.root, f"input {item.name}: {output}", node)
    if item.backbone_onnx is not None:
        onnx = item.backbone_onnx
        bundled = beside / f"{onnx.sha256}.onnx" if beside is not None else None
        place = bundled if bundled is not None and bundled.is_file() else onnx_cache_path(onnx.sha256)
        path = confined(folder, onnx.file) if onnx.file else place
        name = onnx.file or f"{onnx.sha256}.onnx"
        lineage.add(item.fingerprint, "is computed by", file_node("backbone", name, onnx.sha256, path))
    if item.tokenizer is not None:
        path = confined(folder, item.tokenizer.file)
        found = file_node("tokenizer", item.tokenizer.file, item.tokenizer.sha256, path)
        lineage.add(item.fingerprint, "reads text with", found)
    _weights(lineage, spec, item.license, content)


def _weights(lineage: Lineage, spec: FeatureSpec, license: str, content: bool) -> None:
    if spec.imported:
        imported = spec.preprocessing["imported"]
        digest = str(imported.get("file_sha256", "")) if isinstance(imported, Mapping) else ""
        if digest:
            node = Node(
                id=digest, kind="feature_file", name=f"file of {spec.backbone}", detail="its place is not known"
            )
            lineage.add(spec.fingerprint, "was imported from", node)
        return
    if spec.random_seed is not None:
        node = Node(
            id=sha256_json({"random_seed": spec.random_seed}),
            kind="weights",
            name=f"random weights, seed {spec.random_seed}",
            detail="no file has them",
        )
        lineage.add(spec.fingerprint, "has", node)
    if spec.weights_sha256 is None:
        return
    entry = _entry(spec.weights_sha256, spec.backbone)
    node = Node(id=spec.weights_sha256, kind="weights", name=f"weights of {spec.backbone}", facts={"license": license})
    if entry is None:
        node.detail = "no entry of the weights manifest has this sha256"
    else:
        node.name = entry.name
        node.facts |= {"source": str(entry.source), "license": entry.terms, "manifest_entry": entry.name}
        node.detail = f"entry {entry.name!r} of the weights manifest; the file was not read (--content reads it)"
        if content:
            _read_weights(node, entry)
    lineage.add(spec.fingerprint, "has", node)


def _entry(sha256: str, backbone: str) -> WeightsEntry | None:
    """The manifest's entry with this checkpoint; where it does not know a hash beforehand, the backbone's own."""
    entries = known_weights()
    for entry in entries.values():
        if any(file.sha256 == sha256 for file in entry.files):
            return entry
    found = entries.get(backbone)
    return found if found is not None and found.checkpoint.sha256 is None else None


def _read_weights(node: Node, entry: WeightsEntry) -> None:
    with HashCache() as cache:
        found = status(entry, cache)
    if found.location is None:
        node.status, node.detail = "not_found", f"weights {entry.name!r} are not on this machine"
        return
    digests = set(found.sha256.values())
    if not digests:
        node.status, node.detail = "differs" if found.state == "changed" else "not_found", str(found.error)
    elif node.id in digests:
        node.status, node.detail = "verified", f"the file of {entry.name!r} on this machine has this sha256"
    else:
        first = found.sha256.get(entry.checkpoint.path, "")
        node.status, node.detail = "differs", f"{entry.name!r} on this machine has sha256 {first[:12]}"
