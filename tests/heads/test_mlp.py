"""The perceptron computes what torch's own linear layers compute, and starts like them."""

import numpy as np
import pytest
import torch
from torch import nn

from vqa_train.heads.config import HeadConfig
from vqa_train.heads.mlp import MlpHead
from vqa_train.heads.noise import Noise

ACTIVATIONS = {"gelu": nn.GELU, "relu": nn.ReLU, "silu": nn.SiLU}


def drawn(models: int = 1, columns: int = 6, **config) -> MlpHead:
    head = MlpHead({"a": columns - 2, "b": 2}, ["x", "y"], HeadConfig(**config), models=models)
    head.initialise([torch.Generator().manual_seed(seed) for seed in range(models)])
    return head


@pytest.mark.parametrize("hidden", [(), (8,), (16, 8)])
@pytest.mark.parametrize("activation", ["gelu", "relu", "silu"])
def test_it_is_linear_layers_with_an_activation_between_them(hidden, activation):
    head = drawn(hidden=hidden, activation=activation)
    layers: list[nn.Module] = []
    for weight, bias in zip(head.layers.weights, head.layers.biases, strict=True):
        layer = nn.Linear(*weight.shape[1:])
        layer.weight.data, layer.bias.data = weight[0].T, bias[0] + 0.1
        bias.data += 0.1
        layers += [layer, ACTIVATIONS[activation]()]
    x = torch.randn(7, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(head.network(x[None])[0], nn.Sequential(*layers[:-1])(x), rtol=1e-5, atol=1e-6)


def test_initial_weights_are_uniform_in_one_over_the_root_of_the_fan_in():
    head = drawn(columns=400, hidden=(300,))
    first, second = (weight.detach().numpy().ravel() for weight in head.layers.weights)
    for values, fan_in in ((first, 400), (second, 300)):
        edge = fan_in**-0.5
        assert edge * 0.97 < np.abs(values).max() <= edge
        assert values.std() == pytest.approx(edge / 3**0.5, rel=0.05)
    assert not any(bias.any() for bias in head.layers.biases)


def test_dropout_zeroes_its_share_and_keeps_the_mean():
    head = drawn(hidden=(2000,))
    x = torch.randn(1, 1, 6, generator=torch.Generator().manual_seed(0)).expand(1, 300, 6)
    kept = head.network(x)[0, 0]
    dropped = head.network(x, Noise([3]), 0.4)[0]
    assert dropped.std(dim=0).min() > 0
    error = (dropped.mean(dim=0) - kept).abs() / (dropped.std(dim=0) / 300**0.5)
    assert error.max() < 4
