"""What every dataset adapter is: how to find label tables, read them, and tell where a row's file lies."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from vqa_train.datasets.adapters.table import RawTable, read_table
from vqa_train.datasets.manifest import LabelTable, MosRange


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What an adapter knows about a dataset before anyone tells it; `datasets scan` starts from this.

    Attributes:
        labels: the label tables found, paths relative to the data root.
        columns: values for the manifest's `columns` (id, path, prompt, ...), as far as known.
        targets: target -> column.
        mos: the scale, where the format fixes it.
    """

    labels: tuple[LabelTable, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    targets: Mapping[str, str] = field(default_factory=dict)
    mos: MosRange | None = None


class DatasetAdapter:
    """The behaviour of most datasets: CSV or Parquet tables whose rows name their files. Override what differs.

    Attributes:
        has_videos: False where rows stand for videos that are not at hand: labels beside the manifest, keys made of
            ids, features imported from a file.
    """

    has_videos: ClassVar[bool] = True

    def discover(self, root: Path) -> Layout:
        """What can be known from the folder alone.

        Raises:
            ManifestError: the folder is not laid out as the adapter needs it.
        """
        return Layout()

    def read_table(self, path: str, data: bytes, wanted: Collection[str]) -> RawTable:
        """The `wanted` columns of the label table `path` (relative to the data root), whose bytes are `data`.

        Raises:
            LabelError: it is not a table.
        """
        return read_table(path, data, wanted)

    def file_hint(self, table: LabelTable, value: str) -> str:
        """Where the file of a row of `table` is looked for, given its path column (or its id)."""
        return value
