"""What of a fit goes to the loggers: the recipe as parameters, the final numbers by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vqa_train.core.config import StrictModel
from vqa_train.evaluation.report import EvalReport


def logged_params(config: StrictModel) -> dict[str, Any]:
    """The resolved recipe without its loggers."""
    values: dict[str, Any] = config.model_dump(mode="json", by_alias=True, exclude={"loggers"})
    return values


def final_numbers(metrics: Mapping[str, EvalReport], protocol: Mapping[str, Any] | None) -> dict[str, float | None]:
    """Name -> value; None where undefined.

    `held-out/TARGET/METRIC/median` and `/std` over the protocol's folds; `SPLIT[/DATASET]/TARGET/METRIC` of the final
    model on its own training and validation rows.

    Args:
        metrics: split -> report.
        protocol: report of schema vqa-train/protocol-report/1, or None.
    """
    found: dict[str, float | None] = {}
    for target, summary in (protocol or {}).get("summary", {}).items():
        for metric, values in summary.items():
            for statistic in ("median", "std"):
                found[f"held-out/{target}/{metric}/{statistic}"] = values.get(statistic)
    for split, report in metrics.items():
        for result in report.results:
            if result.group is not None:
                continue
            where = split if result.dataset == "all" else f"{split}/{result.dataset}"
            for metric, estimate in result.metrics.items():
                found[f"{where}/{result.target}/{metric}"] = estimate.value
    return found
