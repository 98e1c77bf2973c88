"""check parity: the head against torch, graphs against themselves behind every provider, golden rows replayed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vqa_train.core.config import StrictModel
from vqa_train.core.errors import DependencyError, ModelError, UsageError, VqaError
from vqa_train.core.plugins import did_you_mean, needs
from vqa_train.core.provenance import file_entry
from vqa_train.onnx.parity import row_sets
from vqa_train.onnx.providers import PROVIDERS, installed
from vqa_train.onnx.runtime import OnnxModel
from vqa_train.pipelines.gates.golden import golden_inputs
from vqa_train.pipelines.gates.model import GateModel, open_model, provenance_of
from vqa_train.pipelines.gates.parity_backbones import backbone_probes
from vqa_train.pipelines.gates.parity_compare import Compared, Provided, compare_graphs
from vqa_train.pipelines.gates.result import Check, GateReport
from vqa_train.pipelines.models.check_head import check_head
from vqa_train.pipelines.models.replay import replay_golden
from vqa_train.registry.sidecar import HIGH, LOW, ModelSidecar

Rows = dict[str, NDArray[np.float32]]

PARTS = ("torch", "providers", "backbones", "golden")
_STORE_ROWS = 256
# Of the scale of the labels: about one standard deviation of them.
_DEVIATION = 0.25


class ParityLimits(StrictModel):
    """The gate file's section `parity`: largest scaled difference per provider, and for torch.

    A difference of the head counts against the labels' standard deviation (without the run, a quarter of the MOS
    range) or the score where that is larger. One of a backbone counts against the largest size of its feature over
    the probes, at least 0.1. `tolerance_int8` is the least that a quantised head is held to: an activation that
    rounds to the next step moves a score by more than float32 does.
    """

    tolerance_torch: float = Field(default=1e-5, gt=0)
    tolerance_cpu: float = Field(default=1e-5, gt=0)
    tolerance_cuda: float = Field(default=1e-3, gt=0)
    tolerance_tensorrt: float = Field(default=1e-3, gt=0)
    tolerance_openvino: float = Field(default=1e-3, gt=0)
    tolerance_int8: float = Field(default=0.02, gt=0)
    backbone_tolerance_cpu: float = Field(default=1e-4, gt=0)
    backbone_tolerance_cuda: float = Field(default=1e-2, gt=0)
    backbone_tolerance_tensorrt: float = Field(default=1e-2, gt=0)
    backbone_tolerance_openvino: float = Field(default=1e-2, gt=0)

    def head(self, provider: str, *, quantised: bool) -> float:
        """Limit of the head behind a provider."""
        limit = float(getattr(self, f"tolerance_{provider}"))
        return max(limit, self.tolerance_int8) if quantised else limit

    def backbone(self, provider: str) -> float:
        """Limit of a backbone behind a provider."""
        return float(getattr(self, f"backbone_tolerance_{provider}"))


def check_parity(
    model: str,
    limits: ParityLimits,
    *,
    registry: Path = Path("model"),
    checkpoint: Path | None = None,
    providers: Sequence[str] = (),
    parts: Sequence[str] = (),
    features: Path | None = None,
) -> GateReport:
    """Compare a model with torch, with itself behind every provider, and with its golden rows.

    Args:
        model: reference of a registered model or an exported ONNX file.
        limits: tolerances.
        checkpoint: the run folder that the model was exported from; without it `torch` is not run.
        providers: short names, each of which must work; none for every installed one.
        parts: of `PARTS`; none for all, `backbones` of registered models only.
        features: a store for real rows; without it and without a run they are the golden rows.

    Raises:
        UsageError: an unknown provider or part.
        ModelError: the model is missing, its sidecar was changed, or it has no rows to compare on.
        StoreError: the store lacks the model's features.
        RunError: `checkpoint` is not a run folder.
    """
    _refuse_unknown(providers, tuple(PROVIDERS), "provider")
    _refuse_unknown(parts, PARTS, "part")
    found = open_model(model, registry)
    chosen = list(parts) or [part for part in PARTS if part != "backbones" or found.sidecar.registered]
    names = list(dict.fromkeys(["cpu", *(providers or installed())]))
    config = {**limits.model_dump(), "providers": names, "parts": chosen}
    provenance = provenance_of("check parity", found, config)
    checks: list[Check] = []
    details: dict[str, Any] = {"providers": {}, "sets": []}
    head = _open_head(found, checks)
    if head is not None:
        rows, details["rows"] = _real_rows(found.sidecar, checkpoint, features)
        if "torch" in chosen:
            checks += _torch(found, head, limits, checkpoint, rows, details)
            if checkpoint is not None:
                provenance.inputs["run"] = file_entry(checkpoint / "run.json", "run")
        if "providers" in chosen:
            checks += _providers(found, names, limits, rows, details)
        if "backbones" in chosen:
            checks += _backbones(found, names, limits, details)
        if "golden" in chosen:
            checks.append(_golden(head, found.sidecar))
    return GateReport(
        gate="parity",
        model=found.label,
        model_sha256=found.sidecar.onnx.sha256,
        checks=checks,
        details=details,
        provenance=provenance.to_json(),
    )


def _refuse_unknown(given: Sequence[str], known: Sequence[str], what: str) -> None:
    for name in given:
        if name not in known:
            raise UsageError(f"unknown {what} {name!r}", hint=did_you_mean(name, list(known)))


def _open_head(found: GateModel, checks: list[Check]) -> OnnxModel | None:
    """The head as it ships, after its bytes and its interface were found to be what the sidecar says."""
    try:
        head = OnnxModel(found.head, expected_sha256=found.sidecar.onnx.sha256, threads=1)
        checks.append(Check.passed("head.file", "bytes are those of the sidecar"))
    except ModelError as error:
        checks.append(Check.failed("head.file", str(error)))
        return None
    try:
        check_head(head, found.sidecar)
        checks.append(Check.passed("head.interface", "inputs, outputs, opset and intervals are those of the sidecar"))
    except ModelError as error:
        checks.append(Check.failed("head.interface", str(error)))
        return None
    return head


def _real_rows(sidecar: ModelSidecar, checkpoint: Path | None, features: Path | None) -> tuple[Rows, str]:
    """Rows of the store, of the run, or else the golden ones; and which of them."""
    if features is not None:
        with needs("reading a feature store", "store"):
            from vqa_train.pipelines.gates.rows import store_rows
        return store_rows(sidecar, features, _STORE_ROWS), "store"
    if checkpoint is not None and (checkpoint / "rows.safetensors").is_file():
        try:
            from vqa_train.pipelines.export.graph import read_rows

            rows = read_rows(checkpoint)
            if {name: m.shape[1:] for name, m in rows.items()} == {i.name: tuple(i.dims) for i in sidecar.inputs}:
                return rows, "run"
        except (ModuleNotFoundError, VqaError):
            pass  # the torch part says so
    return golden_inputs(sidecar), "golden"


def _torch(
    found: GateModel,
    head: OnnxModel,
    limits: ParityLimits,
    checkpoint: Path | None,
    rows: Rows,
    details: dict[str, Any],
) -> list[Check]:
    if found.sidecar.quantization is not None:
        return [Check.not_run("torch", "the model is quantised: check the one that it was made from")]
    if checkpoint is None:
        return [Check.not_run("torch", "no run folder: --checkpoint RUN, or name the other parts with --only")]
    try:
        from vqa_train.pipelines.gates.parity_torch import compare_with_run

        checks, sets = compare_with_run(found, head, limits.tolerance_torch, checkpoint, rows)
    except DependencyError as error:
        return [Check.not_run("torch", str(error))]
    details["sets"] += [one.to_json() for one in sets]
    return checks


def _providers(
    found: GateModel, names: Sequence[str], limits: ParityLimits, rows: Rows, details: dict[str, Any]
) -> list[Check]:
    sidecar = found.sidecar
    missing = any(entry.get("name") == "missing" for entry in sidecar.parity.get("sets", []))
    sets = row_sets(rows, sidecar.onnx.sha256, missing=missing)
    reference = OnnxModel(found.head, expected_sha256=sidecar.onnx.sha256, threads=1, optimised=False)
    expected = {name: reference.run(inputs) for name, inputs in sets.items()}
    constant = _constant(expected["random"]["scores"])
    if constant is not None:
        return [Check.failed("head.scores", f"target {sidecar.targets[constant]!r} is the same for all random rows")]
    bounded = sidecar.calibration.half_widths if sidecar.calibration is not None else {}
    unbounded = tuple(end for end in (LOW, HIGH) if any(target not in bounded for target in sidecar.targets))
    checks = []
    for name in names:
        graph = Provided("head", name, found.head, sidecar.onnx.sha256)
        found_checks, compared = compare_graphs(
            graph,
            sets,
            expected,
            limits.head(name, quantised=sidecar.quantization is not None),
            floor=_floor(sidecar),
            unbounded=unbounded,
        )
        checks += found_checks
        _keep(details, graph, compared)
    return checks


def _backbones(found: GateModel, names: Sequence[str], limits: ParityLimits, details: dict[str, Any]) -> list[Check]:
    if not found.backbones:
        return [Check.not_run("backbones", "the model has no backbone graphs: it is not registered")]
    checks: list[Check] = []
    for label, item in found.backbones.items():
        onnx = item.backbone_onnx
        if onnx is None:
            continue
        try:
            path = found.backbone_file(item)
            reference = OnnxModel(path, expected_sha256=onnx.sha256, optimised=False)
            probes = backbone_probes(found, item, reference)
            rows = [reference.run(inputs) for inputs in probes]
        except VqaError as error:
            checks.append(Check.failed(f"{label}.file", str(error)))
            continue
        checks.append(Check.passed(f"{label}.file", "bytes are those of the sidecar"))
        for name in names:
            graph = Provided(label, name, path, onnx.sha256)
            found_checks, compared = compare_graphs(
                graph,
                {f"probe {i}": inputs for i, inputs in enumerate(probes)},
                {f"probe {i}": outputs for i, outputs in enumerate(rows)},
                limits.backbone(name),
                per_feature=True,
            )
            checks += found_checks
            _keep(details, graph, compared)
    return checks


def _golden(head: OnnxModel, sidecar: ModelSidecar) -> Check:
    golden = sidecar.golden_rows
    try:
        replay_golden(head, sidecar)
    except ModelError as error:
        return Check.failed("golden.rows", str(error))
    return Check.passed("golden.rows", f"{len(golden.scores)} rows within {golden.tolerance:.3g}", len(golden.scores))


def _constant(scores: NDArray[Any]) -> int | None:
    """A column that is the same for all rows: a comparison of it could hardly fail."""
    same = np.flatnonzero(np.ptp(scores, axis=0) == 0)
    return int(same[0]) if len(scores) > 1 and len(same) else None


def _floor(sidecar: ModelSidecar) -> dict[str, NDArray[Any]]:
    """What a difference counts against at least, per output (K,)."""
    spans = [sidecar.mos_range[target] for target in sidecar.targets]
    deviation = np.asarray([_DEVIATION * (high - low) for low, high in spans])
    widest = np.ones(len(deviation))
    if sidecar.calibration is not None and sidecar.calibration.normalised:
        widest += [sidecar.calibration.half_widths.get(target, 0.0) for target in sidecar.targets]
    return {name: deviation * (widest if name in (LOW, HIGH) else 1) for name in sidecar.output_names}


def _keep(details: dict[str, Any], graph: Provided, compared: Compared) -> None:
    details["sets"] += [one.to_json() for one in compared.sets]
    details["providers"].setdefault(graph.provider, {})[graph.label] = dict(compared.nodes)
