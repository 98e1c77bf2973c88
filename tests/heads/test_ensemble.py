"""Several heads as one: means, spreads by the law of total variance, and the same numbers from the graph."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm

from vqa_train.core.errors import ConfigError
from vqa_train.heads.base import ScalingStatistics
from vqa_train.heads.config import HeadConfig, TrainConfig
from vqa_train.heads.ensemble import Ensemble
from vqa_train.heads.kernel_ridge import KernelRidgeHead
from vqa_train.heads.mlp import MlpHead
from vqa_train.onnx.export import export_module
from vqa_train.onnx.parity import check_parity, torch_reference

INPUTS = {"a": 4, "b": 2}
TARGETS = ["overall", "motion"]


def statistics(seed: int) -> ScalingStatistics:
    rng = np.random.default_rng(seed)
    return ScalingStatistics(
        input_mean=rng.normal(size=6).astype(np.float32),
        input_std=rng.uniform(0.5, 2, 6).astype(np.float32),
        input_varies=np.ones(6, dtype=np.bool_),
        target_mean=np.array([3, 50 + seed], dtype=np.float32),
        target_std=np.array([0.7, 15], dtype=np.float32),
        target_min=np.array([1, 10 - seed], dtype=np.float32),
        target_max=np.array([5, 90], dtype=np.float32),
    )


def head(seed: int = 0, models: int = 1, **config) -> MlpHead:
    made = MlpHead(INPUTS, TARGETS, HeadConfig(hidden=(8,), **config), models=models)
    made.initialise([torch.Generator().manual_seed(seed + model) for model in range(models)])
    made.set_statistics([statistics(seed + model) for model in range(models)])
    return made.requires_grad_(False).eval()


def kernel(seed: int = 0, rows: int = 30) -> KernelRidgeHead:
    rng = np.random.default_rng(seed)
    made = KernelRidgeHead(INPUTS, TARGETS, HeadConfig(kind="kernel_ridge"))
    made.set_statistics([statistics(seed)])
    x = torch.from_numpy(rng.normal(size=(rows, 6)).astype(np.float32))
    made.solve(x, x[:, :2] ** 2, torch.ones(rows, 2), TrainConfig(), 0)
    return made.eval()


def features(count: int = 9, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(count, size, generator=generator) for size in INPUTS.values()]


def test_the_score_is_the_weighted_mean_and_the_spread_the_weighted_deviation():
    heads = [head(1), head(2), kernel(3)]
    weights = [1.0, 0.5, 3.0]
    scores, spread = Ensemble(heads, weights)(*features())
    each = np.stack([h(*features()).double().numpy() for h in heads])
    mean = np.average(each, axis=0, weights=weights)
    np.testing.assert_allclose(scores, mean, rtol=1e-6)
    np.testing.assert_allclose(spread, np.average((each - mean) ** 2, axis=0, weights=weights) ** 0.5, rtol=1e-4)
    assert (scores.dtype, spread.dtype, scores.shape) == (torch.float32, torch.float32, (9, 2))


def test_without_weights_all_members_count_the_same():
    members = [head(1), head(2)]
    scores, spread = Ensemble(members)(*features())
    one, two = (member(*features()) for member in members)
    torch.testing.assert_close(scores, (one + two) / 2)
    torch.testing.assert_close(spread, (one - two).abs() / 2, rtol=1e-4, atol=1e-5)


def test_models_of_one_member_share_its_weight():
    batch = head(5, models=3)
    other = head(9)
    scores, spread = Ensemble([batch, other], [2.0, 1.0])(*features())
    alone = Ensemble([*(batch.select([m]) for m in range(3)), other], [2 / 3, 2 / 3, 2 / 3, 1.0])
    torch.testing.assert_close((scores, spread), alone(*features()), rtol=1e-5, atol=1e-5)
    assert Ensemble([batch, other]).models == 4


def test_one_head_is_itself_and_has_no_spread():
    only = head()
    ensemble = Ensemble([only])
    scores, spread = ensemble(*features())
    assert torch.equal(scores, only(*features()))
    assert torch.equal(spread, torch.zeros(9, 2))
    assert not ensemble.states_spread


def test_one_head_with_a_deviation_of_its_own_states_it():
    only = head(output="heteroscedastic")
    ensemble = Ensemble([only])
    assert ensemble.states_spread
    torch.testing.assert_close(ensemble(*features())[1], only.spread(only.raw(*features()))[0])


def test_gaussian_members_are_one_mixture():
    """Mean and deviation of the mixture's density, integrated; a member of output `point` has no deviation."""
    heads, weights = [head(1, output="heteroscedastic"), head(2, output="heteroscedastic"), head(3)], [1.0, 2.0, 1.5]
    scores, spread = Ensemble(heads, weights)(*features(3))
    share = np.asarray(weights) / sum(weights)
    for row in range(3):
        places = [h(*features(3))[row, 0].item() for h in heads]
        widths = [h.spread(h.raw(*features(3)))[0, row, 0].item() for h in heads[:2]]

        def moment(power, centre, places=places, widths=widths):
            def density(value):
                return sum(w * norm.pdf(value, m, s) for w, m, s in zip(share, places, widths, strict=False))

            edges = (min(places) - 12 * max(widths), max(places) + 12 * max(widths))
            body = quad(lambda v: (v - centre) ** power * density(v), *edges, points=places, limit=200)[0]
            return body + share[2] * (places[2] - centre) ** power

        mean = moment(1, 0.0)
        assert scores[row, 0].item() == pytest.approx(mean, rel=1e-5)
        assert spread[row, 0].item() == pytest.approx(moment(2, mean) ** 0.5, rel=1e-4)


@pytest.mark.parametrize(
    ("members", "weights"), [([], None), (1, [0.0]), (2, [1.0]), (2, [1.0, -1.0]), (1, [math.nan]), (2, [math.inf, 1])]
)
def test_weights_that_mean_nothing_are_errors(members, weights):
    with pytest.raises(ConfigError, match="weights above 0"):
        Ensemble([head() for _ in range(members or 0)], weights)


@pytest.mark.parametrize(
    ("inputs", "targets"), [({"a": 4, "b": 3}, TARGETS), ({"b": 2, "a": 4}, TARGETS), (INPUTS, ["motion", "overall"])]
)
def test_members_with_other_inputs_or_targets_or_another_order_are_errors(inputs, targets):
    with pytest.raises(ConfigError, match="members of an ensemble differ"):
        Ensemble([head(), MlpHead(inputs, targets, HeadConfig())])


def test_the_expected_range_is_that_of_all_members():
    low, high = Ensemble([head(1), head(7)]).expected_output_range()["motion"]
    assert (low, high) == pytest.approx((3 - 8.7, 90 + 8.7))


@pytest.mark.parametrize("output", ["point", "ordinal", "heteroscedastic"])
def test_the_graph_gives_the_same_scores_and_spread(output, tmp_path):
    ensemble = Ensemble([head(1, output=output), kernel(2), head(5, models=2, output=output)], [1, 2, 1]).eval()
    path = tmp_path / "ensemble.onnx"
    export_module(
        ensemble, tuple(features(2)), path, input_names=list(INPUTS), output_names=["scores", "spread"],
        dynamic_axes={name: {0: "N"} for name in [*INPUTS, "scores", "spread"]}, fold=False,
    )  # fmt: skip
    real = {name: x.numpy() for name, x in zip(INPUTS, features(50), strict=True)}
    reference = torch_reference(ensemble, list(INPUTS), ["scores", "spread"])
    assert reference(real)["spread"].min() > 0
    report = check_parity(reference, path, real, missing=True)
    assert {entry.output for entry in report.sets} == {"scores", "spread"}
