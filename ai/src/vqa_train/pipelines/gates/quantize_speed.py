"""How long a head takes for one row and for a batch, on one thread."""

from __future__ import annotations

import time

import numpy as np

from vqa_train.onnx.runtime import OnnxModel
from vqa_train.pipelines.table import Table

_BATCHES = (1, 256)
_RUNS = {1: 200, 256: 20}


def milliseconds(head: OnnxModel, rows: Table) -> dict[str, float]:
    """Median per batch size."""
    arrays = rows.arrays()
    found = {}
    for batch in _BATCHES:
        index = np.arange(batch) % len(rows.videos)
        inputs = {name: np.ascontiguousarray(array[index]) for name, array in arrays.items()}
        times = []
        for _ in range(_RUNS[batch]):
            started = time.perf_counter_ns()
            head.run(inputs)
            times.append(time.perf_counter_ns() - started)
        found[str(batch)] = round(float(np.median(times)) / 1e6, 4)
    return found
