"""Standardised inputs of each step of a training whose rows are in a file: made one step ahead, in memory used again.

Fresh memory would cost more than the arithmetic: the system clears every page of it, and two threads that allocate for
one another keep more than they use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from vqa_train.heads.batch import Batches

# Rows that are worked on at once take this many bytes, so that they stay in a core's own cache.
_BLOCK_BYTES = 1 << 19


class InputBuffers:
    """Two places for a step's inputs, filled in turn.

    Args:
        mean, std: float32 (M, 1, C); divided by infinity, a constant column is silent.
        clip: standard deviations.
    """

    def __init__(self, mean: Tensor, std: Tensor, clip: float) -> None:
        self._mean, self._std, self._clip = mean, std, clip
        self._x = [torch.empty(0), torch.empty(0)]
        self._raw = torch.empty(0)
        self._next = 0

    def make(self, batches: Batches, step: int) -> Tensor:
        """`base.standardise` of one step's rows, float32 (M, b, C); valid until the call after the next."""
        models, size = batches.weight.shape[1:3]
        columns = batches.source.shape[1]
        self._next = 1 - self._next
        if self._x[self._next].numel() != models * size * columns:
            self._x[self._next] = torch.empty(models, size, columns)
        x = self._x[self._next].view(models, size, columns)
        places = batches.places[step].view(models, size)
        rows = max(1, _BLOCK_BYTES // (4 * columns))
        for m in range(models):
            for start in range(0, size, rows):
                self._standardise(batches.source, places[m, start : start + rows], x[m, start : start + rows], m)
        return x

    def _standardise(self, source: Tensor, places: Tensor, x: Tensor, model: int) -> None:
        if source.dtype == x.dtype:
            torch.index_select(source, 0, places, out=x)
        else:
            if self._raw.shape[1:] != x.shape[1:] or len(self._raw) < len(x) or self._raw.dtype != source.dtype:
                self._raw = torch.empty_like(x, dtype=source.dtype)
            x.copy_(torch.index_select(source, 0, places, out=self._raw[: len(x)]))
        x.sub_(self._mean[model]).div_(self._std[model]).clamp_(-self._clip, self._clip).nan_to_num_(nan=0.0)


def ahead(batches: Iterator[Batches], make: Callable[[Batches, int], Tensor]) -> Iterator[tuple[Batches, int, Tensor]]:
    """Every step with its inputs; those of the next are made by a thread while the caller uses the last."""
    steps = ((batch, step) for batch in batches for step in range(len(batch)))
    following = next(steps, None)
    with ThreadPoolExecutor(1, thread_name_prefix="vqa-train-inputs") as maker:
        pending: Future[Tensor] | None = maker.submit(make, *following) if following else None
        while following is not None and pending is not None:
            (batch, step), x = following, pending.result()
            # The next batches may be of another window, whose reading begins only when all inputs of this are made.
            following = next(steps, None)
            pending = maker.submit(make, *following) if following else None
            yield batch, step, x
