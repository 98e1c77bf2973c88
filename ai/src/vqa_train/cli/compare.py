"""vqa-train compare: parse, call, print."""

from __future__ import annotations

import math
from typing import Annotated

import typer

from vqa_train.cli.common import JsonOption, emit_json, number, print_line, print_table

_TESTS = {"bootstrap": "paired bootstrap", "wilcoxon": "Wilcoxon", "corrected_t": "corrected t"}


def compare(
    models: Annotated[
        list[str], typer.Argument(metavar="[NAME=]RUN|TABLE...", help="Run folders or prediction tables, two or more.")
    ],
    target: Annotated[list[str] | None, typer.Option(help="May be repeated. (default: all)")] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(help="May be repeated; NAME_mapped is after the mapping. (default: srocc, plcc, rmse)"),
    ] = None,
    split: Annotated[str, typer.Option(help="Rows of tables without folds: test, val, train or all.")] = "test",
    mapping: Annotated[str, typer.Option(help="For mapped metrics: logistic4, logistic5 or linear.")] = "logistic4",
    resamples: Annotated[int, typer.Option(min=1, help="Of the paired bootstrap.")] = 2000,
    json: JsonOption = None,
) -> None:
    """Is one model better than another? Tests every pair over the same held-out rows and splits, Holm-corrected."""
    from vqa_train.pipelines.evaluate.compare import DEFAULT_METRICS
    from vqa_train.pipelines.evaluate.compare import compare as compare_models

    result = compare_models(
        models,
        targets=target or (),
        metrics=metric or DEFAULT_METRICS,
        split=split,
        mapping=mapping,
        resamples=resamples,
    )
    emit_json(result.to_json(), json)
    if json == "-":
        return
    rows = []
    for c in result.comparisons:
        d = c.difference
        interval = "" if math.isnan(d.low) else f" [{d.low:+.4f}, {d.high:+.4f}]"
        rows.append(
            [
                c.target,
                c.metric,
                c.first,
                number(c.values[0]),
                c.second,
                number(c.values[1]),
                _TESTS[c.test],
                f"{d.value:+.4f}{interval}",
                _p(d.p),
                _p(c.p_holm),
                c.better or "",
            ]
        )
    over = f"{result.folds} folds" if result.folds else result.resampled
    columns = ["target", "metric", "A", "value", "B", "value", "test", "A - B", "p", "p Holm", "ahead"]
    print_table(f"{result.rows} rows, over {over}; values over folds are medians, differences means", columns, rows)
    for note in result.notes:
        print_line(note)


def _p(value: float) -> str:
    return "<0.0001" if value < 0.0001 else number(value)
