"""AdamW for M models at once, each with its own learning rate, on parameters packed into one (M, P) matrix."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vqa_train.heads.config import TrainConfig

_EPSILON = 1e-8
# Share of a cycle in which `one_cycle` rises where the recipe does not say (Smith and Topin 2018 rise for 0.3 to 0.5).
_RISE = 0.3


class Packed:
    """The parameters of M models as one matrix: one operation serves them all, and a model is one row.

    Args:
        modules: whose parameters, all with a leading dimension of M, are moved into the matrix.
        models: M.

    Attributes:
        matrix: (M, P); the modules' parameters are views of it.
        matrices: float32 (P,), 1 where the parameter is a weight matrix, which decays, and 0 where it is a bias.
    """

    def __init__(self, modules: Sequence[nn.Module], models: int) -> None:
        self.parameters = [parameter for module in modules for parameter in module.parameters()]
        flat = [parameter.detach().reshape(models, -1) for parameter in self.parameters]
        self.matrix = torch.cat(flat, dim=1)
        decays = [
            torch.full((part.shape[1],), float(parameter.ndim > 2 and not getattr(parameter, "no_decay", False)))
            for part, parameter in zip(flat, self.parameters, strict=True)
        ]
        self.matrices = torch.cat(decays).to(self.matrix.device)
        self.bind(self.matrix)

    def bind(self, matrix: Tensor) -> None:
        """Let the parameters be views of another matrix of this form."""
        self.matrix = matrix
        column = 0
        for parameter in self.parameters:
            size = parameter[0].numel()
            parameter.data = matrix[:, column : column + size].view(len(matrix), *parameter.shape[1:])
            column += size

    def gradient(self, loss: Tensor, out: Tensor) -> Tensor:
        """Gradient of a scalar as (M, P), written to `out`."""
        parts: tuple[Tensor | None, ...] = torch.autograd.grad(loss, self.parameters, allow_unused=True)
        flat = [
            (torch.zeros_like(parameter) if part is None else part).reshape(len(out), -1)
            for part, parameter in zip(parts, self.parameters, strict=True)
        ]
        return torch.cat(flat, dim=1, out=out)


class AdamW:
    """Loshchilov and Hutter 2019, with the state of every model in one row of each matrix.

    Attributes:
        mean, square: (M, P), running means of the gradient and of its square.
    """

    def __init__(self, packed: Packed, weight_decay: Tensor, betas: tuple[float, float]) -> None:
        self.mean, self.square = torch.zeros_like(packed.matrix), torch.zeros_like(packed.matrix)
        self._strength = weight_decay.to(packed.matrix.device)[:, None]
        self.betas = betas
        self._bind(packed)

    def factors(self, lr: NDArray[np.float64], taken: NDArray[np.int64]) -> NDArray[np.float64]:
        """What `step` needs, worked out for many steps at once, (3, ...).

        Args:
            lr: learning rates (...), one per model or per step and model.
            taken: steps that each model took before, (...).
        """
        first, second = self.betas
        count = taken + 1
        return np.stack([lr / (1 - first**count), np.sqrt(1 - second**count), lr])

    @torch.no_grad()
    def step(self, packed: Packed, gradient: Tensor, factors: Tensor) -> None:
        """One step; `factors` float32 (3, M, 1), those of the method."""
        first, second = self.betas
        size, correction, lr = factors
        self.mean.lerp_(gradient, 1 - first)
        self.square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
        # Only the root of a product is left to do per weight: sqrt(v / c) + e = (sqrt(v) + e sqrt(c)) / sqrt(c).
        work = torch.sqrt(self.square, out=self._work).add_(correction * _EPSILON)
        torch.div(self.mean, work, out=work).mul_(size * correction)
        work.addcmul_(packed.matrix, self._decay * lr)
        packed.matrix.sub_(work)

    def select(self, packed: Packed, models: Tensor) -> None:
        """Keep only some models, whose parameters are in `packed`."""
        self.mean, self.square = self.mean[models], self.square[models]
        self._strength = self._strength[models]
        self._bind(packed)

    def _bind(self, packed: Packed) -> None:
        self._decay = self._strength * packed.matrices
        self._work = torch.empty_like(self.mean)


def learning_rate(config: TrainConfig, step: NDArray[np.int64], total: int) -> NDArray[np.float64]:
    """Learning rates of some steps (from 0) of `total`, by the recipe's schedule."""
    length = total if config.schedule == "constant" else total / config.cycles
    place = step % length
    share = config.warmup or (_RISE if config.schedule == "one_cycle" else 0.0)
    warm = round(share * length)
    high = np.ones(len(step))
    if config.schedule != "constant":
        high = (1 + np.cos(np.pi * (place - warm) / max(1, length - warm))) / 2
    rising = (place + 1) / max(1, warm)
    return np.asarray(config.optimizer.lr * np.where(place < warm, rising, high), dtype=np.float64)
