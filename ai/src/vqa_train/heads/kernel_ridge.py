"""The kernel ridge head: a Gaussian kernel in closed form, its width and penalty chosen by leave-one-out error."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from vqa_train.core.config import StrictModel
from vqa_train.core.hashing import seed_from
from vqa_train.heads.base import Head
from vqa_train.heads.config import HeadConfig, TrainConfig
from vqa_train.heads.linear import alike, blocks
from vqa_train.heads.noise import Noise

_BLOCK = 1024
# Added to the diagonal of the landmarks' kernel matrix before its factorisation.
_JITTER = 1e-10

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class KernelRidgeOptions(StrictModel):
    """Settings of `kernel_ridge`.

    Attributes:
        gammas: kernel widths that are tried, as multiples of 1 / columns: exp(-gamma |a - b|^2 / columns).
        alphas: penalties that are tried: the variance of a label's noise over that of the function.
        search_rows: rows on which width and penalty are chosen.
        refine_rows: rows on which the penalty is then moved along `alphas` as long as the error falls.
        max_rows: rows that become centres of the kernel; with more training rows, that many of them (landmarks).
    """

    gammas: tuple[Positive, ...] = Field(default=(0.05, 0.15, 0.5, 1.5), min_length=1)
    alphas: tuple[Positive, ...] = Field(default=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0), min_length=1)
    search_rows: int = Field(default=192, ge=2)
    refine_rows: int = Field(default=448, ge=2)
    max_rows: int = Field(default=4096, ge=2)


class KernelRidgeHead(Head):
    """Per target, the minimum of sum_i w_i (y_i - b - f(x_i))^2 + alpha |f|^2 over functions f of the kernel.

    The intercept b is free: (K + alpha / W) a + b = y with sum(a) = 0, one bordered system. Residual i of a fit
    without row i is then a_i / C_ii, C being the inverse of the bordered matrix (Cawley and Talbot 2004, "Fast exact
    leave-one-out cross-validation of sparse least-squares support vector machines").

    Width and penalty have the least weighted mean square leave-one-out error on `search_rows` of the labelled rows,
    taken without looking at their contents; on `refine_rows` of them the penalty then moves to a neighbour as long as
    that error falls. It is kept as it is for all rows, being a ratio of variances. One Cholesky factorisation in
    float64 then uses every labelled row. With more than `max_rows` rows the function is
    spanned by that many landmarks instead (subset of regressors, Smola and Schölkopf 2000), fitted to all rows with
    memory for max_rows^2 numbers. Nothing depends on the seed. The graph holds the centres, so its size grows with
    them. Distances are float64 in the graph too. See `Head` for arguments and scalings.
    """

    kind: ClassVar[str] = "kernel_ridge"
    closed_form: ClassVar[bool] = True
    options_type: ClassVar[type[StrictModel]] = KernelRidgeOptions

    options: KernelRidgeOptions
    centres: Tensor
    coefficients: Tensor
    gamma: Tensor
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
        for name in ("gamma", "bias"):
            self.register_buffer(name, torch.zeros(models, self.width, dtype=torch.float64, device=device))
        self._make_room(0)

    def _make_room(self, rows: int) -> None:
        models, device = self.models, self.gamma.device
        self.register_buffer("centres", torch.zeros(models, rows, self.columns, device=device))
        coefficients = torch.zeros(models, rows, self.width, dtype=torch.float64, device=device)
        self.register_buffer("coefficients", coefficients)

    def sized(self, tensors: Mapping[str, Tensor]) -> Self:
        """With space for as many centres as the state dictionary has."""
        centres = tensors.get("centres")
        if centres is not None and centres.ndim == 3:
            self._make_room(centres.shape[1])
        return self

    def network(self, x: Tensor, noise: Noise | None = None, dropout: Tensor | float = 0.0) -> Tensor:
        """(M, N, C) standardised to (M, N, W)."""
        if torch.onnx.is_in_onnx_export() or x.shape[1] <= _BLOCK:
            return self._block(x)
        return torch.cat([self._block(x[:, start : start + _BLOCK]) for start in range(0, x.shape[1], _BLOCK)], dim=1)

    def _block(self, x: Tensor) -> Tensor:
        distance = squared_distance(x.double(), self.centres.double())
        parts = []
        for k in range(self.width):
            kernel = torch.exp(-self.gamma[:, k, None, None] * distance)
            parts.append(torch.bmm(kernel, self.coefficients[:, :, k : k + 1]))
        return (torch.cat(parts, dim=2) + self.bias.unsqueeze(1)).float()

    @torch.no_grad()
    def solve(self, x: Tensor, y: Tensor, weight: Tensor, config: TrainConfig, seed: int) -> dict[str, float]:
        """As `Head.solve`; what it gives, per target unless said otherwise.

        `<target>.gamma` (times 1 / columns) and `<target>.alpha` chosen, `<target>.loo_rmse_sd`, the root of the
        weighted mean square leave-one-out error of the rows that they were chosen on, in standard deviations of the
        labels, and the number of these, `<target>.loo_rows`; `centres`, rows that the kernel is centred on, and
        `rows`, all of them.
        """
        taken = torch.from_numpy(sample(len(x), self.options.max_rows))
        self._make_room(len(taken))
        self.centres[0] = x[taken]
        chosen = {"centres": float(len(taken)), "rows": float(len(x))}
        for columns in alike(weight):
            rows = torch.nonzero(weight[:, columns[0]] > 0).squeeze(1)
            w = weight[rows, columns[0]].double()
            labels, inputs = y[rows][:, columns].double(), x[rows]
            best = self._choose(inputs, labels, w)
            for place, column in enumerate(columns):
                gamma, alpha, error, used = best[place]
                scaled = gamma / self.columns
                if len(taken) == len(x):
                    a, b = solve_rows(inputs.double(), labels[:, place], w, scaled, alpha)
                    self.coefficients[0, rows, column] = a
                else:
                    a, b = solve_landmarks(inputs, labels[:, place], w, self.centres[0].double(), scaled, alpha)
                    self.coefficients[0, :, column] = a
                self.gamma[0, column], self.bias[0, column] = scaled, b
                name = self.targets[column]
                chosen |= {
                    f"{name}.gamma": gamma,
                    f"{name}.alpha": alpha,
                    f"{name}.loo_rmse_sd": error**0.5,
                    f"{name}.loo_rows": float(used),
                }
        return chosen

    def _choose(self, x: Tensor, y: Tensor, weight: Tensor) -> list[tuple[float, float, float, int]]:
        """Gamma, alpha, weighted mean square leave-one-out error and its number of rows, for each column of y."""
        few, more = (
            torch.from_numpy(sample(len(x), count)) for count in (self.options.search_rows, self.options.refine_rows)
        )
        found = self._search(x[few].double(), y[few], weight[few])
        if len(more) <= len(few):
            return [(*best, len(few)) for best in found]
        distance = squared_distance(x[more].double(), x[more].double())
        results = []
        for column, (gamma, alpha, _) in enumerate(found):
            kernel = torch.exp(distance * (-gamma / self.columns))
            refined = self._refine(kernel, y[more, column], weight[more], alpha)
            results.append((gamma, *refined, len(more)))
        return results

    def _refine(self, kernel: Tensor, y: Tensor, weight: Tensor, start: float) -> tuple[float, float]:
        """Alpha and its error, downhill along the grid from `start`."""
        alphas = sorted(self.options.alphas)
        errors: dict[int, float] = {}

        def error(place: int) -> float:
            if not 0 <= place < len(alphas):
                return math.inf
            if place not in errors:
                errors[place] = leave_one_out_of(kernel, y, weight, alphas[place])
            return errors[place]

        place = alphas.index(start)
        # The rows were few before: the penalty is more often too large than too small.
        step = -1 if error(place - 1) < error(place) else 1
        while error(place + step) < error(place):
            place += step
        return alphas[place], error(place)

    def _search(self, x: Tensor, y: Tensor, weight: Tensor) -> list[tuple[float, float, float]]:
        """Gamma, alpha and weighted mean square leave-one-out error, for each column of y."""
        alphas = torch.tensor(sorted(self.options.alphas, reverse=True), dtype=torch.float64)
        distance = squared_distance(x, x)
        best = [(0.0, 0.0, float("inf"))] * y.shape[1]
        # The smoothest first: of equal errors it is kept.
        for gamma in sorted(self.options.gammas):
            errors = leave_one_out(torch.exp(distance * (-gamma / self.columns)), y, weight, alphas)
            for column, (error, place) in enumerate(zip(*map(Tensor.tolist, errors.min(0)), strict=True)):
                if error < best[column][2]:
                    best[column] = (gamma, float(alphas[place]), error)
        return best


def squared_distance(a: Tensor, b: Tensor) -> Tensor:
    """(..., n, C) and (..., m, C) to (..., n, m)."""
    # In place: the matrix has as many numbers as all pairs of rows.
    product = torch.matmul(a, b.transpose(-1, -2)).mul_(-2)
    product += (a * a).sum(-1).unsqueeze(-1)
    product += (b * b).sum(-1).unsqueeze(-2)
    return product.clamp_(min=0)


def sample(rows: int, count: int) -> NDArray[np.int64]:
    """At most `count` of `rows` row numbers, rising; which ones depends on the two numbers alone."""
    if rows <= count:
        return np.arange(rows)
    generator = np.random.Generator(np.random.Philox(key=seed_from("kernel ridge rows", rows)))
    return np.sort(generator.permutation(rows)[:count])


def leave_one_out(kernel: Tensor, y: Tensor, weight: Tensor, alphas: Tensor) -> Tensor:
    """Weighted mean square leave-one-out error of every penalty, float64 (L, k), by one eigendecomposition.

    Args:
        kernel: float64 (n, n).
        y: float64 (n, k).
        weight: float64 (n,), above 0.
        alphas: float64 (L,), above 0.
    """
    root = weight.sqrt()
    # Scaled by the roots of the weights the penalty is the same for every row.
    values, vectors = torch.linalg.eigh(kernel * root[:, None] * root)
    shrink = 1 / (values.clamp(min=0)[:, None] + alphas)
    ones = vectors @ (shrink * (vectors.T @ root)[:, None])
    border = (root[:, None] * ones).sum(0)
    inverse = (vectors * vectors) @ shrink - ones * ones / border
    errors = torch.empty(len(alphas), y.shape[1], dtype=torch.float64)
    for column in range(y.shape[1]):
        solved = vectors @ (shrink * (vectors.T @ (root * y[:, column]))[:, None])
        solved -= ones * ((root[:, None] * solved).sum(0) / border)
        # Root of the weight times the residual.
        errors[:, column] = ((solved / inverse) ** 2).sum(0) / weight.sum()
    return errors


def leave_one_out_of(kernel: Tensor, y: Tensor, weight: Tensor, alpha: float) -> float:
    """`leave_one_out` of one penalty and one target, by one inverse, which costs a tenth of the eigendecomposition.

    Args:
        y: float64 (n,).
    """
    matrix = kernel.clone()
    matrix.diagonal().add_(alpha / weight)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(matrix))
    ones, solved = inverse.sum(1), inverse @ y
    border = ones.sum()
    residual = (solved - solved.sum() / border * ones) / (inverse.diagonal() - ones * ones / border)
    return float((weight * residual * residual).sum() / weight.sum())


def solve_rows(x: Tensor, y: Tensor, weight: Tensor, gamma: float, alpha: float) -> tuple[Tensor, float]:
    """Coefficients (n,) and intercept of the bordered system; all float64, weights above 0."""
    kernel = squared_distance(x, x).mul_(-gamma).exp_()
    kernel.diagonal().add_(alpha / weight)
    factor = torch.linalg.cholesky(kernel)
    both = torch.cholesky_solve(torch.stack([y, torch.ones_like(y)], dim=1), factor)
    bias = both[:, 0].sum() / both[:, 1].sum()
    return both[:, 0] - bias * both[:, 1], float(bias)


def solve_landmarks(
    x: Tensor, y: Tensor, weight: Tensor, centres: Tensor, gamma: float, alpha: float
) -> tuple[Tensor, float]:
    """Coefficients (m,) of the landmarks and intercept; float64 but for `x`, of which blocks are made so.

    In the basis that makes the landmarks' kernel matrix the identity, this is ridge regression.
    """
    kernel = squared_distance(centres, centres).mul_(-gamma).exp_()
    kernel.diagonal().add_(_JITTER * len(kernel))
    factor = torch.linalg.cholesky(kernel)
    size = len(centres)
    gram = torch.zeros(size, size, dtype=torch.float64)
    mean, product = torch.zeros(size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64)
    total, y_mean = weight.sum(), weight @ y / weight.sum()
    for rows, t, w in zip(*(blocks(part, _BLOCK) for part in (x, y, weight)), strict=True):
        block = squared_distance(rows.double(), centres).mul_(-gamma).exp_()
        block = torch.linalg.solve_triangular(factor, block.T, upper=False)
        mean += block @ w
        product += block @ (w * (t - y_mean))
        gram.addmm_(block * w, block.T)
    mean /= total
    gram.addr_(mean, mean, alpha=-float(total))
    gram.diagonal().add_(alpha)
    solved = torch.cholesky_solve(product.unsqueeze(1), torch.linalg.cholesky(gram))
    bias = y_mean - mean @ solved[:, 0]
    return torch.linalg.solve_triangular(factor.T, solved, upper=True)[:, 0], float(bias)
