"""Datasets: manifests, adapters, label joins, scanning, verifying and splits."""

from __future__ import annotations

from vqa_train.core.plugins import Registry

ADAPTERS = Registry(
    "dataset_adapter",
    {
        "csv": "vqa_train.datasets.adapters.csv:CsvAdapter",
        "imported": "vqa_train.datasets.adapters.imported:ImportedAdapter",
        "qualivision": "vqa_train.datasets.adapters.qualivision:QualivisionAdapter",
    },
)
