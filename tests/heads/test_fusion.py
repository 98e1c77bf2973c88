"""The fusion head: which inputs gate which, and that the gate is what it says."""

import numpy as np
import pytest
import torch
from scipy.special import expit
from torch.nn import functional

from vqa_train.core.config import parse
from vqa_train.core.errors import ConfigError
from vqa_train.evaluation import METRICS
from vqa_train.heads.config import HeadConfig, TrainConfig
from vqa_train.heads.fusion import FusionHead
from vqa_train.heads.trainer import fit_head, predict

INPUTS = {"nss.pooled": 4, "minilm.prompt": 3, "dover.pooled": 2}


def head(inputs=INPUTS, hidden=(8,), **options) -> FusionHead:
    made = FusionHead(inputs, ["mos"], HeadConfig(kind="fusion", hidden=hidden, options=options))
    made.initialise([torch.Generator().manual_seed(0)])
    return made


def test_a_gate_of_the_text_multiplies_a_projection_of_the_video():
    made = head(hidden=(), width=5)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.uniform_(-1, 1, generator=torch.Generator().manual_seed(1))
    x = np.random.default_rng(0).normal(size=(6, 9))
    text, video = x[:, 4:7], np.delete(x, [4, 5, 6], axis=1)

    def layer(part, number, rows):
        return rows @ part.weights[number][0].detach().numpy() + part.biases[number][0].detach().numpy()

    def gelu(values):
        return functional.gelu(torch.from_numpy(values)).numpy()

    gate = expit(layer(made.gate, 1, gelu(layer(made.gate, 0, text))))
    expected = layer(made.layers, 0, gate * gelu(layer(made.projection, 0, video)))
    got = made.network(torch.from_numpy(x.astype(np.float32))[None])[0]
    np.testing.assert_allclose(got.detach().numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("inputs", "options", "text"),
    [
        (INPUTS, {}, ["minilm.prompt"]),
        ({"a": 1, "TextEncoder.pooled": 2, "my_prompt": 3}, {}, ["TextEncoder.pooled", "my_prompt"]),
        ({"a": 1, "b": 2}, {"text": "a"}, ["a"]),
        ({"a": 1, "b": 2}, {"text": ["b"], "video": ["a"]}, ["b"]),
        ({"a_text": 1, "text": 2}, {"video": "a_text"}, ["text"]),
    ],
)
def test_text_is_what_is_named_or_what_is_called_so(inputs, options, text):
    made = head(inputs, **options)
    changed = torch.zeros(1, 1, made.columns)
    column = 0
    for name, size in inputs.items():
        # Only text reaches the gate: with the video at zero and no bias, h is 0 and the gate has nothing to multiply.
        x = changed.clone()
        x[..., column : column + size] = 2.0
        assert bool(made.gate.run(torch.cat([x[..., a:b] for a, b in made._text], 2), None, 0.0).any()) is (
            name in text
        )
        assert bool(made.network(x).any()) is (name not in text)
        column += size


@pytest.mark.parametrize(
    ("inputs", "options", "message"),
    [
        ({"a": 1, "b": 2}, {}, "needs text inputs and video inputs"),
        ({"text": 1}, {}, "needs text inputs and video inputs"),
        ({"a": 1, "b": 2}, {"text": "c"}, "head.options.text names 'c'"),
        ({"alpha": 1, "beta": 2}, {"text": "alpah"}, "did you mean 'alpha'"),
        ({"a": 1, "b": 2}, {"text": "a", "video": ["a", "b"]}, r"\['a'\] in both or in neither"),
        ({"a": 1, "b": 2, "c": 3}, {"text": "a", "video": "b"}, r"\['c'\] in both or in neither"),
        ({"a": 1, "b": 2}, {"text": "a", "width": 0}, "width"),
    ],
)
def test_inputs_that_are_not_clearly_one_or_the_other_are_errors(inputs, options, message):
    with pytest.raises(ConfigError, match=message):
        FusionHead(inputs, ["mos"], HeadConfig(kind="fusion", options=options))


def test_where_the_text_decides_what_counts_a_gate_learns_it_and_a_linear_head_cannot():
    rng = np.random.default_rng(0)
    video = rng.normal(size=(900, 6)).astype(np.float32)
    text = np.sign(rng.normal(size=(900, 1))).astype(np.float32)
    # A prompt of one sort asks for the first feature, of the other sort for the second.
    mos = np.where(text[:, 0] > 0, video[:, 0], -video[:, 1])[:, None] + 0.1 * rng.normal(size=(900, 1))
    rows = {"video": video, "prompt": text}
    train, test = slice(0, 600), slice(600, 900)
    scores = {}
    for kind in ("fusion", "linear"):
        recipe = {"epochs": 40, "head": {"kind": kind}, "validation": {"fraction": 0}, "patience": None}
        names = [f"{i:04d}" for i in range(600)]
        fitted = fit_head(
            {name: part[train] for name, part in rows.items()}, mos[train].astype(np.float32), names, ["mos"],
            parse(TrainConfig, recipe, "recipe"), metric=METRICS.get("srocc"), keys=names,
        )  # fmt: skip
        predicted = predict(fitted.module, {name: part[test] for name, part in rows.items()})
        scores[kind] = np.corrcoef(predicted[:, 0], mos[test, 0])[0, 1]
    assert scores["fusion"] > 0.95
    assert scores["linear"] < 0.8
