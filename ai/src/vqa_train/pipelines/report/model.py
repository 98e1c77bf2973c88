"""The page of a model: what its sidecar says, and with features at hand what it does on labelled videos."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.hashing import sha256_file
from vqa_train.datasets.load import load_dataset
from vqa_train.onnx.runtime import OnnxModel
from vqa_train.pipelines.evaluate.model import evaluate_model, find_model
from vqa_train.pipelines.evaluate.seen_rows import fitted_datasets, keeps_test_rows
from vqa_train.pipelines.report import results
from vqa_train.pipelines.report.clips import Record
from vqa_train.pipelines.report.config import Advance, ReportConfig
from vqa_train.pipelines.report.contract import contract_section, model_lineage
from vqa_train.pipelines.report.data import importance_of, load_datasets, records_of
from vqa_train.pipelines.report.forest import forest
from vqa_train.pipelines.report.importance import Features, importance_pictures
from vqa_train.pipelines.report.intervals import TargetInterval, read_intervals
from vqa_train.pipelines.report.lineage import code_warnings
from vqa_train.pipelines.report.page import Card, Page, Section
from vqa_train.pipelines.report.rows import Fitted, ScoredRows, from_frame
from vqa_train.pipelines.report.sections import (
    calibration_section,
    clips_section,
    importance_section,
    interval_table,
    predictions_section,
    residuals_section,
)
from vqa_train.pipelines.report.words import protocol_text, scale_text
from vqa_train.pipelines.table import FeatureInput
from vqa_train.registry.sidecar import SCORES, ModelSidecar

_RESAMPLES = 200
_PREDICTIONS = "predictions.parquet"


def model_page(config: ReportConfig, advance: Advance) -> Page:
    """What is known of a model; with `config.features` also its predictions.

    Raises:
        ModelError: there is no such model, or it is not the file that its sidecar describes.
        UsageError, StoreError, ManifestError: it cannot be evaluated on the features given.
    """
    sidecar, path = find_model(config.source, config.registry)
    head = OnnxModel(path, expected_sha256=sidecar.onnx.sha256)
    intervals = read_intervals(None if sidecar.calibration is None else sidecar.calibration.model_dump(mode="json"))
    drawn: list[Section] = []
    evaluation, rows = sidecar.metrics, None
    source = "as vqa-train eval reported them"
    if config.features is not None:
        evaluation, rows = _evaluate(config, sidecar)
        source = f"measured for this page on {rows.what}"
        drawn = _drawn(rows, sidecar, head, intervals, config, advance)
    # Held-out splits say more of new videos than rows that the model was fitted on.
    headline = None if rows is not None and rows.optimistic and sidecar.protocol is not None else evaluation
    return Page(
        title=sidecar.name,
        kind="Model",
        subtitle=_subtitle(sidecar),
        facts=_facts(sidecar, path),
        cards=_cards(sidecar, headline),
        cards_note=_cards_note(sidecar, headline, source),
        warnings=_warnings(sidecar, evaluation, rows, intervals),
        sections=[
            *drawn[:1],
            _results(sidecar, evaluation, source, intervals if not drawn else {}),
            *drawn[1:],
            contract_section(sidecar),
            model_lineage(sidecar),
        ],
    )


def _evaluate(config: ReportConfig, sidecar: ModelSidecar) -> tuple[dict[str, Any], ScoredRows]:
    import polars as pl

    given = {
        load_dataset(
            name,
            data_root=config.data_root,
            manifests_dir=config.manifests_dir,
            stores=[config.features] if config.features is not None else [],
        ).manifest.name
        for name in config.datasets
    }
    others = bool(given) and given.isdisjoint(fitted_datasets(sidecar))
    split = config.rows or ("all" if others else "test")
    fitted_on: Fitted = "others" if others else "dataset" if keeps_test_rows(sidecar) else "rows"
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / _PREDICTIONS
        result = evaluate_model(
            config.source,
            features=config.features or Path(),
            datasets=list(config.datasets),
            split=split,
            data_root=config.data_root,
            manifests_dir=config.manifests_dir,
            registry=config.registry,
            predictions=table,
            resamples=_RESAMPLES,
        )
        frame = pl.read_parquet(table)
    return result.report.to_json(), from_frame(frame, sidecar.targets, split, fitted_on).once()


def _drawn(
    rows: ScoredRows,
    sidecar: ModelSidecar,
    head: OnnxModel,
    intervals: Mapping[str, TargetInterval],
    config: ReportConfig,
    advance: Advance,
) -> list[Section]:
    datasets, missing = load_datasets(
        dict.fromkeys(sorted(set(rows.datasets.tolist()))),
        given=config.datasets,
        data_root=config.data_root,
        manifests_dir=config.manifests_dir,
        features=config.features,
    )
    records = records_of(datasets)
    return [
        predictions_section(rows, intervals),
        residuals_section(rows),
        calibration_section(rows, intervals, sidecar.mos_range),
        clips_section(rows, records, config.worst, missing),
        _importance(rows, sidecar, head, config, records, advance),
    ]


def _importance(
    rows: ScoredRows,
    sidecar: ModelSidecar,
    head: OnnxModel,
    config: ReportConfig,
    records: Mapping[str, Record],
    advance: Advance,
) -> Section:
    def predict(features: Features) -> NDArray[np.float32]:
        return np.asarray(head.run(dict(features))[SCORES], dtype=np.float32)

    found, notes = importance_of(
        rows,
        predict,
        {i.name: (FeatureInput(set=i.fingerprint, output=i.output, of=i.of), i.feature_spec()) for i in sidecar.inputs},
        config.features or Path(),
        records,
        advance,
    )
    if found is None:
        return importance_section([], notes)
    pictures, more = importance_pictures(found, rows.what)
    return importance_section(pictures, [*notes, *more])


def _subtitle(sidecar: ModelSidecar) -> str:
    kinds = {"nr": "no-reference ", "fr": "full-reference "}
    data = f" of {sidecar.dataset.name}" if sidecar.dataset else ""
    features = ", ".join(dict.fromkeys(item.feature_spec().backbone for item in sidecar.inputs))
    return (
        f"A {kinds.get(sidecar.kind or '', '')}video-quality model that predicts the opinion scores{data} "
        f"({', '.join(sidecar.targets)}) from the features {features}."
    )


def _facts(sidecar: ModelSidecar, path: Path) -> dict[str, str]:
    found = {
        "version": sidecar.version,
        "scale": scale_text(sidecar.mos_range, sidecar.direction),
        "scores to expect": ", ".join(
            f"{t} {low:.3g} to {high:.3g}" for t, (low, high) in sidecar.expected_output_range.items()
        ),
        "licence": sidecar.license or "none yet",
        "ONNX": f"{sidecar.onnx.bytes / 1e6:.2f} MB, sha256 {sha256_file(path)[:12]}",
        "commit": "" if sidecar.train_commit in (None, "unknown") else str(sidecar.train_commit)[:12],
    }
    return {name: value for name, value in found.items() if value}


def _protocol(sidecar: ModelSidecar) -> dict[str, Any] | None:
    if sidecar.protocol is None:
        return None
    return {"summary": sidecar.protocol.model_dump(mode="json")["metrics"]}


def _cards(sidecar: ModelSidecar, evaluation: Mapping[str, Any] | None) -> list[Card]:
    if evaluation is not None:
        return results.evaluation_cards(evaluation, sidecar.targets)
    protocol = _protocol(sidecar)
    return results.protocol_cards(protocol, sidecar.targets) if protocol else []


def _cards_note(sidecar: ModelSidecar, evaluation: Mapping[str, Any] | None, source: str) -> str:
    if evaluation is not None:
        split = f", split {evaluation['split']}" if "split" in evaluation else ""
        return f"Rests on {evaluation['rows']} rows{split}, {source}."
    if sidecar.protocol is not None:
        return (
            f"Medians over {sidecar.protocol.folds} splits, by models that did not see the rows. This model was then "
            "fitted on all rows and has no number of its own."
        )
    return ""


def _warnings(
    sidecar: ModelSidecar,
    evaluation: Mapping[str, Any] | None,
    rows: ScoredRows | None,
    intervals: Mapping[str, TargetInterval],
) -> list[str]:
    found = []
    if rows is not None and rows.optimistic:
        found.append(f"the pictures rest on {rows.what}")
    if evaluation is None and sidecar.protocol is None:
        found.append("nothing is known of its accuracy: it has not been evaluated")
    if sidecar.descends_from_random_weights:
        found.append("it descends from random weights: for benchmarks and tests only")
    if not sidecar.registered:
        found.append("it is exported, not registered: its backbones are not packed with it")
    if sidecar.protocol is not None:
        found += sidecar.protocol.warnings
    found += [f"interval of {name}: {interval.note}" for name, interval in intervals.items() if interval.note]
    found += code_warnings(sidecar.run_provenance)
    return found


def _results(
    sidecar: ModelSidecar,
    evaluation: Mapping[str, Any] | None,
    source: str,
    intervals: Mapping[str, TargetInterval],
) -> Section:
    tables, pictures, notes = [], [], []
    if evaluation is not None:
        picture = forest(evaluation)
        pictures += [picture] if picture is not None else []
        tables.append(results.evaluation_table(evaluation, f"Every metric, {source}"))
        notes += results.evaluation_notes(evaluation)
    protocol = _protocol(sidecar)
    if protocol is not None and sidecar.protocol is not None:
        tables.append(results.protocol_table(protocol, sidecar.targets))
        notes.append(
            f"the splits: {protocol_text(sidecar.protocol.protocol)}; their sha256 begins with "
            f"{sidecar.protocol.splits_sha256[:12]}"
        )
    if tables:
        tables.append(results.glossary())
    if intervals:
        tables.append(interval_table(intervals))
    if evaluation is None:
        notes.append("with --features STORE this report evaluates the model and draws its predictions")
    return Section(
        key="results",
        title="Results",
        intro="How good is it, and how sure is that?",
        tables=tables,
        pictures=pictures,
        notes=notes,
    )
