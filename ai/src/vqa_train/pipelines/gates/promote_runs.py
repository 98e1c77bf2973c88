"""The evidence of a promotion: run folders of one recipe under several seeds, each verified and measured anew."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vqa_train.core.config import load_json
from vqa_train.core.errors import RunError, VqaError
from vqa_train.core.files import display_path
from vqa_train.core.provenance import package_versions
from vqa_train.datasets.protocols import SplitPlan, read_plan
from vqa_train.evaluation.summary import FoldMetrics, Summary, fold_metrics, summarise
from vqa_train.pipelines import runs
from vqa_train.pipelines.evaluate.table import numbers, read_table, texts
from vqa_train.pipelines.fit.run import FitConfig, FitOptions, fit, partial_folder
from vqa_train.pipelines.gates.corpus import Corpus, corpus_of_run, leaks
from vqa_train.pipelines.gates.promote_recipe import dump, with_seed

REPORTED = ("srocc", "plcc", "rmse")
_SAME = 1e-6
_PACKAGES = ("vqa-train", "torch", "numpy", "scikit-learn")


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """One run folder, found intact.

    Attributes:
        name: for reports.
        folder, record: of the run.
        plan: its splits.
        corpus: its labelled rows.
        summary: target -> metric -> over the folds, measured from the held-out predictions.
        leaks: what stands on both sides of a fold, in words.
        coverage: target -> share of held-out labels inside the prediction intervals; NaN where there are none.
    """

    name: str
    folder: Path
    record: runs.RunRecord
    plan: SplitPlan
    corpus: Corpus
    summary: Mapping[str, Mapping[str, Summary]]
    leaks: Sequence[str]
    coverage: Mapping[str, float]

    @property
    def seeds(self) -> list[int]:
        """Of the first head of each member."""
        return [member.seeds[0] for member in self.record.members]

    def value(self, target: str, metric: str) -> float:
        """Median over the folds; NaN where a fold has no value, as of a constant prediction."""
        found = self.summary[target][metric]
        return math.nan if found.undefined else found.median

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "name": self.name,
            "run": display_path(self.folder),
            "run_id": self.record.run_provenance.get("run_id"),
            "config_sha256": self.record.config_sha256,
            "seeds": self.seeds,
            "protocol": self.record.protocol,
            "splits_sha256": self.record.splits_sha256,
            "folds": len(self.plan.folds),
            "corpus_sha256": self.corpus.sha256,
            "metrics": {
                target: {metric: found[metric].to_json() for metric in REPORTED}
                for target, found in self.summary.items()
            },
            "interval_coverage": {t: value if math.isfinite(value) else None for t, value in self.coverage.items()},
            "leaks": list(self.leaks),
        }


def read_evidence(name: str, folder: Path) -> Evidence:
    """Open a run folder with held-out folds, and measure its predictions anew.

    Raises:
        RunError: it is unfinished or changed, has no held-out folds, its predictions are of other rows than its splits
            hold out, or its numbers are not those of its predictions.
        ConfigError: a file of it is malformed or changed.
        UsageError: a table of it lacks a column.
    """
    record = runs.open_run(folder)
    if runs.HELD_OUT_FILE not in record.files or runs.PROTOCOL_FILE not in record.files:
        raise RunError(f"run {str(folder)!r} has no held-out folds", hint="fit with --protocol kfold:k=5 or the like")
    plan = read_plan(folder / runs.SPLITS_FILE)
    if plan.sha256 != record.splits_sha256:
        raise RunError(
            f"run {str(folder)!r} has splits with sha256 {plan.sha256[:12]}, run.json says {record.splits_sha256[:12]}",
            hint="fit again",
        )
    corpus = corpus_of_run(folder, record.targets)
    measured = _measure(folder, record, plan)
    _check_report(folder, measured)
    cells = {fold.name: fold.cell for fold in plan.folds}
    across = [m for fold, m in measured.items() if (cell := cells[fold]) is None or cell[0] != cell[1]]
    return Evidence(
        name=name,
        folder=folder,
        record=record,
        plan=plan,
        corpus=corpus,
        summary=summarise(across),
        leaks=leaks(plan, corpus),
        coverage=_coverage(record),
    )


def _measure(folder: Path, record: runs.RunRecord, plan: SplitPlan) -> dict[str, FoldMetrics]:
    """Fold -> metrics of its held-out rows, which must be those that the splits hold out."""
    path = folder / runs.HELD_OUT_FILE
    frame = read_table(path)
    folds, datasets, ids = (texts(frame, column, path) for column in ("fold", "dataset", "id"))
    predicted = np.stack([numbers(frame, f"predicted_{target}", path) for target in record.targets], axis=1)
    labels = np.stack([numbers(frame, target, path) for target in record.targets], axis=1)
    of_fold: dict[str, list[int]] = {}
    for row, name in enumerate(folds):
        of_fold.setdefault(name, []).append(row)
    measured = {}
    for fold in plan.folds:
        rows = of_fold.pop(fold.name, [])
        expected = sorted((plan.rows[i].dataset, plan.rows[i].id) for i in fold.test.tolist())
        if sorted((datasets[row], ids[row]) for row in rows) != expected:
            raise RunError(
                f"run {str(folder)!r}: the predictions of fold {fold.name!r} are of other rows than its splits say",
                hint="fit again",
            )
        measured[fold.name] = fold_metrics(predicted[rows], labels[rows], record.targets)
    if of_fold:
        raise RunError(f"run {str(folder)!r} has predictions of fold {next(iter(of_fold))!r}, which its splits lack")
    return measured


def _check_report(folder: Path, measured: Mapping[str, FoldMetrics]) -> None:
    """Whether protocol.json says of every fold what its predictions come to."""
    path = folder / runs.PROTOCOL_FILE
    report = load_json(path, "protocol report")
    try:
        claimed = {fold["name"]: fold["metrics"] for fold in report["folds"]}
        for fold, metrics in measured.items():
            for target, values in metrics.items():
                for metric in REPORTED:
                    said = claimed[fold][target][metric]
                    one, other = values[metric], math.nan if said is None else float(said)
                    if not (abs(one - other) <= _SAME or (math.isnan(one) and math.isnan(other))):
                        raise RunError(
                            f"{str(path)!r} says {metric} {other:.4f} of {target} in fold {fold!r}, the predictions "
                            f"come to {one:.4f}",
                            hint="fit again",
                        )
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"protocol report {str(path)!r} is malformed: {error!r}", hint="fit again") from error


def _coverage(record: runs.RunRecord) -> dict[str, float]:
    targets = (record.calibration or {}).get("targets", {})
    found = {target: targets.get(target, {}).get("coverage") for target in record.targets}
    return {target: math.nan if value is None else float(value) for target, value in found.items()}


@dataclass(frozen=True, kw_only=True)
class Refit:
    """How a recipe is fitted again.

    Attributes:
        config: the recipe with the protocol that measures it.
        features, datasets, data_root, manifests_dir: as `fit` takes them.
        output: folder of one run folder per seed.
        label: of the recipe, for messages.
        device, threads: as `FitOptions` has them.
        say: is given a line per seed.
    """

    config: FitConfig
    features: Path
    datasets: Sequence[str]
    output: Path
    label: str
    data_root: Path | None = None
    manifests_dir: Path | None = None
    device: str = "cpu"
    threads: int = 1
    say: Callable[[str], None] = lambda _: None

    def seed(self, number: int, *, splits_sha256: str, corpus_sha256: str | None) -> Evidence:
        """The run of one seed; a finished one of the same recipe, splits and corpus (where one is named) is kept, an
        interrupted one goes on.

        Raises:
            RunError: something else is in the way.
            VqaError: the fit failed.
        """
        name = f"seed-{number}"
        folder, config = self.output / name, with_seed(self.config, number)
        kept = self._kept(name, folder, config)
        same_corpus = kept is not None and corpus_sha256 in (None, kept.corpus.sha256)
        if kept is not None and same_corpus and kept.plan.sha256 == splits_sha256:
            self.say(f"{self.label} {name}: kept, {display_path(folder)}")
            return kept
        self.say(f"{self.label} {name}: fitting, {display_path(folder)}")
        try:
            self._fit(config, folder, resume=partial_folder(folder).is_dir())
        except RunError:
            if not partial_folder(folder).is_dir():
                raise
            # What was interrupted was another recipe, or of other rows.
            self._fit(config, folder, resume=False)
        return read_evidence(name, folder)

    def _fit(self, config: FitConfig, folder: Path, *, resume: bool) -> None:
        fit(
            config,
            features=self.features,
            output=folder,
            dataset=self.datasets,
            data_root=self.data_root,
            manifests_dir=self.manifests_dir,
            overwrite=True,
            options=FitOptions(device=self.device, threads=self.threads, resume=resume),
        )

    def _kept(self, name: str, folder: Path, config: FitConfig) -> Evidence | None:
        if not (folder / runs.RUN_FILE).is_file():
            return None
        try:
            found = read_evidence(name, folder)
        except VqaError as error:
            self.say(f"{self.label} {name}: not kept: {error.message}")
            return None
        here, then = package_versions(), found.record.run_provenance.get("packages", {})
        if any(here.get(package) != then.get(package) for package in _PACKAGES):
            return None
        # The run has names of datasets where the recipe may have paths.
        return found if _apart(found.record.config) == _apart(dump(config)) else None


def _apart(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in ("dataset", "targets")}
