"""What an exported head computes: scores, their spread, and an interval of the calibrated width around them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from vqa_train.core.errors import ConfigError
from vqa_train.heads.base import ScalingStatistics
from vqa_train.heads.config import HeadConfig
from vqa_train.heads.ensemble import Ensemble
from vqa_train.heads.graph import ScoringGraph
from vqa_train.heads.mlp import MlpHead

TARGETS = ["overall", "motion"]


def made(models: int = 1, seed: int = 0, **config: object) -> MlpHead:
    """A head with drawn weights and scores around 3."""
    head = MlpHead({"video": 3}, TARGETS, HeadConfig(hidden=(4,), **config), models=models)
    head.initialise([torch.Generator().manual_seed(seed + i) for i in range(models)])
    one = ScalingStatistics(
        input_mean=np.zeros(3, np.float32), input_std=np.ones(3, np.float32), input_varies=np.ones(3, np.bool_),
        target_mean=np.full(2, 3, np.float32), target_std=np.full(2, 0.5, np.float32),
        target_min=np.full(2, 1, np.float32), target_max=np.full(2, 5, np.float32),
    )  # fmt: skip
    head.set_statistics([one] * models)
    return head.eval()


ROWS = torch.randn(6, 3, generator=torch.Generator().manual_seed(9))


def test_one_plain_head_gives_scores_alone() -> None:
    head = made()
    graph = ScoringGraph(Ensemble([head]))
    assert graph.output_names == ("scores",)
    (scores,) = graph(ROWS)
    torch.testing.assert_close(scores, head(ROWS))


def test_several_heads_give_their_weighted_mean_and_deviation() -> None:
    members = [made(models=2), made(seed=5)]
    graph = ScoringGraph(Ensemble(members, [1, 3]))
    assert graph.output_names == ("scores", "spread")
    scores, spread = (values.detach().numpy() for values in graph(ROWS))
    alone = np.stack([made(seed=seed)(ROWS).detach().numpy() for seed in (0, 1, 5)]).astype(np.float64)
    weights = np.array([0.125, 0.125, 0.75])
    mean = np.average(alone, axis=0, weights=weights)
    np.testing.assert_allclose(scores, mean, rtol=1e-6)
    np.testing.assert_allclose(spread, np.sqrt(np.average((alone - mean) ** 2, axis=0, weights=weights)), rtol=1e-4)


def test_an_interval_lies_around_the_score() -> None:
    graph = ScoringGraph(Ensemble([made()]), {"motion": 0.25, "overall": 1.5})
    assert graph.output_names == ("scores", "low", "high")
    scores, low, high = graph(ROWS)
    torch.testing.assert_close(scores - low, torch.tensor([1.5, 0.25]).expand(6, 2))
    torch.testing.assert_close(high - scores, torch.tensor([1.5, 0.25]).expand(6, 2))


def test_a_normalised_interval_is_as_wide_as_the_spread_says() -> None:
    graph = ScoringGraph(Ensemble([made(output="heteroscedastic")]), {"overall": 2, "motion": 3}, normalised=True)
    assert graph.output_names == ("scores", "spread", "low", "high")
    scores, spread, low, high = graph(ROWS)
    torch.testing.assert_close(scores - low, spread * torch.tensor([2.0, 3.0]))
    torch.testing.assert_close(high - scores, spread * torch.tensor([2.0, 3.0]))


@pytest.mark.parametrize("normalised", [False, True])
def test_a_target_without_a_half_width_has_no_ends_even_without_spread(normalised: bool) -> None:
    # Two models with the same weights agree: their spread is 0, and infinity times 0 would be no number.
    twin = made(models=2)
    twin.load_state_dict({name: value[:1].expand_as(value) for name, value in twin.state_dict().items()})
    for halves in ({"motion": 1.0}, {"motion": 1.0, "overall": math.inf}):
        *_, spread, low, high = ScoringGraph(Ensemble([twin]), halves, normalised=normalised)(ROWS)
        assert spread[:, 0].abs().max() < 1e-6
        assert low[:, 0].eq(-math.inf).all()
        assert high[:, 0].eq(math.inf).all()
        assert low[:, 1].isfinite().all()


@pytest.mark.parametrize("halves", [None, {}, {"overall": math.inf}])
def test_without_a_finite_half_width_there_is_no_interval(halves: dict | None) -> None:
    assert ScoringGraph(Ensemble([made()]), halves).output_names == ("scores",)


@pytest.mark.parametrize("halves", [{"other": 1.0}, {"overall": -1.0}, {"overall": math.nan}])
def test_half_widths_that_cannot_be_are_refused(halves: dict) -> None:
    with pytest.raises(ConfigError, match="half width"):
        ScoringGraph(Ensemble([made()]), halves)


def test_a_normalised_interval_needs_a_spread() -> None:
    with pytest.raises(ConfigError, match="states none"):
        ScoringGraph(Ensemble([made()]), {"overall": 1.0}, normalised=True)
