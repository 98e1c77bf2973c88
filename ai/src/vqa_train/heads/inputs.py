"""Standardised inputs of each step of a training whose rows are in a file: made ahead, in memory that is used again.

Fresh memory would cost more than the arithmetic: the system clears every page of it, and two threads that allocate for
one another keep more than they use.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait

import torch
from torch import Tensor

from vqa_train.heads.batch import Batches

# Rows that are worked on at once take this many bytes, so that they stay in a core's own cache.
_BLOCK_BYTES = 1 << 20
# Steps that are made before they are asked for: two, so that neither thread waits for the other's every turn.
_AHEAD = 2


class InputBuffers:
    """Places for a few steps' inputs, filled in turn.

    Args:
        mean, std: float32 (M, 1, C); divided by infinity, a constant column is silent.
        clip: standard deviations.
        finite: whether no value of the rows is NaN.
    """

    def __init__(self, mean: Tensor, std: Tensor, clip: float, *, finite: bool) -> None:
        self._mean, self._std, self._clip, self._finite = mean, std, clip, finite
        self._x = [torch.empty(0) for _ in range(_AHEAD + 1)]
        self._raw = torch.empty(0)
        self._next = 0

    def make(self, batches: Batches, step: int) -> Tensor:
        """`base.standardise` of one step's rows, float32 (M, b, C); valid for as many calls as steps are made ahead."""
        models, size = batches.weight.shape[1:3]
        columns = batches.source.shape[1]
        self._next = (self._next + 1) % len(self._x)
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
        x.sub_(self._mean[model]).div_(self._std[model]).clamp_(-self._clip, self._clip)
        if not self._finite:
            x.nan_to_num_(nan=0.0)


def ahead(batches: Iterator[Batches], make: Callable[[Batches, int], Tensor]) -> Iterator[tuple[Batches, int, Tensor]]:
    """Every step with its inputs; those of the next are made by a thread while the caller uses the last."""
    pending: deque[tuple[Batches, int, Future[Tensor]]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="vqa-train-inputs") as maker:
        for batch in batches:
            for step in range(len(batch)):
                pending.append((batch, step, maker.submit(make, batch, step)))
                if len(pending) > _AHEAD:
                    yield _taken(pending)
            # The next batches may be of another window, which is read to where rows of this one may still be wanted.
            wait([made for _, _, made in pending])
        while pending:
            yield _taken(pending)


def _taken(pending: deque[tuple[Batches, int, Future[Tensor]]]) -> tuple[Batches, int, Tensor]:
    batch, step, made = pending.popleft()
    return batch, step, made.result()
