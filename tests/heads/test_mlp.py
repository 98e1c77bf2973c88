"""The perceptron computes what torch's own linear layers compute, and starts like them."""

import math
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from vqa_train.heads.config import HeadConfig
from vqa_train.heads.ensemble import Ensemble
from vqa_train.heads.graph import ScoringGraph
from vqa_train.heads.mlp import MlpHead
from vqa_train.heads.noise import Noise
from vqa_train.onnx.export import export_module

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


@pytest.mark.parametrize("output", ["point", "ordinal", "heteroscedastic"])
def test_one_model_scores_as_the_same_model_in_a_batch(output: str) -> None:
    head = MlpHead({"a": 4, "b": 3}, ["overall", "motion"], HeadConfig(hidden=(6, 5), output=output))
    head.initialise([torch.Generator().manual_seed(2)])
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for bias in head.layers.biases:
            bias.copy_(torch.randn(bias.shape, generator=generator))
        head.target_mean.copy_(torch.tensor([[3.0, 50.0]]))
        head.target_std.copy_(torch.tensor([[0.7, 15.0]]))
        head.target_min.copy_(torch.tensor([[1.0, 10.0]]))
        head.target_max.copy_(torch.tensor([[5.0, 90.0]]))
        head.input_varies[0, 2] = 0
        rows = torch.randn(9, 7, generator=generator)
        rows[0, 0], rows[1, 1], rows[2, 2] = math.nan, math.inf, 3e38
        inputs = rows.split([4, 3], dim=1)
        torch.testing.assert_close(head(*inputs), head.scores(head.raw(*inputs))[0], rtol=1e-5, atol=1e-5)


def test_the_graph_of_one_model_has_no_operation_that_changes_nothing(tmp_path: Path) -> None:
    head = MlpHead({"video": 4}, ["overall"], HeadConfig(hidden=(6, 5)))
    head.initialise([torch.Generator().manual_seed(2)])
    graph = ScoringGraph(Ensemble([head.eval()])).eval()
    axes = {"video": {0: "batch"}, "scores": {0: "batch"}}
    export_module(
        graph, torch.zeros(2, 4), tmp_path / "m.onnx", input_names=["video"], output_names=["scores"],
        dynamic_axes=axes, fold=False,
    )  # fmt: skip
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "as_run.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    onnxruntime.InferenceSession(tmp_path / "m.onnx", options, providers=["CPUExecutionProvider"])
    run = [node.op_type for node in onnx.load(tmp_path / "as_run.onnx").graph.node]
    standardise = ["Abs", "LessOrEqual", "Where", "Sub", "Div", "Clip"]
    assert sorted(run) == sorted([*standardise, *["Gemm"] * 3, *["Gelu"] * 2])
