"""The parts of a page that are drawn from predictions: the same for a run and for a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from vqa_train.pipelines.report.clips import Record, middle_frames, worst_clips, worst_rows
from vqa_train.pipelines.report.coverage import calibration_pictures
from vqa_train.pipelines.report.figure import Picture
from vqa_train.pipelines.report.intervals import TargetInterval
from vqa_train.pipelines.report.page import ClipRow, Section, Table
from vqa_train.pipelines.report.residuals import residual_pictures
from vqa_train.pipelines.report.results import number
from vqa_train.pipelines.report.rows import ScoredRows
from vqa_train.pipelines.report.scatter import scatter

MOST_TARGETS = 8


def predictions_section(rows: ScoredRows, intervals: Mapping[str, TargetInterval], extra: str = "") -> Section:
    """Predicted against MOS, per target.

    Args:
        rows: one per video.
        intervals: target -> the run's own.
        extra: a sentence on which prediction of a video is drawn.
    """
    pictures = [scatter(rows, target, intervals.get(rows.targets[target])) for target in _shown(rows)]
    without = [rows.targets[i] for i in _shown(rows) if pictures[i] is None]
    return Section(
        key="predictions",
        title="Predicted against MOS",
        intro="Does the model put videos in the order that people do? MOS, the mean opinion score, is what people said "
        f"of a video on average. Drawn are {rows.what}.{extra}",
        pictures=[picture for picture in pictures if picture is not None],
        notes=[*(f"{name}: no row has both a label and a prediction" for name in without), *_too_many(rows)],
    )


def residuals_section(rows: ScoredRows) -> Section:
    """Residuals over the scale, by dataset and by group."""
    pictures: list[Picture] = []
    notes: list[str] = []
    for target in _shown(rows):
        found, missing = residual_pictures(rows, target)
        pictures += found
        notes += missing
    return Section(
        key="residuals",
        title="Residuals",
        intro="Where is it wrong, and in which direction? A residual is the prediction less the opinion score.",
        pictures=pictures,
        notes=notes,
    )


def calibration_section(
    rows: ScoredRows, intervals: Mapping[str, TargetInterval], ranges: Mapping[str, tuple[float, float]]
) -> Section:
    """The run's own intervals as a table, and coverage, width and spread as pictures."""
    pictures: list[Picture] = []
    notes: list[str] = []
    for target in _shown(rows):
        name = rows.targets[target]
        low, high = ranges[name]
        found, missing = calibration_pictures(rows, target, intervals.get(name), high - low)
        pictures += found
        notes += missing
    notes += [f"interval of {name}: {found.note}" for name, found in intervals.items() if found.note]
    if not intervals:
        drawn = "; the pictures show what intervals from these rows would be" if pictures else ""
        notes.insert(0, f"no prediction intervals are stated{drawn}")
    return Section(
        key="calibration",
        title="Calibration",
        intro="How far can a single score be trusted? An interval of a level of 90% should hold the opinion of nine "
        "new videos in ten.",
        tables=[interval_table(intervals)] if intervals else [],
        pictures=pictures,
        notes=notes,
    )


def interval_table(intervals: Mapping[str, TargetInterval]) -> Table:
    """Half width, what it rests on and the coverage that was measured, per target."""
    rows = [
        [
            name,
            f"{found.level:.0%}",
            "none" if found.half_width is None else f"± {found.half_width:.4g}",
            found.method,
            str(found.n),
            "not measured" if found.coverage is None else f"{found.coverage:.1%} of {found.coverage_n}",
        ]
        for name, found in intervals.items()
    ]
    return Table(
        caption="Prediction intervals that scores of the model carry",
        columns=["target", "level", "interval", "method", "residuals", "held the label"],
        rows=rows,
        numeric=frozenset({1, 2, 4, 5}),
    )


def clips_section(rows: ScoredRows, records: Mapping[str, Record], most: int, why: Sequence[str]) -> Section:
    """The videos with the largest residuals, with pictures where their files are at hand.

    Args:
        rows: one per video.
        records: of the datasets, by row key.
        most: videos per target.
        why: notes on datasets that are not at hand.
    """
    chosen = {target: worst_rows(rows, target, most).tolist() for target in _shown(rows)}
    every = [row for numbers in chosen.values() for row in numbers]
    images: dict[str, str] = {}
    missing: dict[str, str] = {}
    notes = list(why)
    if any(data.has_videos for data, _ in records.values()):
        images, missing = middle_frames(rows, every, records)
        if missing and not images:
            # Said once instead of in every empty frame.
            notes.append(f"no pictures: {next(iter(missing.values()))}")
            missing = {}
    elif not notes:
        notes.append("no pictures: the labels were imported with features, without videos")
    return Section(
        key="worst",
        title="Worst clips",
        intro="The videos with the largest errors. Look for what they share (a kind of content, a distortion, a label "
        "that looks wrong): that is what more or better data would mend.",
        clips=[
            ClipRow(heading=rows.targets[target], clips=worst_clips(rows, target, numbers, records, images, missing))
            for target, numbers in chosen.items()
            if numbers
        ],
        notes=notes,
    )


def importance_section(pictures: Sequence[Picture], notes: Sequence[str]) -> Section:
    """Permutation importance, or why there is none."""
    return Section(
        key="importance",
        title="Feature importance",
        intro="What does the model look at? Each feature is shuffled among the videos; the more SROCC falls, the more "
        "the model relies on it.",
        pictures=pictures,
        notes=notes,
    )


def counts_table(rows: ScoredRows) -> Table:
    """How many rows each picture can rest on."""
    return Table(
        caption=f"Rows behind the pictures: {rows.what}",
        columns=["target", "videos", "with label", "with label and prediction", "mean MOS", "std of MOS"],
        rows=[
            [
                name,
                str(len(rows)),
                str(int(np.isfinite(rows.label[:, i]).sum())),
                str(int(rows.known(i).sum())),
                *_moments(rows.label[:, i]),
            ]
            for i, name in enumerate(rows.targets)
        ],
        numeric=frozenset({1, 2, 3, 4, 5}),
    )


def _moments(values: np.ndarray) -> tuple[str, str]:
    known = values[np.isfinite(values)]
    return (
        number(float(known.mean()) if len(known) else None, 3),
        number(float(known.std(ddof=1)) if len(known) > 1 else None, 3),
    )


def _shown(rows: ScoredRows) -> range:
    return range(min(len(rows.targets), MOST_TARGETS))


def _too_many(rows: ScoredRows) -> list[str]:
    extra = len(rows.targets) - MOST_TARGETS
    return [f"{extra} more targets are in the tables, but not drawn: {MOST_TARGETS} are"] if extra > 0 else []
