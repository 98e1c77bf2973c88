"""Adapter `csv`: any CSV or Parquet table; the manifest says what its columns mean."""

from __future__ import annotations

from vqa_train.datasets.adapters.base import DatasetAdapter


class CsvAdapter(DatasetAdapter):
    """Nothing is assumed: label tables, columns and targets are all named in the manifest."""
