"""The source of a Ray run: one block per video, which holds the number of its task."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import pyarrow as pa
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask


class TaskNumbers(Datasource):
    """Blocks of one row, column `id`, for each of `numbers`; they are made when and where they are wanted."""

    def __init__(self, numbers: Sequence[int]) -> None:
        self._numbers = numbers

    def estimate_inmemory_data_size(self) -> int | None:
        """Bytes of all blocks."""
        return 8 * len(self._numbers)

    def get_read_tasks(self, parallelism: int, *arguments: Any, **keywords: Any) -> list[ReadTask]:
        """One per number, whatever `parallelism` asks for."""
        facts = BlockMetadata(num_rows=1, size_bytes=8, input_files=None, exec_stats=None)
        return [ReadTask(partial(_one, number), facts) for number in self._numbers]


def _one(number: int) -> list[pa.Table]:
    return [pa.table({"id": [number]})]
