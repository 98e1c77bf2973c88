"""Random bits of dropout, decided by a head's seed, its step and the place alone: the same on every device.

A counter-based generator (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") keeps no state, so that
a head draws the same bits alone, beside 500 others, and after an interruption.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

STREAMS = 32
"""Independent masks that a step may draw: streams 0 to 31."""

_GOLDEN = -1640531535  # 0x9E3779B1 as int32, 2**32 / golden ratio
_MIX1, _MIX2 = -2048144789, -1028477387  # constants of MurmurHash3's 32-bit finaliser (Appleby, public domain)
_WORD = 1 << 16


class Noise:
    """Dropout for `len(seeds)` heads; draws those of step 0 until `plan` and `at` say otherwise.

    Args:
        seeds: one per head, 63 bits.
        device: where masks are made.
    """

    def __init__(self, seeds: Sequence[int], device: torch.device | str = "cpu") -> None:
        self._seeds = np.asarray(seeds, dtype=np.uint64)
        self._device = torch.device(device)
        self._counters: dict[int, Tensor] = {}
        self.plan(np.zeros((1, len(seeds)), dtype=np.int64))

    def plan(self, steps: NDArray[np.int64]) -> None:
        """Say which steps come next, so that their keys are made at once: (S, M), each head's own number."""
        self._steps = steps
        self._keys: dict[int, Tensor] = {}
        self._now = 0

    def at(self, number: int) -> None:
        """Draw for a step of the plan, 0 to S - 1."""
        self._now = number

    def keep(self, stream: int, shape: Sequence[int], drop: Tensor | float) -> Tensor:
        """float32 of `shape` (M, N, U): 0 with probability `drop`, else 1 / (1 - drop).

        Args:
            stream: which mask of the step; different numbers give independent masks.
            shape: M heads first. The mask of a row does not depend on how many rows follow it.
            drop: probability per head (M,), or one for all; good to 1 / 65536.
        """
        models, elements = shape[0], int(np.prod(shape[1:]))
        bits = self._bits(stream, models, elements).view(torch.int16)[:, :elements]
        # Compared in place, to 0 or 1 of the same type: going through bool takes ten times as long.
        if isinstance(drop, Tensor):
            drop = drop.reshape(models, 1)
            kept = bits.ge_(((drop * _WORD).round() - _WORD // 2).to(torch.int16)).to(torch.float32)
            return kept.mul_(1 / (1 - drop)).view(*shape)
        return bits.ge_(round(drop * _WORD) - _WORD // 2).to(torch.float32).mul_(1 / (1 - drop)).view(*shape)

    def uniform(self, stream: int, models: int, count: int) -> Tensor:
        """float32 (models, count) in [0, 1), in steps of 1 / 65536."""
        bits = self._bits(stream, models, count).view(torch.int16)[:, :count]
        return bits.to(torch.float32).add_(_WORD / 2).div_(_WORD)

    def _bits(self, stream: int, models: int, count: int) -> Tensor:
        """int32 (models, ceil(count / 2)) of random bits."""
        words = (count + 1) // 2
        if words not in self._counters:
            self._counters[words] = torch.arange(words, dtype=torch.int32, device=self._device) * _GOLDEN
        if stream not in self._keys:
            self._keys[stream] = self._make_keys(stream).to(self._device)
        first, second = self._keys[stream][self._now, :, :models]
        bits: Tensor = self._counters[words] ^ first
        bits ^= (bits >> 16).bitwise_and_(0xFFFF)
        bits *= _MIX1
        bits ^= second
        bits ^= (bits >> 13).bitwise_and_(0x7FFFF)
        bits *= _MIX2
        bits ^= (bits >> 16).bitwise_and_(0xFFFF)
        return bits

    def _make_keys(self, stream: int) -> Tensor:
        """Two int32 per step and head, (S, 2, M, 1): SplitMix64 (Steele et al. 2014) of seed, step and stream."""
        if not 0 <= stream < STREAMS:
            raise ValueError(f"stream {stream} of {STREAMS}")
        number = np.array([2 * stream + 1, 2 * stream + 2], dtype=np.uint64)[:, None]
        with np.errstate(over="ignore"):
            place = self._steps.astype(np.uint64)[:, None, :] * np.uint64(2 * STREAMS) + number
            state = self._seeds + np.uint64(0x9E3779B97F4A7C15) * place
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state ^= state >> np.uint64(31)
        return torch.from_numpy((state >> np.uint64(32)).astype(np.uint32).view(np.int32)[..., None])
