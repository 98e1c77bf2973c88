"""Standardised inputs: what is NaN, infinite or in a constant column counts as the mean, whatever its size."""

import math

import torch

from vqa_train.heads.base import standardise


def test_what_says_nothing_becomes_zero() -> None:
    x = torch.tensor([[math.nan, 0.0], [math.inf, 3e38], [-math.inf, -3e38], [4.0, 2.0]])
    mean, std, varies = torch.tensor([[2.0, -3e38]]), torch.tensor([[4.0, 1.0]]), torch.tensor([[1.0, 0.0]])
    expected = torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.5, 0.0]])
    torch.testing.assert_close(standardise(x, mean, std, varies, 6.0)[0], expected, rtol=0, atol=0)


def test_it_clips_at_so_many_deviations() -> None:
    x, one = torch.tensor([[50.0], [-50.0], [3.4e38]]), torch.ones(1, 1)
    torch.testing.assert_close(standardise(x, 0 * one, 2 * one, one, 6.0)[0], torch.tensor([[6.0], [-6.0], [6.0]]))
