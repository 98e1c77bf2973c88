"""Metrics between predicted and subjective scores (one file each), mappings, intervals, significance, the report."""

from vqa_train.core.plugins import Registry

METRICS = Registry(
    "metric",
    {
        "srocc": "vqa_train.evaluation.srocc:SROCC",
        "plcc": "vqa_train.evaluation.plcc:PLCC",
        "krocc": "vqa_train.evaluation.krocc:KROCC",
        "rmse": "vqa_train.evaluation.rmse:RMSE",
        "mae": "vqa_train.evaluation.mae:MAE",
        "vquala": "vqa_train.evaluation.vquala:VQUALA",
        "outlier_ratio": "vqa_train.evaluation.outlier_ratio:OUTLIER_RATIO",
        "rmse_star": "vqa_train.evaluation.rmse_star:RMSE_STAR",
        "auc_ds": "vqa_train.evaluation.krasula:AUC_DS",
        "auc_bw": "vqa_train.evaluation.krasula:AUC_BW",
        "c0": "vqa_train.evaluation.krasula:C0",
    },
    extra="train",
)
"""Name -> `evaluation.metric.Metric`; call it as metric(predicted (N,), target (N,)) -> float, NaN where undefined.
Those with `uncertain` also take the labels' `evaluation.uncertainty.LabelUncertainty`."""
