"""Dropout from a generator of its own."""

import pytest
import torch

from vqa_train.heads.dropout import Dropout


def test_the_share_asked_for_is_zeroed_and_the_mean_kept():
    dropout = Dropout(0.3)
    dropout.generator = torch.Generator().manual_seed(0)
    out = dropout(torch.ones(100_000))
    assert (out == 0).float().mean().item() == pytest.approx(0.3, abs=0.01)
    assert out.mean().item() == pytest.approx(1.0, abs=0.01)
    assert out.max().item() == pytest.approx(1 / 0.7)


def test_evaluation_mode_is_the_identity():
    x = torch.ones(5)
    assert Dropout(0.5).eval()(x) is x


def test_it_draws_from_its_generator_alone():
    before = torch.get_rng_state()
    results = []
    for _ in range(2):
        dropout = Dropout(0.5)
        dropout.generator = torch.Generator().manual_seed(3)
        results.append(dropout(torch.ones(64)))
    assert torch.equal(*results)
    assert torch.equal(torch.get_rng_state(), before)


def test_training_without_a_generator_is_an_error_rather_than_global_randomness():
    with pytest.raises(RuntimeError, match="no generator"):
        Dropout(0.5)(torch.ones(3))
