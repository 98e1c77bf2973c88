"""Adapter `imported`: labels that `import-features` took from a feature file, of videos that are not at hand."""

from __future__ import annotations

from typing import ClassVar

from vqa_train.datasets.adapters.base import DatasetAdapter


class ImportedAdapter(DatasetAdapter):
    """The label table lies beside the manifest; no file is looked for, read or reported as missing."""

    has_videos: ClassVar[bool] = False
