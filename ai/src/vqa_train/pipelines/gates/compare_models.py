"""compare-models: is one model better than another, or at least not worse, over the same rows of the same datasets?"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from vqa_train.core.config import StrictModel
from vqa_train.core.errors import UsageError
from vqa_train.core.files import display_path
from vqa_train.evaluation.rivals import Comparison
from vqa_train.evaluation.significance import holm
from vqa_train.pipelines.evaluate.compare import DEFAULT_METRICS, CompareResult, compare
from vqa_train.pipelines.evaluate.model import EvalResult, evaluate_model
from vqa_train.pipelines.gates.model import GateModel, open_model, provenance_of
from vqa_train.pipelines.gates.result import Check, GateReport
from vqa_train.pipelines.gates.unseen import unseen_check

_Units = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Margin = dict[str, _Units] | _Units


class CompareModelsLimits(StrictModel):
    """The gate file's section `compare_models`.

    Attributes:
        require: in every target and metric compared, `better`: the lower end of the first model's lead is above the
            margin, and the difference is significant; `not-worse`: the lower end of its lead is at least minus the
            margin; None: nothing is required.
        targets: compared; all that both have when empty.
        metrics: compared; `<name>_mapped` for after the logistic mapping.
        margin: in units of the metric, one for all or one per metric; 0 for one that is not named.
        alpha: of `better`, after Holm's correction over all that is compared; intervals have level 1 - alpha.
        min_rows: labelled rows that both score.
        min_coverage: share of the labelled rows that each model scores.
        resamples: of the paired bootstrap.
    """

    require: Literal["better", "not-worse"] | None = None
    targets: list[str] = Field(default_factory=list)
    metrics: list[str] = Field(default=list(DEFAULT_METRICS), min_length=1)
    margin: Margin = 0.0
    alpha: float = Field(default=0.05, gt=0, lt=1)
    min_rows: int = Field(default=10, ge=2)
    min_coverage: float = Field(default=0.99, ge=0, le=1)
    resamples: int = Field(default=2000, ge=1)

    @model_validator(mode="after")
    def _margins_of_metrics(self) -> Self:
        unknown = sorted(set(self.margin) - set(self.metrics)) if isinstance(self.margin, dict) else []
        if unknown:
            raise ValueError(f"margin names {unknown[0]!r}, which is not compared: {', '.join(self.metrics)}")
        return self

    def margin_of(self, metric: str) -> float:
        """Of one metric."""
        return self.margin.get(metric, 0.0) if isinstance(self.margin, dict) else self.margin


@dataclass(frozen=True, kw_only=True)
class MeasuredOn:
    """The rows that models are measured on; arguments of `evaluate_model`."""

    features: Path
    datasets: Sequence[str] = ()
    split: str = "test"
    data_root: Path | None = None
    manifests_dir: Path | None = None

    def evaluate(self, model: GateModel, predictions: Path | None = None) -> EvalResult:
        """What a model comes to on these rows; raises what `evaluate_model` raises."""
        return evaluate_model(
            model.label if model.registry is not None else str(model.head),
            registry=model.registry or Path("model"),
            features=self.features,
            datasets=self.datasets,
            split=self.split,
            data_root=self.data_root,
            manifests_dir=self.manifests_dir,
            predictions=predictions,
            resamples=0,
        )

    def to_json(self) -> dict[str, Any]:
        """JSON values for provenance."""
        return {"features": display_path(self.features), "datasets": list(self.datasets), "split": self.split}


@dataclass(frozen=True)
class Lead:
    """How far the first model is ahead in one target and metric; positive is better, whatever the metric.

    Attributes:
        comparison: as it was tested.
        value, low, high: of the lead, in units of the metric.
        p: after Holm's correction over everything compared.
    """

    comparison: Comparison
    value: float
    low: float
    high: float
    p: float

    @classmethod
    def of(cls, comparison: Comparison, p: float) -> Lead:
        """From the difference of the first less the second."""
        found = comparison.difference
        if comparison.higher_is_better:
            return cls(comparison, found.value, found.low, found.high, p)
        return cls(comparison, 0.0 - found.value, 0.0 - found.high, 0.0 - found.low, p)

    @property
    def name(self) -> str:
        """`target.metric`."""
        return f"{self.comparison.target}.{self.comparison.metric}"


@dataclass(frozen=True)
class CompareModelsResult:
    """The gate's report and the numbers behind it."""

    report: GateReport
    leads: tuple[Lead, ...]
    notes: tuple[str, ...] = field(default=())


def compare_models(
    first: str,
    second: str,
    limits: CompareModelsLimits,
    on: MeasuredOn,
    *,
    registry: Path = Path("model"),
) -> CompareModelsResult:
    """Run two models on the cached features of the same rows and test their difference by a paired bootstrap over
    rows, or over groups where there are such. Their inputs may differ.

    Args:
        first, second: references of registered models, or exported ONNX files.
        limits: what is required of the first model.
        on: the rows; the datasets that the first model was fitted on when none is named.
        registry: the folder that holds registry.json.

    Raises:
        ModelError: a model is missing, changed, or takes other features than the store has.
        UsageError: no dataset, no target or no row in common, an unknown split, target or metric, scores that run
            against each other.
        StoreError, ManifestError, LabelError: the data cannot be read.
    """
    models = {"A": open_model(first, registry), "B": open_model(second, registry)}
    _check_directions(models)
    own = models["A"].sidecar.dataset
    if not on.datasets and own is not None:
        on = MeasuredOn(**{**on.__dict__, "datasets": [d.name for d in models["A"].sidecar.datasets or [own]]})
    provenance = provenance_of("compare-models", models["A"], {**limits.model_dump(mode="json"), **on.to_json()})
    with tempfile.TemporaryDirectory() as folder:
        tables = {name: Path(folder) / f"{name}.parquet" for name in models}
        results = {name: on.evaluate(model, tables[name]) for name, model in models.items()}
        compared = compare(
            [f"{name}={table}" for name, table in tables.items()],
            targets=limits.targets,
            metrics=limits.metrics,
            split="all",
            resamples=limits.resamples,
            level=1 - limits.alpha,
        )
    found = list(compared.comparisons)
    corrected = holm([comparison.difference.p for comparison in found])
    leads = tuple(Lead.of(comparison, p) for comparison, p in zip(found, corrected, strict=True))
    required = limits.require is not None
    checks = [*(_rows(models, results, compared, limits, on.split) if required else ()), *_leads(leads, limits)]
    provenance.inputs |= results["A"].provenance["inputs"]
    provenance.inputs["second model"] = results["B"].provenance["inputs"]["model"]
    provenance.counts = {"in": results["A"].report.rows, "compared": compared.rows}
    warnings = [f"{name}: {warning}" for name, result in results.items() for warning in result.warnings]
    # The first ones only count the rows of each table.
    notes = (*warnings, *compared.notes[len(models) :])
    report = GateReport(
        gate="compare_models",
        model=models["A"].label,
        model_sha256=models["A"].sidecar.onnx.sha256,
        checks=checks,
        details={
            "models": {
                name: {"model": model.label, "model_sha256": model.sidecar.onnx.sha256}
                for name, model in models.items()
            },
            "rows": compared.rows,
            "resampled": compared.resampled,
            "level": 1 - limits.alpha,
            "correction": "Holm over the targets and metrics compared",
            "comparisons": [{**lead.comparison.to_json(), "p_holm": _number(lead.p)} for lead in leads],
            "notes": list(notes),
        },
        provenance=provenance.to_json(),
    )
    return CompareModelsResult(report, leads, notes)


def _check_directions(models: dict[str, GateModel]) -> None:
    one, other = models.values()
    if one.sidecar.direction != other.sidecar.direction:
        raise UsageError(
            f"scores of {one.label!r} are {one.sidecar.direction}, those of {other.label!r} {other.sidecar.direction}",
            hint="compare models whose scores run the same way",
        )


def _rows(
    models: dict[str, GateModel],
    results: dict[str, EvalResult],
    compared: CompareResult,
    limits: CompareModelsLimits,
    split: str,
) -> list[Check]:
    """Whether the rows are such that the comparison says anything."""
    checks = [Check.at_least("rows", compared.rows, limits.min_rows, "labelled rows that both models score")]
    for name, result in results.items():
        manifests = {
            str(entry.get("name") or key.removeprefix("dataset ")): str(entry["sha256"])
            for key, entry in result.provenance["inputs"].items()
            if key.startswith("dataset ")
        }
        checks.append(unseen_check(f"{name}.unseen", models[name].sidecar, manifests, split))
        shares = [
            found.n / (found.rows - found.missing_labels)
            for found in (result.report.result(target) for target in compared.targets)
            if found.rows > found.missing_labels
        ]
        worst = min(shares, default=math.nan)
        checks.append(
            Check.at_least(f"{name}.coverage", worst, limits.min_coverage, "share of the labelled rows with a score")
        )
    return checks


def _leads(leads: Sequence[Lead], limits: CompareModelsLimits) -> list[Check]:
    """One check per target and metric; without a requirement they say what was found."""
    checks = []
    for lead in leads:
        margin = limits.margin_of(lead.comparison.metric)
        said = f"lead {lead.value:+.4f} [{lead.low:+.4f}, {lead.high:+.4f}], p {lead.p:.4g}"
        if limits.require is None:
            checks.append(Check.passed(lead.name, f"{said}; nothing is required", lead.value))
        elif limits.require == "not-worse":
            checks.append(Check.at_least(lead.name, lead.low, 0.0 - margin, f"lower end of the lead; {said}"))
        elif lead.low > margin:
            checks.append(Check.at_most(lead.name, lead.p, limits.alpha, f"p of no difference; {said}"))
        else:
            checks.append(Check.failed(lead.name, f"A is not surely ahead by more than {margin:g}; {said}", lead.low))
    return checks


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
