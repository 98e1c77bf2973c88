"""Metrics between predicted and subjective scores (one file each), the logistic mapping, intervals and the report."""

from vqa_train.core.plugins import Registry

METRICS = Registry(
    "metric",
    {
        "srocc": "vqa_train.evaluation.srocc:SROCC",
        "plcc": "vqa_train.evaluation.plcc:PLCC",
        "krocc": "vqa_train.evaluation.krocc:KROCC",
        "rmse": "vqa_train.evaluation.rmse:RMSE",
    },
    extra="train",
)
"""Name -> `evaluation.metric.Metric`; call it as metric(predicted (N,), target (N,)) -> float, NaN where undefined."""
