"""promote: N seeds x folds of a model's recipe against a gate file; PROMOTE moves the alias `champion`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vqa_train.core.errors import ModelError, UsageError, VqaError
from vqa_train.core.files import atomic_write_json, display_path
from vqa_train.core.hashing import sha256_file
from vqa_train.core.provenance import RunProvenance, file_entry
from vqa_train.pipelines.fit.data import FitData, load_fit_data
from vqa_train.pipelines.gates.corpus import Corpus, corpus_of
from vqa_train.pipelines.gates.promote_also import also_checks
from vqa_train.pipelines.gates.promote_champion import against_champion
from vqa_train.pipelines.gates.promote_integrity import chain_checks, sidecar_checks
from vqa_train.pipelines.gates.promote_limits import PromoteLimits
from vqa_train.pipelines.gates.promote_numbers import belong_together, held_to_limits, over_seeds
from vqa_train.pipelines.gates.promote_recipe import dump, fit_block, protocol_for, recipe_of, seeds_matter
from vqa_train.pipelines.gates.promote_runs import Evidence, Refit, read_evidence
from vqa_train.pipelines.gates.result import Check, GateReport
from vqa_train.pipelines.gates.unseen import changed_manifests
from vqa_train.registry.locate import policy
from vqa_train.registry.reference import CHAMPION, ModelRef
from vqa_train.registry.registry import ModelRegistry
from vqa_train.registry.sidecar import ModelSidecar

PROMOTE, HOLD = "PROMOTE", "HOLD"
FOLDER = "promotions"
"""Beside the versions of a model: one document per decision."""


@dataclass(frozen=True, kw_only=True)
class PromoteRequest:
    """What to promote, on which data.

    Attributes:
        model: NAME (the version registered last) or NAME:VERSION.
        features: the store.
        registry: the folder that holds registry.json.
        datasets: names or paths; those that the candidate was fitted on when empty.
        data_root, manifests_dir: as `fit` takes them.
        runs: finished run folders of the recipe, one per seed, instead of fitting it again.
        output: folder of the run folders that are made; None for runs/promote/NAME-VERSION.
        gates: gate file, for the sections of further gates.
        dry_run: decide, but move no alias and write nothing into the registry.
        device, threads: as `FitOptions` has them.
    """

    model: str
    features: Path
    registry: Path = Path("model")
    datasets: Sequence[str] = ()
    data_root: Path | None = None
    manifests_dir: Path | None = None
    runs: Sequence[Path] = ()
    output: Path | None = None
    gates: Path | None = None
    dry_run: bool = False
    device: str = "cpu"
    threads: int = 1


@dataclass(frozen=True)
class Promotion:
    """The decision.

    Attributes:
        report: of the gate, with every number.
        document: where it was written; None with `dry_run`.
        moved: whether the alias moved.
    """

    report: GateReport
    document: Path | None = None
    moved: bool = False

    @property
    def decision(self) -> str:
        """`PROMOTE` or `HOLD`."""
        return decision_of(self.report)


def decision_of(report: GateReport) -> str:
    """`PROMOTE` where every check passed."""
    return PROMOTE if report.verdict == "pass" else HOLD


def promote(
    request: PromoteRequest, limits: PromoteLimits, *, say: Callable[[str], None] = lambda _: None
) -> Promotion:
    """Decide whether a registered model becomes the champion, and move the alias if so.

    The model's recipe, out of its own provenance, is fitted again under `limits.seeds` seeds and measured on the
    held-out rows of a protocol; or finished runs are taken. A failure to load the data or to fit is an error, no
    verdict. Interrupted, finished seeds are kept: the same request goes on.

    Raises:
        UsageError: no such name, or arguments that do not go together.
        ModelError: no such model or version; or the registry changed while this ran, so nothing was moved.
        ConfigError: limits of unknown targets, a protocol without folds or that does not fit the rows.
        RunError, StoreError, ManifestError, LabelError: the data or the runs cannot be used.
    """
    registry = ModelRegistry(request.registry, require_signature=policy([*limits.require_signature]))
    ref = _version(registry, request.model)
    before = registry.models()[ref.name]
    job = _Job(request, limits, registry, ref, say)
    report = job.decide()
    if request.dry_run:
        return Promotion(report)
    document = _write(request.registry / ref.name / FOLDER, str(ref.version), report)
    if report.verdict != "pass":
        return Promotion(report, document)
    with registry.locked():
        if registry.models().get(ref.name) != before:
            raise ModelError(
                f"model {ref.name!r} changed in the registry while it was judged, so no alias was moved",
                hint="run promote again; finished seeds are kept",
            )
        moved = registry.move_alias(ref.name, CHAMPION, ref.version, by="promote", evidence=sha256_file(document))
    return Promotion(report, document, moved is not None)


def _version(registry: ModelRegistry, model: str) -> ModelRef:
    """The version that is meant: NAME alone is the one registered last, for the champion needs no promotion."""
    ref = ModelRef.parse(model)
    if ref.version is None and ref.alias is None:
        registry.resolve(ref)
        return ModelRef(ref.name, version=registry.models()[ref.name].in_order()[-1])
    name, version = registry.resolve(ref)
    return ModelRef(name, version=version)


def _same_rows(sidecar: ModelSidecar, data: FitData) -> list[Check]:
    """Whether as many records have features as at the candidate's fit, and its folds are these where it had such."""
    counts = fit_block(sidecar).get("counts") or {}
    then = [counts.get("in"), counts.get("without_features")]
    checks = []
    if None not in then:
        found = [data.records, len(data.table.without_features)]
        words = "records, and those without features, against the candidate's fit"
        checks.append(Check.equal("corpus.records", "{}, {}".format(*found), "{}, {}".format(*then), words))
    own = sidecar.protocol
    if own is not None and own.protocol == data.plan.protocol.model_dump(mode="json"):
        words = "splits of the candidate's own protocol"
        checks.append(Check.equal("corpus.splits", data.plan.sha256[:12], own.splits_sha256[:12], words))
    return checks


def _write(folder: Path, version: str, report: GateReport) -> Path:
    """The document, named by its own hash."""
    folder.mkdir(parents=True, exist_ok=True)
    unnamed = folder / f".{version}.json"
    atomic_write_json(unnamed, report.to_json())
    return unnamed.replace(folder / f"{version}-{sha256_file(unnamed)[:12]}.json")


@dataclass
class _Job:
    """One promotion: its checks and details as they come up."""

    request: PromoteRequest
    limits: PromoteLimits
    registry: ModelRegistry
    ref: ModelRef
    say: Callable[[str], None]

    def __post_init__(self) -> None:
        self.checks: list[Check] = []
        self.details: dict[str, Any] = {}
        self.provenance = RunProvenance(
            entrypoint="promote",
            config={
                "model": str(self.ref),
                "limits": self.limits.model_dump(mode="json"),
                "features": display_path(self.request.features),
                "datasets": list(self.request.datasets),
                "runs": [display_path(run) for run in self.request.runs],
            },
            device=self.request.device,
        )
        if self.request.gates is not None:
            self.provenance.inputs["gates"] = file_entry(self.request.gates, "gate-file")

    def decide(self) -> GateReport:
        """Every check, in order; what cannot go on stops with the checks so far, which then hold."""
        self.checks += chain_checks(self.registry, str(self.ref))
        try:
            sidecar, folder = self.registry.find(self.ref)
        except ModelError as error:
            # Without a sidecar to trust there is no recipe; the chain has failed already.
            self.checks.append(Check.not_run("recipe", error.message))
            return self._report(None)
        self.provenance.inputs["model"] = file_entry(folder / sidecar.onnx.file, "onnx-model")
        self.checks += sidecar_checks(sidecar)
        targets = self.limits.chosen(sidecar.targets)
        again = self._recipe(sidecar)
        if again is None:
            return self._report(sidecar)
        data = load_fit_data(
            again.config,
            features=self.request.features,
            datasets=list(again.datasets),
            data_root=self.request.data_root,
            manifests_dir=self.request.manifests_dir,
        )
        corpus = corpus_of(data)
        self._corpus(sidecar, data, corpus)
        evidence = self._evidence(again, data, corpus)
        if not evidence:
            return self._report(sidecar)
        random = seeds_matter(again.config)
        self.checks += belong_together(evidence, dump(again.config), corpus, random=random)
        self.checks += held_to_limits(evidence, self.limits, targets, random=random)
        self.details |= {
            "protocol": evidence[0].record.protocol,
            "splits_sha256": evidence[0].plan.sha256,
            "seeds": [one.to_json() for one in evidence],
            "over_seeds": over_seeds(evidence, targets),
        }
        champion = against_champion(self.registry, self.ref, evidence, again, self.limits, targets)
        self.checks += champion.checks
        self.details["champion"] = champion.details or None
        checks, documents = also_checks(str(self.ref), self.limits.also, self.request.gates, again, self.registry.root)
        self.checks += checks
        self.details["also"] = documents
        return self._report(sidecar)

    def _report(self, sidecar: ModelSidecar | None) -> GateReport:
        self.provenance.counts = {"in": self.limits.seeds, "seeds": len(self.details.get("seeds", []))}
        report = GateReport(
            gate="promote",
            model=str(self.ref),
            model_sha256=sidecar.onnx.sha256 if sidecar is not None else None,
            checks=tuple(self.checks),
            provenance=self.provenance.to_json(),
        )
        return replace(report, details={"decision": decision_of(report), **self.details})

    def _recipe(self, sidecar: ModelSidecar) -> Refit | None:
        """How the candidate's recipe is fitted again; None, with a check that says why, where it is not known."""
        try:
            config = recipe_of(sidecar)
        except VqaError as error:
            self.checks.append(Check.failed("recipe", str(error)))
            return None
        if "init" in (fit_block(sidecar).get("inputs") or {}):
            self.checks.append(
                Check.not_run("recipe.init", "it was fitted from another run's weights, which is not done again here")
            )
        int8 = "; measured in floating point, what int8 costs is in the sidecar" if sidecar.quantization else ""
        self.checks.append(Check.passed("recipe", f"sha256 {sidecar.train_config_hash[:12]}{int8}"))
        config = config.model_copy(update={"protocol": protocol_for(config, self.limits.protocol)})
        request = self.request
        return Refit(
            config=config,
            features=request.features,
            datasets=tuple(request.datasets) or tuple(config.datasets),
            output=request.output or Path("runs") / "promote" / f"{self.ref.name}-{self.ref.version}",
            label=str(self.ref),
            data_root=request.data_root,
            manifests_dir=request.manifests_dir,
            device=request.device,
            threads=request.threads,
            say=self.say,
        )

    def _corpus(self, sidecar: ModelSidecar, data: FitData, corpus: Corpus) -> None:
        """Whether the labels are those that the candidate was fitted on, and enough of them have features."""
        manifests = {found.manifest.name: found.sha256 for found in data.datasets}
        refs = sidecar.datasets or ([sidecar.dataset] if sidecar.dataset is not None else [])
        fitted = sorted(ref.name for ref in refs)
        changed = changed_manifests(sidecar, manifests)
        if sorted(manifests) != fitted:
            message = f"the candidate was fitted on {', '.join(fitted)}, this is {', '.join(sorted(manifests))}"
        else:
            message = f"another manifest or labels than at the fit: {', '.join(changed)}" if changed else ""
        self.checks.append(
            Check.failed("corpus", message) if message else Check.passed("corpus", f"sha256 {corpus.sha256[:12]}")
        )
        self.checks += _same_rows(sidecar, data)
        videos = [video for found in data.datasets for video in found.videos]
        labelled = sum(any(target in video.labels for target in corpus.targets) for video in videos)
        share = len(corpus.rows) / labelled if labelled else 0.0
        self.checks.append(
            Check.at_least("coverage", share, self.limits.min_coverage, f"of {labelled} labelled records have features")
        )
        self.details["corpus"] = {
            "sha256": corpus.sha256,
            "rows": len(corpus.rows),
            "targets": list(corpus.targets),
            "manifests": manifests,
        }

    def _evidence(self, again: Refit, data: FitData, corpus: Corpus) -> list[Evidence]:
        """One run per seed; none, with a check that says why, where a given run cannot be trusted."""
        if not self.request.runs:
            return [
                again.seed(number, splits_sha256=data.plan.sha256, corpus_sha256=corpus.sha256)
                for number in range(self.limits.seeds)
            ]
        evidence, trusted = [], True
        for number, folder in enumerate(self.request.runs):
            if not folder.is_dir():
                raise UsageError(f"--runs {str(folder)!r} is no folder", hint="name run folders of `vqa-train fit`")
            name = f"run-{number}"
            try:
                evidence.append(read_evidence(name, folder))
            except VqaError as error:
                self.checks.append(Check.failed(f"runs.{name}", str(error)))
                trusted = False
        return evidence if trusted else []
