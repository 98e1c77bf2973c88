"""quantize: an int8 version of a head, written only where its accuracy on held-out rows stays within a budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vqa_train import __version__
from vqa_train.core.config import StrictModel
from vqa_train.core.errors import UsageError
from vqa_train.core.files import display_path
from vqa_train.core.hashing import sha256_file, sha256_json
from vqa_train.core.provenance import RunProvenance, file_entry
from vqa_train.core.types import Video
from vqa_train.datasets.load import load_dataset
from vqa_train.onnx.quantise import METHODS, Method, Quantised, quantise
from vqa_train.onnx.runtime import OnnxModel
from vqa_train.pipelines.export.run import golden_rows
from vqa_train.pipelines.fit.data import with_splits
from vqa_train.pipelines.gates.model import GateModel, open_model, provenance_of
from vqa_train.pipelines.gates.quantize_accuracy import Accuracy, accuracies, coverage_note
from vqa_train.pipelines.gates.quantize_speed import milliseconds
from vqa_train.pipelines.gates.result import Check, GateReport
from vqa_train.pipelines.gates.unseen import unseen_check
from vqa_train.pipelines.models.check_head import check_head
from vqa_train.pipelines.models.replay import replay_golden
from vqa_train.pipelines.table import FeatureInput, Table, join
from vqa_train.registry.sidecar import ModelSidecar, OnnxFile, sidecar_path, write_sidecar
from vqa_train.store.store import FeatureStore

SPLITS = ("test", "val")
# An activation that rounds to the next int8 step on another CPU moves a score by about a step of its weights.
_GOLDEN_TOLERANCE = 2.5e-3


class QuantizeLimits(StrictModel):
    """The gate file's section `quantize`.

    Attributes:
        max_srocc_drop, max_plcc_drop: float minus int8, per target.
        max_rmse_rise: int8 minus float, as a share of the target's MOS range.
        max_coverage_drop: of the intervals, float minus int8; None for no limit.
        max_size: int8 file as a share of the float one.
        min_rows: labelled held-out rows per target.
        calibration_rows: training rows for "static", at most.
        allow_seen_rows: measure although the held-out rows took part in the fit, or nothing tells.
    """

    max_srocc_drop: float = Field(default=0.002, ge=0)
    max_plcc_drop: float = Field(default=0.002, ge=0)
    max_rmse_rise: float = Field(default=0.002, ge=0)
    max_coverage_drop: float | None = Field(default=None, ge=0)
    max_size: float = Field(default=0.5, gt=0)
    min_rows: int = Field(default=20, ge=2)
    calibration_rows: int = Field(default=512, ge=1)
    allow_seen_rows: bool = False


@dataclass(frozen=True, kw_only=True)
class QuantizeConfig:
    """What to quantise and on which rows.

    Attributes:
        model: reference of a registered model or an exported ONNX file.
        features: the store.
        output: the int8 file, X.onnx; X.json is written beside it.
        method: "dynamic" or "static".
        datasets: of the rows; those that the model was fitted on when empty.
        split: held-out rows, "test" or "val".
    """

    model: str
    features: Path
    output: Path
    method: str = "dynamic"
    datasets: Sequence[str] = ()
    split: str = "test"
    data_root: Path | None = None
    manifests_dir: Path | None = None
    registry: Path = Path("model")


@dataclass(frozen=True)
class _Rows:
    """Rows with features, held out and of training for the calibration; dataset -> sha256 of its manifest."""

    held_out: Table
    training: dict[str, NDArray[np.float32]]
    manifests: dict[str, str]


def quantize(config: QuantizeConfig, limits: QuantizeLimits) -> GateReport:
    """Quantise a model's head, measure it on held-out rows beside the original, and keep it if the budget holds.

    The int8 file gets a sidecar as `export` writes it, so that `register` takes it.

    Raises:
        UsageError: an unknown method or split, an output that is no .onnx or the model itself, no held-out rows.
        ModelError: the model is missing or changed, is int8 already, has nothing worth quantising, or takes other
            features than the store has.
    """
    _check_arguments(config)
    found = open_model(config.model, config.registry)
    sidecar = found.sidecar
    if sidecar.quantization is not None:
        raise UsageError(f"model {found.label!r} is quantised already", hint="name the one that it was made from")
    if config.output.absolute() == found.head.absolute():
        raise UsageError(f"--output {str(config.output)!r} is the model itself")
    head = OnnxModel(found.head, expected_sha256=sidecar.onnx.sha256, threads=1)
    check_head(head, sidecar)
    settings = {**limits.model_dump(), "method": config.method, "split": config.split}
    provenance = provenance_of("quantize", found, settings)
    rows = _rows(config, limits, found, provenance)
    candidate = config.output.with_suffix(".candidate.onnx")
    config.output.parent.mkdir(parents=True, exist_ok=True)
    try:
        made = quantise(
            found.head,
            candidate,
            _method(config.method),
            rows.training,
            metadata={"vqa_train.name": config.output.stem, "vqa_train.version": __version__},
        )
        small = OnnxModel(candidate, threads=1)
        measured = accuracies(sidecar, head, small, rows.held_out)
        checks = _checks(config, limits, sidecar, rows, made, measured)
        facts = _facts(config, sidecar, made, rows, measured)
        report = GateReport(
            gate="quantize",
            model=found.label,
            model_sha256=sidecar.onnx.sha256,
            checks=checks,
            details={
                "output": display_path(config.output),
                "written": all(check.verdict == "pass" for check in checks),
                "bytes": {"float": sidecar.onnx.bytes, "int8": made.bytes},
                "milliseconds": {
                    "float": milliseconds(head, rows.held_out),
                    "int8": milliseconds(small, rows.held_out),
                },
                **facts,
            },
            provenance=provenance.to_json(),
        )
        if report.verdict == "pass":
            _write(config, found, made, rows.held_out, facts, provenance)
    finally:
        candidate.unlink(missing_ok=True)
    return report


def _check_arguments(config: QuantizeConfig) -> None:
    if config.method not in METHODS:
        raise UsageError(f"unknown method {config.method!r}", hint=f"one of: {', '.join(METHODS)}")
    if config.split not in SPLITS:
        raise UsageError(f"split {config.split!r} is not held out", hint=f"one of: {', '.join(SPLITS)}")
    if config.output.suffix != ".onnx":
        raise UsageError(f"--output {str(config.output)!r} must end in .onnx")


def _method(name: str) -> Method:
    return "static" if name == "static" else "dynamic"


def _rows(config: QuantizeConfig, limits: QuantizeLimits, found: GateModel, provenance: RunProvenance) -> _Rows:
    """Held-out rows and, for "static", training rows in the order of a hash."""
    sidecar = found.sidecar
    own = sidecar.datasets or ([sidecar.dataset] if sidecar.dataset is not None else [])
    names = list(config.datasets) or [ref.name for ref in own]
    if not names:
        raise UsageError("no dataset named", hint="pass --dataset")
    videos: list[Video] = []
    manifests = {}
    for name in names:
        data = load_dataset(
            name, data_root=config.data_root, manifests_dir=config.manifests_dir, stores=[config.features]
        )
        manifests[data.manifest.name] = sha256_file(data.path)
        provenance.inputs[f"dataset {data.manifest.name}"] = file_entry(data.path, "dataset-manifest")
        videos += with_splits(data)
    provenance.inputs["store"] = {"path": display_path(config.features), "kind": "feature-store"}
    store = FeatureStore.open(config.features)
    inputs = {item.name: FeatureInput(set=item.fingerprint, output=item.output, of=item.of) for item in sidecar.inputs}
    missing: Literal["mask", "drop"] = "mask" if sidecar.optional_inputs else "drop"

    def table(split: str) -> Table:
        some = [video for video in videos if video.split == split]
        if not some:
            raise UsageError(f"no rows in split {split!r} of {', '.join(names)}")
        return join(some, store, inputs, sidecar.targets, missing=missing)

    training: dict[str, NDArray[np.float32]] = {}
    if config.method == "static":
        trained = table("train")
        order = sorted(range(len(trained.videos)), key=lambda i: sha256_json(["calibration", trained.videos[i].sha256]))
        chosen = np.asarray(order[: limits.calibration_rows])
        training = {name: array[chosen] for name, array in trained.arrays().items()}
    return _Rows(table(config.split), training, manifests)


def _checks(
    config: QuantizeConfig,
    limits: QuantizeLimits,
    sidecar: ModelSidecar,
    rows: _Rows,
    made: Quantised,
    measured: Sequence[Accuracy],
) -> list[Check]:
    checks = []
    if not limits.allow_seen_rows:
        checks.append(unseen_check("held-out", sidecar, rows.manifests, config.split))
    share = made.bytes / sidecar.onnx.bytes
    text = f"{sidecar.onnx.bytes / 1e6:.2f} MB to {made.bytes / 1e6:.2f} MB, {made.products} products in int8"
    checks.append(Check.at_most("size", share, limits.max_size, text))
    for one in measured:
        name = one.target
        checks += [
            Check.at_least(f"{name}.rows", one.rows, limits.min_rows, f"labelled rows of split {config.split!r}"),
            Check.at_most(f"{name}.srocc_drop", one.srocc_drop, limits.max_srocc_drop, one.words("srocc")),
            Check.at_most(f"{name}.plcc_drop", one.plcc_drop, limits.max_plcc_drop, one.words("plcc")),
            Check.at_most(
                f"{name}.rmse_rise", one.rmse_rise, limits.max_rmse_rise, f"{one.words('rmse')}, share of the MOS range"
            ),
        ]
        if limits.max_coverage_drop is not None and one.coverage_drop is not None:
            checks.append(
                Check.at_most(
                    f"{name}.coverage_drop", one.coverage_drop, limits.max_coverage_drop, one.words("coverage")
                )
            )
    return checks


def _facts(
    config: QuantizeConfig, sidecar: ModelSidecar, made: Quantised, rows: _Rows, measured: Sequence[Accuracy]
) -> dict[str, Any]:
    """What the sidecar keeps of the quantisation."""
    return {
        "method": config.method,
        "of": sidecar.onnx.sha256,
        "weights": made.weights,
        "products": made.products,
        "calibration_rows": len(next(iter(rows.training.values()), ())),
        "split": config.split,
        "datasets": rows.manifests,
        "targets": {one.target: one.to_json() for one in measured},
        "intervals": coverage_note(sidecar),
    }


def _write(
    config: QuantizeConfig,
    found: GateModel,
    made: Quantised,
    held_out: Table,
    facts: dict[str, Any],
    provenance: RunProvenance,
) -> None:
    """The file under its name and its sidecar, after its own golden rows were replayed."""
    sidecar = found.sidecar
    golden = golden_rows(made.path, held_out.arrays(), tolerance=max(_GOLDEN_TOLERANCE, sidecar.golden_rows.tolerance))
    inputs = [item.model_copy(update={"backbone_onnx": None, "tokenizer": None}) for item in sidecar.inputs]
    block = {**provenance.to_json(), "parent": sidecar.run_provenance}
    written = sidecar.model_copy(
        update={
            "name": config.output.stem,
            "version": "1",
            "registered": False,
            "kind": None,
            "license": None,
            "train_commit": None,
            "metrics": None,
            "card": None,
            "inputs": inputs,
            "onnx": OnnxFile(file=config.output.name, sha256=made.sha256, bytes=made.bytes, opset=made.opset),
            "golden_rows": golden,
            "quantization": facts,
            "run_provenance": block,
        }
    )
    written = ModelSidecar.model_validate(written.to_json())
    small = OnnxModel(made.path, expected_sha256=made.sha256, threads=1)
    check_head(small, written)
    replay_golden(small, written)
    made.path.replace(config.output)
    write_sidecar(sidecar_path(config.output), written)
