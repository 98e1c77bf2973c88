"""What came in: every record and every odd value of the features, and the maps between the scales of datasets."""

from __future__ import annotations

from vqa_train.pipelines import runs
from vqa_train.pipelines.report.page import Section, Table
from vqa_train.pipelines.report.rows import ScoredRows
from vqa_train.pipelines.report.sections import counts_table


def accounts_section(record: runs.RunRecord, rows: ScoredRows) -> Section:
    """Every record that came in: what became of it."""
    names = {
        "in": "records of the datasets",
        "without_features": "left out: no features in the store",
        "unlabelled": "without any label",
        "train": "final model: training",
        "val": "final model: choosing the epoch",
        "test": "final model: never looked at",
        "calibration": "final model: kept for the intervals",
    }
    inputs = [
        [name, what, str(count)]
        for what, key in (
            ("NaN or infinite values, taken as the column's mean", "nonfinite"),
            ("constant columns, silenced", "constant"),
            ("rows that lack this feature set", "masked"),
        )
        for name, count in record.training.get(key, {}).items()
        if count
    ]
    tables = [
        Table(
            caption="Rows",
            columns=["what", "rows"],
            rows=[
                [names.get(key, key), str(record.rows[key])]
                for key in dict.fromkeys([*names, *record.rows])
                if key in record.rows
            ],
            numeric=frozenset({1}),
        ),
        counts_table(rows),
    ]
    if inputs:
        tables.append(
            Table(
                caption="Features as they came in",
                columns=["input", "what", "count"],
                rows=inputs,
                numeric=frozenset({2}),
            )
        )
    scales = [
        [
            dataset,
            target,
            str(value.get("kind", "")),
            ", ".join(f"{k} {v:.4g}" for k, v in value.items() if _is_number(v)),
        ]
        for dataset, maps in record.scales.items()
        for target, value in maps.items()
    ]
    if scales:
        tables.append(
            Table(
                caption="Maps from the shared quality scale to each dataset's own",
                columns=["dataset", "target", "kind", "parameters"],
                rows=scales,
            )
        )
    return Section(
        key="rows",
        title="What came in",
        intro="Every record is accounted for; nothing is dropped silently.",
        tables=tables,
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
