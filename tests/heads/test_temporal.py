"""The temporal head: attention over time, by hand and on a signal that only one step carries."""

import numpy as np
import pytest
import torch
from scipy.special import softmax
from torch.nn import functional

from vqa_train.core.config import parse
from vqa_train.core.errors import ConfigError
from vqa_train.evaluation import METRICS
from vqa_train.heads.config import HeadConfig, TrainConfig
from vqa_train.heads.temporal import TemporalHead
from vqa_train.heads.trainer import fit_head, predict


def head(inputs, hidden=(), **options) -> TemporalHead:
    made = TemporalHead(inputs, ["mos"], HeadConfig(kind="temporal", hidden=hidden, options=options))
    made.initialise([torch.Generator().manual_seed(0)])
    return made


def test_steps_are_projected_weighed_by_attention_and_joined_with_the_vectors():
    made = head({"a": (3, 2), "v": 2, "b": (4, 1)}, width=3)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.uniform_(-1, 1, generator=torch.Generator().manual_seed(1))
    x = np.random.default_rng(0).normal(size=(5, 12))
    pooled = []
    for number, steps in enumerate((x[:, :6].reshape(5, 3, 2), x[:, 8:].reshape(5, 4, 1))):
        weight, bias = (
            part[0][0].detach().double().numpy()
            for part in (made.projections[number].weights, made.projections[number].biases)
        )
        h = functional.gelu(torch.from_numpy(steps @ weight + bias)).numpy()
        share = softmax(h @ made.queries[number][0, :, 0].detach().double().numpy() / 3**0.5, axis=1)
        pooled.append(np.einsum("nt,ntw->nw", share, h))
    joined = np.concatenate([*pooled, x[:, 6:8]], axis=1)
    expected = joined @ made.layers.weights[0][0].detach().double().numpy() + made.layers.biases[0][0].item()
    got = made.network(torch.from_numpy(x.astype(np.float32))[None])[0]
    np.testing.assert_allclose(got.detach().numpy(), expected, rtol=1e-4, atol=1e-5)


def test_the_order_of_the_steps_does_not_matter_and_a_zero_query_is_the_mean():
    made = head({"a": (6, 4)}, hidden=(8,))
    x = torch.randn(1, 5, 6, 4, generator=torch.Generator().manual_seed(0))
    forward, backward = made.network(x.flatten(2)), made.network(x.flip(2).flatten(2))
    torch.testing.assert_close(forward, backward, rtol=1e-4, atol=1e-6)
    made.queries[0].data.zero_()
    one = made.network(x[:, :, :1].expand(-1, -1, 6, -1).flatten(2))
    made.queries[0].data.fill_(5.0)
    # Where all steps are the same the query has nothing to choose.
    torch.testing.assert_close(made.network(x[:, :, :1].expand(-1, -1, 6, -1).flatten(2)), one, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(made.network(x.flatten(2)), forward, rtol=1e-3)


def test_without_an_input_that_keeps_time_it_is_an_error():
    with pytest.raises(ConfigError, match=r"input of shape \(time, columns\).*`mlp`"):
        TemporalHead({"pooled": 7}, ["mos"], HeadConfig(kind="temporal"))


def test_inputs_of_three_dimensions_are_an_error():
    with pytest.raises(ConfigError, match=r"shape \[2, 3, 4\]"):
        TemporalHead({"maps": (2, 3, 4)}, ["mos"], HeadConfig(kind="temporal"))


def test_a_flaw_in_one_step_is_found_wherever_it_is():
    """The worst step decides, and the mean over time hides it: attention must find it."""
    rng = np.random.default_rng(0)
    steps = rng.normal(size=(1200, 8, 4)).astype(np.float32) * 0.5
    at = rng.integers(0, 8, 1200)
    flaw = rng.uniform(-3, 3, 1200)
    steps[np.arange(1200), at, 0] += 8  # marks the step
    steps[np.arange(1200), at, 1] = flaw
    noise = steps[:, :, 1].sum(axis=1) - flaw
    # What is left of the mean's own information is taken away.
    steps[np.arange(1200), (at + 1) % 8, 1] -= noise + flaw
    mos = flaw[:, None].astype(np.float32)
    names = [f"{i:04d}" for i in range(900)]
    recipe = {
        "epochs": 60, "head": {"kind": "temporal", "hidden": [16], "options": {"width": 16}, "clip_sd": 10},
        "validation": {"fraction": 0}, "patience": None,
    }  # fmt: skip
    fitted = fit_head(
        {"steps": steps[:900]}, mos[:900], names, ["mos"], parse(TrainConfig, recipe, "recipe"),
        metric=METRICS.get("srocc"), keys=names,
    )  # fmt: skip
    assert abs(np.corrcoef(steps[900:, :, 1].mean(axis=1), mos[900:, 0])[0, 1]) < 0.1
    predicted = predict(fitted.module, {"steps": steps[900:]})
    assert np.corrcoef(predicted[:, 0], mos[900:, 0])[0, 1] > 0.8
