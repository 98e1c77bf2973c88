"""check compat: do sidecar, graphs, files and feature store of a model fit together? Lists every difference."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from vqa_train.core.config import StrictModel
from vqa_train.core.errors import ConfigError, VqaError
from vqa_train.core.files import confined, display_path
from vqa_train.core.provenance import RunProvenance, file_entry
from vqa_train.core.types import FeatureSpec
from vqa_train.onnx.runtime import OnnxModel
from vqa_train.pipelines.gates.compat_files import GraphFile, graph_file, hash_check, open_files, same_hash
from vqa_train.pipelines.gates.compat_graphs import (
    backbone_checks,
    compared,
    golden_checks,
    head_checks,
    load_check,
    version_checks,
)
from vqa_train.pipelines.gates.model import GateModel
from vqa_train.pipelines.gates.result import Check, GateReport
from vqa_train.registry.locate import policy
from vqa_train.registry.sidecar import ModelInput, ModelSidecar
from vqa_train.store.store import FeatureStore


class CompatLimits(StrictModel):
    """The gate file's section `compat`.

    Attributes:
        max_opset: newest operator set that a graph may import; None for what the installed onnxruntime loads.
        max_ir_version: newest file format, likewise.
        require_signature: public keys, one of which must have signed the sidecar.
    """

    max_opset: int | None = Field(default=None, ge=1)
    max_ir_version: int | None = Field(default=None, ge=1)
    require_signature: tuple[str, ...] = ()


def check_compat(
    model: str,
    limits: CompatLimits | None = None,
    *,
    features: Path | None = None,
    registry: Path = Path("model"),
) -> GateReport:
    """Hold everything that a model says of itself against everything else that says it.

    A file whose bytes are not those that were promised is read, to say what else differs, but not run.

    Args:
        model: reference of a registered model or an exported ONNX file.
        limits: None for the defaults.
        features: a store that must have the features that the model takes.
        registry: folder of registry.json.

    Raises:
        ModelError: there is no such model.
        UsageError: neither a name nor a path that exists, or a key that is none.
        StoreError: `features` is no store.
    """
    limits = limits or CompatLimits()
    keys = policy(limits.require_signature)
    opened = open_files(model, registry, keys)
    provenance = RunProvenance(
        entrypoint="check compat",
        config={
            "model": opened.label,
            "features": display_path(features) if features is not None else None,
            "limits": limits.model_dump(mode="json"),
        },
    )
    checks, found = list(opened.checks), opened.model
    details: dict[str, Any] = {}
    if found is None:
        checks.append(Check.not_run("model", "without a sidecar nothing else can be looked at"))
    else:
        if found.head.is_file():
            provenance.inputs["model"] = file_entry(found.head, "onnx-model")
        details = {"registered": found.sidecar.registered, "inputs": [item.name for item in found.sidecar.inputs]}
        specs = _specs(found.sidecar)
        checks += _sidecar_checks(found.sidecar, specs)
        checks += _head(found, limits)
        checks += _backbones(found, specs, limits)
        if features is not None:
            checks += _store_checks(found.sidecar, FeatureStore.open(features))
    return GateReport(
        gate="compat",
        model=opened.label,
        model_sha256=found.sidecar.onnx.sha256 if found is not None else None,
        checks=checks,
        details=details,
        provenance=provenance.to_json(),
    )


def _specs(sidecar: ModelSidecar) -> dict[str, FeatureSpec | VqaError]:
    """Input name -> its feature spec, or why there is none."""
    found: dict[str, FeatureSpec | VqaError] = {}
    for item in sidecar.inputs:
        try:
            found[item.name] = FeatureSpec.from_json(item.spec)
        except ConfigError as error:
            found[item.name] = error
    return found


def _sidecar_checks(sidecar: ModelSidecar, specs: dict[str, FeatureSpec | VqaError]) -> Iterator[Check]:
    """The sidecar against itself."""
    random = []
    for item in sidecar.inputs:
        name, spec = f"spec.{item.name}", specs[item.name]
        if isinstance(spec, VqaError):
            yield Check.failed(name, str(spec))
            continue
        if spec.random_seed is not None:
            random.append(item.name)
        yield same_hash(f"{name}.fingerprint", item.fingerprint, spec.fingerprint, "hash of the feature spec")
        yield compared(f"{name}.backbone", item.backbone, spec.backbone)
        yield compared(f"{name}.modality", item.modality, spec.modality)
        outputs = {output.name: list(output.shape) for output in spec.outputs}
        yield compared(f"{name}.dims", list(item.dims), outputs.get(item.output), f"output {item.output!r} of the spec")
        if item.modality == "text" and sidecar.registered:
            yield compared(f"{name}.tokenizer", item.tokenizer is not None, True)
    said = " and the sidecar says so" if sidecar.descends_from_random_weights else ""
    yield Check.equal(
        "random_weights",
        bool(random) or sidecar.descends_from_random_weights,
        False,
        f"of {', '.join(random)}{said}" if random or said else "none among its ancestors",
    )
    statistics = sidecar.training_statistics
    if statistics is not None:
        columns = {name: len(entry.mean) for name, entry in sorted(statistics.inputs.items())}
        yield compared(
            "training_statistics.inputs", columns, {i.name: i.dim for i in sorted(sidecar.inputs, key=lambda i: i.name)}
        )
        yield compared("training_statistics.targets", sorted(statistics.scores), sorted(sidecar.targets))


def _head(model: GateModel, limits: CompatLimits) -> Iterator[Check]:
    sidecar = model.sidecar
    file, checks = graph_file("head", model.head, sidecar.onnx.sha256)
    yield from checks
    head: OnnxModel | None = None
    if file.graph is not None:
        yield from head_checks(sidecar, file.graph)
        yield from version_checks("head", file.graph, limits.max_opset, limits.max_ir_version)
        head, loads = load_check("head", file, sidecar.onnx.sha256)
        yield loads
    yield from golden_checks(sidecar, head)


def _backbones(model: GateModel, specs: dict[str, FeatureSpec | VqaError], limits: CompatLimits) -> Iterator[Check]:
    """Every backbone once, every tokenizer, and what each input takes of them."""
    files: dict[str, GraphFile] = {}
    for name, item in model.backbones.items():
        label = f"backbone.{name}"
        onnx, spec = item.backbone_onnx, specs[item.name]
        if onnx is None:
            continue
        try:
            path = model.backbone_file(item)
        except VqaError as error:
            yield Check.failed(f"{label}.sha256", str(error))
            continue
        files[item.fingerprint], checks = graph_file(label, path, onnx.sha256)
        yield from checks
        graph = files[item.fingerprint].graph
        if graph is None:
            continue
        yield from version_checks(label, graph, limits.max_opset, limits.max_ir_version)
        loaded, loads = load_check(label, files[item.fingerprint], onnx.sha256)
        yield loads
        # onnxruntime infers sizes that the file leaves open.
        outputs = loaded.outputs if loaded is not None else graph.outputs
        yield from backbone_checks(label, item, spec if isinstance(spec, FeatureSpec) else None, graph, outputs)
    yield from _agreements(model)
    for item in model.sidecar.inputs:
        if item.tokenizer is not None:
            yield from _tokenizer(model, item)


def _agreements(model: GateModel) -> Iterator[Check]:
    """Inputs of one fingerprint must name one file."""
    hashes: dict[str, set[str]] = {}
    for item in model.sidecar.inputs:
        if item.backbone_onnx is not None:
            hashes.setdefault(f"{item.backbone}@{item.fingerprint[:12]}", set()).add(item.backbone_onnx.sha256)
    for name, found in hashes.items():
        if len(found) > 1:
            said = ", ".join(sorted(sha[:12] for sha in found))
            yield Check.failed(f"backbone.{name}", f"inputs of one feature name several files: {said}")


def _tokenizer(model: GateModel, item: ModelInput) -> Iterator[Check]:
    from tokenizers import Tokenizer

    file = item.tokenizer
    if file is None:
        return
    name = f"tokenizer.{item.name}"
    path = confined(model.head.parent, file.file)
    check = hash_check(f"{name}.sha256", path, file.sha256)
    yield check
    if check.verdict != "pass":
        return
    try:
        truncation = Tokenizer.from_str(path.read_text(encoding="utf-8")).truncation
    except Exception as error:  # tokenizers raises plain Exception
        yield Check.failed(f"{name}.loads", str(error)[:200])
        return
    yield compared(f"{name}.max_tokens", (truncation or {}).get("max_length"), file.max_tokens, "where texts are cut")


def _store_checks(sidecar: ModelSidecar, store: FeatureStore) -> Iterator[Check]:
    """The features that the model takes, with rows, in a store."""
    there = {found.fingerprint: found for found in store.sets()}
    names = ", ".join(sorted(found.name for found in there.values())) or "nothing"
    for item in sidecar.inputs:
        name, found = f"store.{item.name}", there.get(item.fingerprint)
        if found is None:
            wanted = f"{item.backbone}@{item.fingerprint[:12]}"
            yield Check.failed(f"{name}.set", f"the store has no {wanted}, it has {names}", value=False)
            continue
        yield Check.passed(f"{name}.set", found.name)
        outputs = {output.name: list(output.shape) for output in found.spec.outputs}
        yield compared(f"{name}.dims", outputs.get(item.output), list(item.dims), f"output {item.output!r}")
        yield Check.at_least(f"{name}.rows", len(found.known_keys()), 1, "keys with every view")
