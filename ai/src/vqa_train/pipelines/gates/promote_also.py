"""Further gates that a gate file names for a promotion: each runs with its own section."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vqa_train.core.errors import VqaError
from vqa_train.pipelines.gates.compat import CompatLimits, check_compat
from vqa_train.pipelines.gates.config import resolve
from vqa_train.pipelines.gates.drift import DriftInput, check_drift
from vqa_train.pipelines.gates.drift_limits import DriftLimits
from vqa_train.pipelines.gates.ops import OpsLimits, check_ops
from vqa_train.pipelines.gates.parity import ParityLimits, check_parity
from vqa_train.pipelines.gates.promote_limits import AlsoGate
from vqa_train.pipelines.gates.promote_runs import Refit
from vqa_train.pipelines.gates.result import Check, GateReport

# The run that it was exported from is not at hand; its parity with torch is in the sidecar, and checked there.
_WITHOUT_RUN = ("providers", "backbones", "golden")


def also_checks(
    model: str, names: Sequence[AlsoGate], gates: Path | None, again: Refit, registry: Path
) -> tuple[list[Check], dict[str, Any]]:
    """One check per gate, with its verdict, and their documents.

    Args:
        model: NAME:VERSION.
        names: of the gates.
        gates: gate file with their sections; None for their defaults.
        again: where store and datasets are.
        registry: the folder that holds registry.json.

    Raises:
        ConfigError: a section of the gate file is malformed.
    """
    checks: list[Check] = []
    documents: dict[str, Any] = {}
    for name in dict.fromkeys(names):
        try:
            report = _run(name, model, gates, again, registry)
        except VqaError as error:
            checks.append(Check.not_run(f"also.{name}", str(error)))
            continue
        wrong = [check for check in report.checks if check.verdict != "pass"]
        words = "; ".join(f"{check.name}: {check.message}" for check in wrong[:3])
        checks.append(Check(f"also.{name}", report.verdict, words or f"{len(report.checks)} checks"))
        documents[name] = report.to_json()
    return checks, documents


def _run(name: AlsoGate, model: str, gates: Path | None, again: Refit, registry: Path) -> GateReport:
    if name == "compat":
        limits = resolve(CompatLimits, name, gates, {})
        return check_compat(model, limits, features=again.features, registry=registry)
    if name == "ops":
        return check_ops(model, resolve(OpsLimits, name, gates, {}), registry=registry)
    if name == "parity":
        parity = resolve(ParityLimits, name, gates, {})
        return check_parity(model, parity, registry=registry, features=again.features, parts=_WITHOUT_RUN)
    what = DriftInput(
        features=again.features,
        datasets=again.datasets,
        data_root=again.data_root,
        manifests_dir=again.manifests_dir,
    )
    return check_drift(model, what, resolve(DriftLimits, name, gates, {}), registry=registry)
