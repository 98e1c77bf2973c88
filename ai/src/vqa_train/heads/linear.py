"""The linear head: ridge regression in closed form, its penalty chosen by exact leave-one-out error."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from vqa_train.core.config import StrictModel
from vqa_train.heads.base import Head
from vqa_train.heads.config import HeadConfig, TrainConfig
from vqa_train.heads.noise import Noise

# Penalties that are tried, per unit of the rows' total weight: 10^-6 to 10^4, four per decade. Standardised columns
# have a covariance whose eigenvalues sum to their number, so that this spans "none" to "only the mean".
_PENALTIES = torch.logspace(-6, 4, 41, dtype=torch.float64)
_BLOCK = 8192


class LinearOptions(StrictModel):
    """`alpha`: the penalty, as scikit-learn's `Ridge` has it, on standardised inputs and labels; null chooses it."""

    alpha: float | None = Field(default=None, gt=0, allow_inf_nan=False)


class LinearHead(Head):
    """Per target, the minimum of sum_i w_i (y_i - b - x_i c)^2 + alpha |c|^2; the intercept b is not penalised.

    alpha has the least weighted mean square leave-one-out error over a grid (Allen 1974, PRESS), which one
    eigendecomposition of the smaller of the two Gram matrices gives exactly for the whole grid. Nothing is drawn. The
    sums are float64, in the graph too. See `Head` for arguments and scalings.
    """

    kind: ClassVar[str] = "linear"
    closed_form: ClassVar[bool] = True
    options_type: ClassVar[type[StrictModel]] = LinearOptions

    options: LinearOptions
    weight: Tensor
    bias: Tensor

    def __init__(
        self,
        inputs: Mapping[str, int | Sequence[int]],
        targets: Sequence[str],
        config: HeadConfig,
        *,
        models: int = 1,
        device: str = "cpu",
    ) -> None:
        super().__init__(inputs, targets, config, models=models, device=device)
        for name, shape in (("weight", (models, self.columns, self.width)), ("bias", (models, self.width))):
            self.register_buffer(name, torch.zeros(shape, dtype=torch.float64, device=device))

    def network(self, x: Tensor, noise: Noise | None = None, dropout: Tensor | float = 0.0) -> Tensor:
        """(M, N, C) standardised to (M, N, W)."""
        return torch.baddbmm(self.bias.unsqueeze(1), x.double(), self.weight).float()

    @torch.no_grad()
    def solve(self, x: Tensor, y: Tensor, weight: Tensor, config: TrainConfig, seed: int) -> dict[str, float]:
        """As `Head.solve`; gives `<target>.alpha` and `<target>.loo_rmse_sd`.

        The latter is the root of the weighted mean square leave-one-out error, in standard deviations of the labels.
        """
        chosen: dict[str, float] = {}
        for columns in alike(weight):
            rows = weight[:, columns[0]] > 0
            w = weight[rows, columns[0]].double()
            penalties = _PENALTIES * w.sum() if self.options.alpha is None else torch.tensor([self.options.alpha])
            fit = ridge(x[rows], y[rows][:, columns].double(), w, penalties.double())
            for place, column in enumerate(columns):
                alpha, error, coefficients, intercept = fit[place]
                self.weight[0, :, column], self.bias[0, column] = coefficients, intercept
                name = self.targets[column]
                chosen |= {f"{name}.alpha": alpha, f"{name}.loo_rmse_sd": error**0.5}
        return chosen


def alike(weight: Tensor) -> list[list[int]]:
    """Columns of (n, K) weights in groups with the same weights, which share one decomposition."""
    groups: list[list[int]] = []
    for column in range(weight.shape[1]):
        same = [group for group in groups if torch.equal(weight[:, group[0]], weight[:, column])]
        if same:
            same[0].append(column)
        else:
            groups.append([column])
    return groups


def ridge(x: Tensor, y: Tensor, weight: Tensor, penalties: Tensor) -> list[tuple[float, float, Tensor, Tensor]]:
    """Weighted ridge regression with a free intercept, the penalty of least leave-one-out error for each target.

    With rows centred by their weighted mean and scaled by the root of their weight, residual i of a fit without row
    i is r_i / (1 - h_i), h_i being the leverage w_i / sum(w) + sum_j z_ij^2 / (l_j + alpha) in the eigenbasis.

    Args:
        x: (n, C).
        y: float64 (n, k).
        weight: float64 (n,), above 0.
        penalties: float64 (L,), above 0.

    Returns:
        Per target: penalty, weighted mean square leave-one-out error, coefficients (C,), intercept.
    """
    total = weight.sum()
    mean = torch.zeros(x.shape[1], dtype=torch.float64)
    for rows, w in zip(blocks(x, _BLOCK), blocks(weight, _BLOCK), strict=True):
        mean += w @ rows.double()
    mean /= total
    y_mean = weight @ y / total
    root = weight.sqrt()
    target = (y - y_mean) * root[:, None]
    wide = x.shape[0] <= x.shape[1]

    def centred() -> Iterator[Tensor]:
        for rows, scale in zip(blocks(x, _BLOCK), blocks(root, _BLOCK), strict=True):
            yield (rows.double() - mean).mul_(scale[:, None])

    # `scores` of a block are its rows in the eigenbasis, (rows, r); `back` leads from there to coefficients.
    if wide:
        whole = torch.cat(list(centred()))
        values, vectors = torch.linalg.eigh(whole @ whole.T)
        there = values > values[-1] * torch.finfo(torch.float64).eps * len(whole)
        values, vectors = values[there], vectors[:, there]
        parts = [vectors * values.sqrt()]
        back = whole.T @ (vectors / values.sqrt())
    else:
        gram = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64)
        for block in centred():
            gram.addmm_(block.T, block)
        values, back = torch.linalg.eigh(gram)
        values = values.clamp(min=0)
        parts = []
    shrink = 1 / (values[:, None] + penalties)

    def scores() -> Iterator[Tensor]:
        yield from parts or (block @ back for block in centred())

    along = torch.zeros(len(values), y.shape[1], dtype=torch.float64)
    size = len(x) if wide else _BLOCK
    for z, t in zip(scores(), blocks(target, size), strict=True):
        along += z.T @ t
    errors = torch.zeros(len(penalties), y.shape[1], dtype=torch.float64)
    for z, t, w in zip(scores(), blocks(target, size), blocks(weight, size), strict=True):
        left = 1 - (z * z) @ shrink - (w / total)[:, None]
        for column in range(y.shape[1]):
            residual = t[:, column, None] - z @ (shrink * along[:, column, None])
            errors[:, column] += ((residual / left) ** 2).sum(0) / total
    results = []
    for column in range(y.shape[1]):
        # Of equal errors the larger penalty.
        best = len(penalties) - 1 - int(errors[:, column].flip(0).argmin())
        coefficients = back @ (shrink[:, best] * along[:, column])
        intercept = y_mean[column] - mean @ coefficients
        results.append((float(penalties[best]), float(errors[best, column]), coefficients, intercept))
    return results


def blocks(x: Tensor, size: int) -> Iterator[Tensor]:
    """The rows of a tensor, `size` at a time."""
    for start in range(0, len(x), size):
        yield x[start : start + size]
