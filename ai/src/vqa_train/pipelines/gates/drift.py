"""check drift: are features in a store, or live scores, like those of the rows that a model was fitted on?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vqa_train.core.files import display_path
from vqa_train.core.plugins import needs
from vqa_train.core.provenance import file_entry
from vqa_train.pipelines.gates.drift_input import DriftInput
from vqa_train.pipelines.gates.drift_limits import DriftLimits
from vqa_train.pipelines.gates.drift_scores import score_checks
from vqa_train.pipelines.gates.live_scores import read_live_scores
from vqa_train.pipelines.gates.model import GateModel, open_model, provenance_of
from vqa_train.pipelines.gates.result import Check, GateReport
from vqa_train.registry.facts import TrainingStatistics
from vqa_train.store.store import FeatureStore

__all__ = ["DriftInput", "DriftLimits", "check_drift"]

_NO_STATISTICS = "the model's sidecar has no training statistics: fit and export it again"


def check_drift(
    model: str, what: DriftInput, limits: DriftLimits | None = None, *, registry: Path = Path("model")
) -> GateReport:
    """Hold features and scores against the training statistics of a model's sidecar.

    Args:
        model: reference of a registered model or an exported ONNX file.
        what: to look at.
        limits: None for the defaults.
        registry: folder of registry.json.

    Raises:
        UsageError: `what` contradicts itself, a file of scores that is none, or a text model over whole sets.
        ModelError: the model is missing, changed, or takes other features than the store has.
        StoreError: the store is missing or damaged, or has no rows.
    """
    what.check()
    limits = limits or DriftLimits()
    found = open_model(model, registry)
    statistics = found.sidecar.training_statistics
    provenance = provenance_of(
        "check drift",
        found,
        {
            "features": display_path(what.features) if what.features is not None else None,
            "datasets": list(what.datasets),
            "tag": what.tag,
            "rows": what.rows,
            "limits": limits.model_dump(mode="json"),
        },
    )
    checks: list[Check] = []
    details: dict[str, Any] = {}
    if statistics is None:
        checks.append(Check.not_run("training_statistics", _NO_STATISTICS))
    else:
        checks.append(_belongs(found, statistics))
        details["training"] = {"rows": statistics.rows, "groups": statistics.groups}
        if checks[0].verdict == "pass":
            if what.features is not None:
                with needs("check drift --features", "store"):
                    from vqa_train.pipelines.gates.drift_features import feature_checks
                some, more, inputs = feature_checks(found, statistics, FeatureStore.open(what.features), what, limits)
                checks += some
                details |= more
                provenance.inputs |= {name: file_entry(path, "dataset-manifest") for name, path in inputs.items()}
            if what.scores is not None:
                provenance.inputs["scores"] = file_entry(what.scores, "scores") if what.scores.is_file() else {}
                some, more = _live(found, statistics, what.scores, limits)
                checks += some
                details |= more
    return GateReport(
        gate="drift",
        model=found.label,
        model_sha256=found.sidecar.onnx.sha256,
        checks=checks,
        details=details,
        provenance=provenance.to_json(),
    )


def _belongs(model: GateModel, statistics: TrainingStatistics) -> Check:
    """Whether the statistics are of this model's inputs and targets."""
    sidecar = model.sidecar
    columns = {item.name: item.dim for item in sidecar.inputs}
    found = {name: len(entry.mean) for name, entry in statistics.inputs.items()}
    wrong = []
    if found != columns:
        wrong.append(f"they have inputs {found}, the model {columns}")
    if sorted(statistics.scores) != sorted(sidecar.targets):
        wrong.append(f"they have targets {sorted(statistics.scores)}, the model {sorted(sidecar.targets)}")
    if wrong:
        return Check.failed("training_statistics", "; ".join(wrong))
    return Check.passed("training_statistics", f"{statistics.rows} rows of {statistics.groups} contents")


def _live(
    model: GateModel, statistics: TrainingStatistics, path: Path, limits: DriftLimits
) -> tuple[list[Check], dict[str, Any]]:
    sidecar = model.sidecar
    live = read_live_scores(path, sidecar.targets, sidecar.onnx.sha256)
    others = sorted(live.models - {sidecar.onnx.sha256})
    if others:
        said = ", ".join(sha[:12] or "unknown" for sha in others)
        return [
            Check(
                "scores.model",
                "fail",
                f"{str(path)!r} has scores of another model: {said}",
                value=said,
                limit=sidecar.onnx.sha256[:12],
                relation="==",
            )
        ], {}
    checks, details = score_checks(sidecar, statistics, live.scores, range(len(live.scores)), limits, "videos")
    return [Check.passed("scores.model", "of this model", sidecar.onnx.sha256[:12]), *checks], {"live_scores": details}
