"""register: makes an exported head a model that can be found by name, scored without torch, and audited."""

from __future__ import annotations

import re
import shutil
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vqa_train.core.config import load_json, load_yaml, parse
from vqa_train.core.errors import ModelError, UsageError
from vqa_train.core.files import atomic_write_bytes, display_path
from vqa_train.core.hashing import sha256_bytes, sha256_file
from vqa_train.core.provenance import RunProvenance, file_entry
from vqa_train.onnx.runtime import OnnxModel
from vqa_train.pipelines.export.backbone import ExportedBackbone, export_backbone
from vqa_train.pipelines.models.check_head import check_head
from vqa_train.pipelines.models.publish import is_registered, next_version, publish
from vqa_train.pipelines.models.replay import replay_golden
from vqa_train.registry.cache import LARGE_BYTES, keep
from vqa_train.registry.card import render_card
from vqa_train.registry.registry import ModelRegistry
from vqa_train.registry.sidecar import (
    CARD_FILE,
    HEAD_FILE,
    SIDECAR_FILE,
    FileHash,
    Kind,
    ModelInput,
    ModelSidecar,
    read_sidecar,
    sidecar_path,
    write_sidecar,
)

_EVAL_SCHEMA = "vqa-train/eval/1"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
_COMMIT = re.compile(r"[0-9a-f]{7,40}|unknown")


@dataclass(frozen=True, kw_only=True)
class RegisterConfig:
    """What to register and as what.

    Attributes:
        model: NAME.onnx as `export` wrote it, with NAME.json beside it.
        kind: "nr" or "fr"; None takes what the inputs say: "fr" where one is of the reference.
        dataset: name of the dataset it was fitted on, or the path of its manifest.
        license: of the model.
        train_commit: git commit (7 to 40 hex digits) of the code that fitted it, or "unknown".
        registry: the folder that holds registry.json.
        name: in the registry; None takes the exported one.
        version: of the model; None takes the next number, or the version that is this very model.
        metrics: JSON file that `eval` wrote, taken into the sidecar whole.
        overwrite: replace a model of the same name and version that differs.
    """

    model: Path
    dataset: str
    license: str
    train_commit: str
    kind: Kind | None = None
    registry: Path = Path("model")
    name: str | None = None
    version: str | None = None
    metrics: Path | None = None
    overwrite: bool = False

    def to_json(self) -> dict[str, Any]:
        """JSON values for provenance; paths without the home folder."""
        return {k: display_path(v) if isinstance(v, Path) else v for k, v in asdict(self).items()}


def register(config: RegisterConfig, *, log: Callable[[str], None] = lambda _: None) -> ModelSidecar:
    """Verify an exported head, export its backbones, and publish both under a name.

    registry.json is written last: until then no reader sees anything of the model. The same model registered
    again is left as it is.

    Raises:
        ModelError: a hash, the graph, a golden row or a backbone differs from what it claims; random weights are
            among its ancestors; the name is taken by another model and `overwrite` is off.
        UsageError: a malformed name or commit, a dataset that the model was not fitted on, or a kind that its inputs
            do not make it.
        WeightsError: a backbone's weights are missing or wrong.
        OSError: the registry or the cache cannot be written.
    """
    provenance = RunProvenance(entrypoint="register", config=config.to_json())
    exported = _read_exported(config)
    name = config.name or exported.name
    _check_arguments(config, name)
    provenance.inputs |= {
        "onnx": file_entry(config.model, "onnx"),
        "sidecar": file_entry(sidecar_path(config.model), "model-sidecar"),
    }
    staging = config.registry / f".{name}.{uuid.uuid4().hex[:8]}.staging"
    try:
        staging.mkdir(parents=True)
        inputs = _export_inputs(exported, staging, log)
        atomic_write_bytes(staging / HEAD_FILE, config.model.read_bytes())
        changes = {
            "name": name,
            "version": config.version or "1",
            "registered": True,
            "kind": _kind(config, exported),
            "onnx": {**exported.onnx.model_dump(), "file": HEAD_FILE},
            "inputs": inputs,
            "dataset": _dataset(config, exported),
            "license": config.license,
            "train_commit": config.train_commit,
            "metrics": _metrics(config.metrics, exported) if config.metrics else exported.metrics,
            "run_provenance": {**provenance.to_json(), "parent": exported.run_provenance},
        }
        sidecar = parse(ModelSidecar, {**exported.to_json(), **changes}, f"model {name!r}")
        registry = ModelRegistry(config.registry)
        if config.version is None:
            return _publish_next(registry, staging, sidecar)
        return publish(registry, staging, write_description(staging, sidecar), overwrite=config.overwrite)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def write_description(folder: Path, sidecar: ModelSidecar) -> ModelSidecar:
    """Write the card and the sidecar that names the card's hash; returns that sidecar.

    Raises:
        OSError: one of them cannot be written.
    """
    described = with_card(sidecar)
    atomic_write_bytes(folder / CARD_FILE, render_card(described).encode("utf-8"))
    write_sidecar(folder / SIDECAR_FILE, described)
    return described


def with_card(sidecar: ModelSidecar) -> ModelSidecar:
    """The sidecar with the hash of its card, which is rendered from everything else in it."""
    card = render_card(sidecar).encode("utf-8")
    return sidecar.model_copy(update={"card": FileHash(file=CARD_FILE, sha256=sha256_bytes(card), bytes=len(card))})


def _publish_next(registry: ModelRegistry, staging: Path, sidecar: ModelSidecar) -> ModelSidecar:
    """Publish under the next number; whoever takes that number at the same moment leaves the one after it."""
    while True:
        numbered = _numbered(registry, sidecar)
        try:
            return publish(registry, staging, write_description(staging, numbered), overwrite=False)
        except ModelError:
            if _numbered(registry, sidecar).version == numbered.version:
                raise


def _numbered(registry: ModelRegistry, sidecar: ModelSidecar) -> ModelSidecar:
    """With the version that is registered as this very model, else the next number."""
    found = registry.models().get(sidecar.name)
    for version in reversed(found.in_order()) if found else ():
        candidate = sidecar.model_copy(update={"version": version})
        if is_registered(registry, with_card(candidate)):
            return candidate
    return sidecar.model_copy(update={"version": next_version(registry, sidecar.name)})


def _check_arguments(config: RegisterConfig, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"model name {name!r} is not a name", hint="letters, digits, '.', '_', '+' and '-', at most 100"
        )
    if not _COMMIT.fullmatch(config.train_commit):
        raise UsageError(
            f"--train-commit {config.train_commit!r} is not a git commit",
            hint="7 to 40 lower-case hex digits, or 'unknown'",
        )
    if config.overwrite and config.version is None:
        raise UsageError(
            "--overwrite needs --version, the one to replace", hint="without either, another model is the next version"
        )
    if not config.license.strip():
        raise UsageError("--license is empty", hint="an SPDX id such as Apache-2.0")


def _kind(config: RegisterConfig, exported: ModelSidecar) -> Kind:
    """What the inputs make it; a `--kind` must say the same."""
    kind: Kind = "fr" if exported.takes_reference else "nr"
    if config.kind not in (None, kind):
        has = "an input" if kind == "fr" else "no input"
        raise UsageError(
            f"--kind {config.kind}: model {exported.name!r} has {has} of the reference, so it is {kind!r}",
            hint="leave --kind out",
        )
    return kind


def _read_exported(config: RegisterConfig) -> ModelSidecar:
    """The exported sidecar, after everything it says of the head was found true."""
    sidecar = read_sidecar(sidecar_path(config.model))
    if sidecar.registered:
        raise UsageError(f"{str(config.model)!r} is a registered model", hint="give the file that `export` wrote")
    imported = [item.name for item in sidecar.inputs if item.feature_spec().imported]
    if imported:
        raise UsageError(
            f"model {sidecar.name!r} takes imported features ({', '.join(imported)}), which nothing here computes from "
            "a video, so it could not score one",
            hint="`vqa-train eval` measures the exported file on stored features",
        )
    random = [item.name for item in sidecar.inputs if item.feature_spec().random_seed is not None]
    if sidecar.descends_from_random_weights or random:
        raise ModelError(
            f"model {sidecar.name!r} descends from random weights{' of ' + ', '.join(random) if random else ''}",
            hint="those are for benchmarks and tests; extract with real weights and fit again",
        )
    head = OnnxModel(config.model, expected_sha256=sidecar.onnx.sha256)
    check_head(head, sidecar)
    replay_golden(head, sidecar)
    return sidecar


def _dataset(config: RegisterConfig, exported: ModelSidecar) -> dict[str, Any]:
    """What the model was fitted on, as the run recorded it; `--dataset` must name the same."""
    path = Path(config.dataset)
    if path.suffix in (".yaml", ".yml"):
        manifest = load_yaml(path, "dataset manifest")
        name = str(manifest.get("name")) if isinstance(manifest, dict) else ""
        version = manifest.get("version") if isinstance(manifest, dict) else None
        given = {"name": name, "version": str(version) if version else None, "manifest_sha256": sha256_file(path)}
    else:
        given = {"name": config.dataset}
    if exported.dataset is None:
        return given
    recorded = exported.dataset.model_dump()
    for key, value in given.items():
        if recorded[key] is not None and value != recorded[key]:
            raise UsageError(f"model {exported.name!r} was fitted on dataset {key} {recorded[key]!r}, got {value!r}")
    return recorded


def _metrics(path: Path, exported: ModelSidecar) -> dict[str, Any]:
    """An evaluation of this very model."""
    value = load_json(path, "metrics")
    schema = value.get("schema") if isinstance(value, dict) else None
    if not isinstance(value, dict) or schema != _EVAL_SCHEMA:
        raise UsageError(
            f"--metrics {str(path)!r} has schema {schema!r}, expected {_EVAL_SCHEMA!r}",
            hint="give what `vqa-train eval --json` wrote",
        )
    if value.get("model_sha256") != exported.onnx.sha256:
        raise UsageError(
            f"--metrics {str(path)!r} are of a model with sha256 {str(value.get('model_sha256'))[:12]}, "
            f"this one has {exported.onnx.sha256[:12]}",
            hint="evaluate this model",
        )
    return value


def _export_inputs(exported: ModelSidecar, staging: Path, log: Callable[[str], None]) -> list[dict[str, Any]]:
    """The inputs with the ONNX file (and tokenizer) of their backbone, each backbone exported once."""
    done: dict[str, dict[str, Any]] = {}
    for item in exported.inputs:
        if item.fingerprint not in done:
            done[item.fingerprint] = _export_one(item, staging, exported.onnx.opset, log)
    return [{**item.model_dump(mode="json"), **done[item.fingerprint]} for item in exported.inputs]


def _export_one(item: ModelInput, staging: Path, opset: int, log: Callable[[str], None]) -> dict[str, Any]:
    label = f"{item.backbone}@{item.fingerprint[:12]}"
    exported = export_backbone(item, staging / "backbones" / f"{label}.onnx", opset=opset)
    return pack_backbone(exported, label, staging, log)


def pack_backbone(exported: ExportedBackbone, label: str, staging: Path, log: Callable[[str], None]) -> dict[str, Any]:
    """The fields of a model input about its backbone, exported to `staging`/backbones/`label`.onnx; a large one moves
    to the cache of ONNX files."""
    file = f"backbones/{label}.onnx"
    path = staging / file
    cached = exported.onnx.bytes > LARGE_BYTES or exported.onnx.weights is not None
    if cached:
        kept = keep(path, exported.onnx.sha256, exported.onnx.weights)
        for large in (path, exported.onnx.weights):
            if large is not None:
                large.unlink()
        log(f"{label}: {exported.onnx.bytes / 1e6:.0f} MB, kept as {kept}")
    else:
        log(f"{label}: {exported.onnx.bytes / 1e6:.1f} MB")
    entry: dict[str, Any] = {
        "backbone_onnx": {
            "file": None if cached else file,
            "sha256": exported.onnx.sha256,
            "bytes": exported.onnx.bytes,
            "cached": cached,
            "inputs": dict(exported.inputs),
        }
    }
    if exported.tokenizer is not None:
        name = f"tokenizers/{label}.json"
        atomic_write_bytes(staging / name, exported.tokenizer)
        digest = sha256_bytes(exported.tokenizer)
        entry["tokenizer"] = {"file": name, "sha256": digest, "max_tokens": exported.max_tokens}
    return entry
