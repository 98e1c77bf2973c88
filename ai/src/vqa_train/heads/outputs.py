"""What a head's last layer means: a point, a distribution over the label range, or a mean with a variance.

Each works on standardised labels, on raw outputs (M, N, K * m) of M heads, K targets and m numbers per target.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from vqa_train.heads.config import HeadConfig

# A log-variance beyond this is no longer a variance: exp(8) standard deviations squared, or 1/3000 of one.
_MAX_LOG_VARIANCE = 8.0
# The bins of a distribution reach beyond the training labels by this share of their range, on either side.
_BIN_MARGIN = 0.05


class Output(ABC):
    """Meaning of the raw outputs."""

    @abstractmethod
    def width(self, targets: int) -> int:
        """Raw numbers per row, K * m."""

    @abstractmethod
    def scores(self, raw: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """Standardised scores (M, N, K); `low` and `high` (M, 1, K) are the range of the training labels."""

    def spread(self, raw: Tensor, low: Tensor, high: Tensor) -> Tensor | None:
        """Standardised standard deviation (M, N, K), or None where the output states none."""
        return None

    def loss(self, raw: Tensor, target: Tensor, weight: Tensor, low: Tensor, high: Tensor) -> Tensor | None:
        """Negative log-likelihood per target (M, K), weighted mean over the rows; None where there is none.

        Args:
            target, weight: (M, N, K); weight 0 where a label is missing.
        """
        return None


class PointOutput(Output):
    """The raw number is the score."""

    def width(self, targets: int) -> int:
        """One number per target."""
        return targets

    def scores(self, raw: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """The raw numbers."""
        return raw


class HeteroscedasticOutput(Output):
    """A Gaussian per row: K means, then K log-variances (Nix and Weigend 1994)."""

    def width(self, targets: int) -> int:
        """Mean and log-variance per target."""
        return 2 * targets

    def scores(self, raw: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """The means."""
        return raw[..., : raw.shape[-1] // 2]

    def spread(self, raw: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """exp(log-variance / 2)."""
        return (_log_variance(raw) / 2).exp()

    def loss(self, raw: Tensor, target: Tensor, weight: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """(log-variance + squared error / variance) / 2."""
        log_variance = _log_variance(raw)
        error = target - self.scores(raw, low, high)
        return _mean((log_variance + error * error * (-log_variance).exp()) / 2, weight)


class OrdinalOutput(Output):
    """A distribution over bins of the label range: K * bins logits; the score is its mean.

    The label is spread over the bins as a Gaussian one bin wide (Gao et al. 2017, label distribution learning).
    """

    def __init__(self, bins: int) -> None:
        self.bins = bins

    def width(self, targets: int) -> int:
        """`bins` logits per target."""
        return targets * self.bins

    def scores(self, raw: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """Mean of the distribution."""
        return (self.distribution(raw) * self.centres(low, high)).sum(-1)

    def spread(self, raw: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """Standard deviation of the distribution."""
        centres = self.centres(low, high)
        p = self.distribution(raw)
        mean = (p * centres).sum(-1, keepdim=True)
        return (p * (centres - mean) ** 2).sum(-1).clamp(min=0).sqrt()

    def loss(self, raw: Tensor, target: Tensor, weight: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """Cross-entropy against the label's histogram."""
        centres = self.centres(low, high)
        step = centres[..., 1:2] - centres[..., :1]
        distance = (centres - target.unsqueeze(-1)) / step
        histogram = torch.softmax(-distance * distance / 2, dim=-1)
        log_p = torch.log_softmax(self._split(raw), dim=-1)
        return _mean(-(histogram * log_p).sum(-1), weight)

    def distribution(self, raw: Tensor) -> Tensor:
        """Probability of each bin, (M, N, K, bins)."""
        return torch.softmax(self._split(raw), dim=-1)

    def centres(self, low: Tensor, high: Tensor) -> Tensor:
        """Centres of the bins, (M, 1, K, bins)."""
        margin = _BIN_MARGIN * (high - low)
        places = torch.linspace(0, 1, self.bins, device=low.device)
        return (low - margin).unsqueeze(-1) + (high - low + 2 * margin).unsqueeze(-1) * places

    def _split(self, raw: Tensor) -> Tensor:
        return raw.reshape(*raw.shape[:-1], raw.shape[-1] // self.bins, self.bins)


def output_of(config: HeadConfig) -> Output:
    """The output that the config names."""
    if config.output == "ordinal":
        return OrdinalOutput(config.bins)
    return HeteroscedasticOutput() if config.output == "heteroscedastic" else PointOutput()


def _log_variance(raw: Tensor) -> Tensor:
    # Bounded smoothly, so that its gradient never vanishes.
    return _MAX_LOG_VARIANCE * torch.tanh(raw[..., raw.shape[-1] // 2 :] / _MAX_LOG_VARIANCE)


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    total = weight.sum(-2)
    mean = (values * weight).sum(-2) / torch.where(total > 0, total, torch.ones_like(total))
    return mean
