"""What some steps of a batched training see."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Batches:
    """S steps of M heads with up to b rows each.

    Attributes:
        source: (rows, C) that inputs are taken from.
        standardised: whether `source` is, for each head apart.
        places: int64 (S, M * b), rows of `source`.
        target: float32 (S, M, b, K) standardised labels, 0 where missing.
        weight: float32 (S, M, b, K), 0 where a label is missing or there is no row.
        dataset: int64 (S, M, b) number of each row's dataset; None where there is one.
        rows: float32 (S, M) rows of each batch.
    """

    source: Tensor
    standardised: bool
    places: Tensor
    target: Tensor
    weight: Tensor
    dataset: Tensor | None
    rows: Tensor

    def __len__(self) -> int:
        return len(self.places)
