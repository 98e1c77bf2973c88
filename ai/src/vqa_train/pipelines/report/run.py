"""The page of a run folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from vqa_train.core.config import load_json
from vqa_train.core.types import FeatureSpec
from vqa_train.pipelines import runs
from vqa_train.pipelines.report import results
from vqa_train.pipelines.report.accounts import accounts_section
from vqa_train.pipelines.report.boxes import split_pictures
from vqa_train.pipelines.report.clips import Record
from vqa_train.pipelines.report.config import Advance, ReportConfig
from vqa_train.pipelines.report.curves import learning_curves
from vqa_train.pipelines.report.data import importance_of, load_datasets, records_of
from vqa_train.pipelines.report.figure import Picture
from vqa_train.pipelines.report.importance import importance_pictures
from vqa_train.pipelines.report.intervals import TargetInterval, read_intervals
from vqa_train.pipelines.report.lineage import code_warnings, run_lineage
from vqa_train.pipelines.report.matrix import matrix
from vqa_train.pipelines.report.page import Card, Page, Section, Table
from vqa_train.pipelines.report.rows import HELD_OUT, ScoredRows, load_rows
from vqa_train.pipelines.report.sections import (
    calibration_section,
    clips_section,
    importance_section,
    predictions_section,
    residuals_section,
)
from vqa_train.pipelines.report.words import run_facts, run_subtitle
from vqa_train.pipelines.table import FeatureInput

_RESAMPLES = 200


def run_page(folder: Path, config: ReportConfig, advance: Advance) -> Page:
    """Everything that the folder holds, and what the datasets and features at hand add.

    Raises:
        RunError: it is no run folder, or was changed.
        UsageError: rows that it does not have.
        StoreError: `config.features` lacks the features.
    """
    record = runs.open_run(folder)
    every = load_rows(folder, record, config.rows)
    rows = every.once()
    protocol = _read(folder, record, runs.PROTOCOL_FILE)
    intervals = read_intervals(_read(folder, record, runs.CALIBRATION_FILE))
    metrics = _read(folder, record, runs.METRICS_FILE) or {}
    evaluation = None if rows.choice == HELD_OUT else _evaluation(rows, record, metrics)
    datasets, missing = load_datasets(
        {found.name: found.manifest_sha256 for found in record.datasets},
        given=config.datasets,
        read=record.run_provenance.get("inputs"),
        data_root=config.data_root,
        manifests_dir=config.manifests_dir,
        features=config.features,
    )
    records = records_of(datasets)
    cards, cards_note = _cards(protocol, evaluation, rows, record.targets)
    return Page(
        title=folder.absolute().name,
        kind="Run",
        subtitle=run_subtitle(record),
        facts=run_facts(record),
        cards=cards,
        cards_note=cards_note,
        warnings=_warnings(record, rows, intervals),
        sections=[
            predictions_section(rows, intervals, _which(every, rows)),
            _results(protocol, evaluation, metrics, rows, record.targets),
            residuals_section(rows),
            calibration_section(rows, intervals, record.mos_range),
            _learning(folder, record),
            clips_section(rows, records, config.worst, missing),
            _importance(folder, record, rows, config, records, advance),
            accounts_section(record, rows),
            run_lineage(record),
        ],
    )


def _read(folder: Path, record: runs.RunRecord, name: str) -> dict[str, Any] | None:
    if name not in record.files:
        return None
    value: dict[str, Any] = load_json(folder / name, name)
    return value


def _evaluation(rows: ScoredRows, record: runs.RunRecord, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Of these rows: the run's own where it has one, else measured here."""
    if rows.choice in metrics:
        found: dict[str, Any] = metrics[rows.choice]
        return found
    from vqa_train.evaluation.report import evaluate

    several = len(set(rows.datasets.tolist())) > 1
    return evaluate(
        rows.predicted,
        rows.label,
        rows.targets,
        groups=rows.groups.tolist(),
        datasets=rows.datasets.tolist() if several else None,
        resamples=_RESAMPLES,
        directions=dict.fromkeys(rows.targets, record.direction),
    ).to_json()


def _cards(
    protocol: Mapping[str, Any] | None, evaluation: Mapping[str, Any] | None, rows: ScoredRows, targets: Sequence[str]
) -> tuple[list[Card], str]:
    if evaluation is not None:
        return results.evaluation_cards(evaluation, targets), f"Rests on {len(rows)} rows of {rows.file}: {rows.what}."
    if protocol is not None:
        # As the summary: of a cross-dataset matrix, without a dataset against itself.
        apart = [fold for fold in protocol["folds"] if not fold.get("cell") or fold["cell"][0] != fold["cell"][1]]
        sizes = [int(fold["test"]) for fold in apart or protocol["folds"]]
        held = f"{min(sizes)}" if min(sizes) == max(sizes) else f"{min(sizes)} to {max(sizes)}"
        return results.protocol_cards(protocol, targets), (
            f"Medians and standard deviations over {len(sizes)} splits of {held} held-out rows each (protocol.json), "
            "by models that did not see those rows. The final model was then fitted on all rows and has no number of "
            "its own."
        )
    return [], ""


def _which(every: ScoredRows, rows: ScoredRows) -> str:
    if rows.choice != HELD_OUT:
        return ""
    count = len(every.fold_names)
    if len(rows) == len(every):
        return f" The {count} splits have a model each, and so {count} scales, which may differ."
    return (
        f" The {count} splits hold most videos out several times; drawn is the prediction of the first split that did, "
        "not an average, which would look better than any of the models is."
    )


def _warnings(record: runs.RunRecord, rows: ScoredRows, intervals: Mapping[str, TargetInterval]) -> list[str]:
    found = list(record.warnings)
    if rows.optimistic:
        found.append(f"the pictures rest on {rows.what}")
    if rows.choice == "test":
        found.append(
            "these are test rows: choosing between recipes by this page makes them training rows; choose by "
            "cross-validation instead"
        )
    random = [item.name for item in record.inputs if (item.spec.get("weights") or {}).get("random_seed") is not None]
    if random:
        found.append(f"features of random weights: {', '.join(random)}")
    found += [f"interval of {name}: {interval.note}" for name, interval in intervals.items() if interval.note]
    found += code_warnings(record.run_provenance)
    return found


def _results(
    protocol: Mapping[str, Any] | None,
    evaluation: Mapping[str, Any] | None,
    metrics: Mapping[str, Any],
    rows: ScoredRows,
    targets: Sequence[str],
) -> Section:
    pictures: list[Picture] = []
    tables: list[Table] = []
    notes: list[str] = []
    intro = "How good is it, and how sure is that?"
    if protocol is not None:
        cells = protocol.get("cells") or []
        for column, target in enumerate(targets):
            if cells:
                found = matrix(cells, target, column)
                pictures += [found] if found is not None else []
            else:
                pictures += split_pictures(protocol["folds"], target, column)
        tables += [results.protocol_table(protocol, targets), results.fold_table(protocol, targets)]
    if evaluation is not None:
        caption = f"Every metric on {rows.what}; intervals by bootstrap"
        tables.append(results.evaluation_table(evaluation, caption))
        notes += results.evaluation_notes(evaluation)
    for split, document in metrics.items():
        if document is not evaluation:
            own = "training" if split == "train" else split
            caption = f"The final model on its own {own} rows (not a measure of quality)"
            tables.append(results.evaluation_table(document, caption, folded=True))
    if tables:
        tables.append(results.glossary())
    return Section(key="results", title="Results", intro=intro, tables=tables, pictures=pictures, notes=notes)


def _learning(folder: Path, record: runs.RunRecord) -> Section:
    history = _read(folder, record, runs.HISTORY_FILE) or {}
    pictures, notes = learning_curves(history.get("heads", []))
    return Section(
        key="learning",
        title="Learning curves",
        intro="Did training go well? All heads are in these curves: those of the splits and those of the final model.",
        pictures=pictures,
        notes=notes,
    )


def _importance(
    folder: Path,
    record: runs.RunRecord,
    rows: ScoredRows,
    config: ReportConfig,
    records: Mapping[str, Record],
    advance: Advance,
) -> Section:
    if config.features is None:
        return importance_section([], ["feature importance needs the features: pass --features STORE"])
    from vqa_train.heads.checkpoint import load_ensemble
    from vqa_train.heads.trainer import predict

    ensemble, _ = load_ensemble(folder / runs.HEAD_FILE)
    found, notes = importance_of(
        rows,
        partial(predict, ensemble),
        {
            item.name: (
                FeatureInput(set=item.fingerprint, output=item.output, of=item.of),
                FeatureSpec.from_json(item.spec),
            )
            for item in record.inputs
        },
        config.features,
        records,
        advance,
    )
    if found is None:
        return importance_section([], notes)
    what = (
        "by the final model, which was fitted on these videos: it shows what the model uses"
        if rows.choice == HELD_OUT
        else rows.what
    )
    pictures, more = importance_pictures(found, what)
    return importance_section(pictures, [*notes, *more])
