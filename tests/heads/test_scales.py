"""Several datasets of one quality: maps that rise, that are found, and that say what they are."""

import numpy as np
import pytest
import torch
from scipy import stats

from vqa_train.core.config import parse
from vqa_train.evaluation import METRICS
from vqa_train.heads.config import TrainConfig
from vqa_train.heads.scales import ScaleMaps
from vqa_train.heads.table import build_table
from vqa_train.heads.trainer import HeadJob, fit_heads, predict

SROCC = METRICS.get("srocc")
RECIPE = {
    "epochs": 40,
    "head": {"hidden": [16], "dropout": 0.0},
    "optimizer": {"lr": 0.02, "weight_decay": 0.0},
    "loss": {"smooth_l1": 1.0, "rank": 0.0, "plcc": 0.0},
    "ema": 0.9,
    "patience": None,
}


def maps(kind: str, reference=((0,), (1,))) -> ScaleMaps:
    made = ScaleMaps(kind, 3, torch.tensor(reference))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.7)
    return made


@pytest.mark.parametrize("kind", ["affine", "monotone"])
def test_maps_rise_and_the_reference_is_not_mapped(kind):
    made = maps(kind)
    quality = torch.linspace(-4, 4, 81).view(1, 81, 1).expand(2, 81, 1)
    for dataset in range(3):
        mapped = made(quality, torch.full((2, 81), dataset))
        assert (mapped.diff(dim=1) > 0).all()
        for model in range(2):
            assert torch.equal(mapped[model], quality[model]) == (dataset == model)


@pytest.mark.parametrize("kind", ["affine", "monotone"])
def test_the_inverse_of_a_map_undoes_it(kind):
    made = maps(kind)
    generator = torch.Generator().manual_seed(1)
    quality = torch.randn(2, 50, 1, generator=generator) * 2
    dataset = torch.randint(0, 3, (2, 50), generator=generator)
    torch.testing.assert_close(made.inverse(made(quality, dataset), dataset), quality, rtol=0, atol=2e-5)


def test_a_new_map_changes_nothing_much():
    quality = torch.linspace(-3, 3, 21).view(1, 21, 1)
    dataset = torch.ones(1, 21, dtype=torch.int64)
    assert torch.equal(ScaleMaps("affine", 2, torch.tensor([[0]]))(quality, dataset), quality)
    bent = ScaleMaps("monotone", 2, torch.tensor([[0]]))(quality, dataset)
    torch.testing.assert_close(bent, quality, rtol=0, atol=0.08)


def test_each_target_may_have_its_own_reference():
    made = maps("affine", ((0, 1), (1, 2)))
    quality = torch.ones(2, 1, 2)
    for model, references in enumerate(((0, 1), (1, 2))):
        for dataset in range(3):
            mapped = made(quality, torch.full((2, 1), dataset))[model, 0]
            assert [bool(value == 1) for value in mapped] == [dataset == reference for reference in references]


def two_datasets(transform, rows: int = 240):
    """One quality seen by two panels; the videos of the second are better by one and a half deviations."""
    rng = np.random.default_rng(0)
    shift = np.repeat([0.0, 1.5], rows)
    x = rng.normal(size=(2 * rows, 5)) + shift[:, None] * np.array([1, 0, 0, 0, 0])
    quality = x[:, 0] + 0.05 * rng.normal(size=2 * rows)
    labels = np.where(np.arange(2 * rows) < rows, 3 + quality, transform(quality))
    names = ["first"] * rows + ["second"] * rows
    keys = [f"{i:04d}" for i in range(2 * rows)]
    table = build_table(
        {"x": x.astype(np.float32)},
        labels.astype(np.float32)[:, None],
        ["mos"],
        keys,
        keys,
        datasets=names,
    )
    return table, x.astype(np.float32), quality, labels, np.array(names)


def fitted(table, rows=None, **recipe):
    rows = np.arange(len(table.targets)) if rows is None else rows
    return fit_heads(table, [HeadJob(config=parse(TrainConfig, {**RECIPE, **recipe}, "r"), train=rows)], metric=SROCC)[
        0
    ]


def test_one_head_finds_the_shared_scale_of_two_affine_ones_and_says_the_map():
    table, x, quality, _, _ = two_datasets(lambda q: 60 - 4 + 12 * q)
    shared, same = fitted(table), fitted(table, scales="same")
    scores = predict(shared.module, {"x": x})[:, 0]
    assert stats.spearmanr(scores, quality).statistic > 0.99
    # Equal standardised labels are not equal quality here: the better videos of the second dataset seem ordinary.
    level = predict(same.module, {"x": x})[:, 0]
    assert stats.spearmanr(level, quality).statistic < stats.spearmanr(scores, quality).statistic
    second = quality > np.median(quality)
    assert np.mean(level[second] - 3 - quality[second]) < -0.4
    assert abs(np.mean(scores[second] - 3 - quality[second])) < 0.15
    # On the first dataset's scale, 3 + quality.
    np.testing.assert_allclose(scores, 3 + quality, atol=0.6)
    entry = shared.scales["second"]["mos"]
    assert entry["kind"] == "affine"
    # 56 + 12 q = 12 (3 + q) + 20
    assert entry["a"] == pytest.approx(12, rel=0.08)
    assert entry["a"] * 4 + entry["b"] == pytest.approx(12 * 4 + 20, rel=0.03)
    first = shared.scales["first"]["mos"]
    assert (first["kind"], first["a"], first["b"]) == ("reference", 1.0, 0.0)
    assert {name: entry["mos"]["kind"] for name, entry in same.scales.items()} == {
        "first": "reference",
        "second": "same",
    }


def test_a_bent_scale_needs_the_monotone_map():
    def bent(quality):
        return 50 + 40 * np.tanh(1.5 * (quality - 1.5))

    table, x, quality, labels, names = two_datasets(bent)
    second = names == "second"
    errors = {}
    for kind in ("affine", "monotone"):
        head = fitted(table, scales=kind, epochs=80)
        scores = predict(head.module, {"x": x})[:, 0]
        assert stats.spearmanr(scores, quality).statistic > 0.98
        entry = head.scales["second"]["mos"]
        z = (scores[second] - entry["reference_mean"]) / entry["reference_std"]
        mapped = entry["slope"] * z + entry["offset"]
        for step, knot in zip(entry.get("steps", []), entry.get("knots", []), strict=True):
            mapped = mapped + step * np.tanh(z - knot)
        errors[kind] = np.sqrt(np.mean((entry["label_mean"] + entry["label_std"] * mapped - labels[second]) ** 2))
    assert errors["monotone"] < 0.8 * errors["affine"]
    assert "a" not in entry


@pytest.mark.parametrize("output", ["heteroscedastic", "ordinal"])
def test_an_output_with_a_likelihood_speaks_of_the_shared_scale(output):
    table, x, quality, _, _ = two_datasets(lambda q: 56 + 12 * q)
    head = {"hidden": [16], "dropout": 0.0, "output": output}
    scores = predict(fitted(table, head=head).module, {"x": x})[:, 0]
    assert stats.spearmanr(scores, quality).statistic > 0.98


def test_without_its_rows_the_first_dataset_is_no_longer_the_reference():
    table, x, quality, _, names = two_datasets(lambda q: 56 + 12 * q)
    head = fitted(table, np.flatnonzero(names == "second"))
    scores = predict(head.module, {"x": x})[:, 0]
    second = names == "second"
    np.testing.assert_allclose(scores[second], 56 + 12 * quality[second], atol=6)
    assert stats.spearmanr(scores[~second], quality[~second]).statistic > 0.98
    assert head.scales["second"]["mos"]["kind"] == "reference"


def test_a_target_that_only_the_second_dataset_has_keeps_that_ones_scale():
    table, _, quality, labels, names = two_datasets(lambda q: 56 + 12 * q)
    both = np.stack([labels, np.where(names == "first", np.nan, 100 - 5 * quality)], axis=1).astype(np.float32)
    keys = [f"{i:04d}" for i in range(len(both))]
    joined = build_table(table.features, both, ["mos", "noise"], keys, keys, datasets=list(names))
    head = fitted(joined)
    scores = predict(head.module, table.features)
    np.testing.assert_allclose(scores[:, 0], 3 + quality, atol=0.8)
    np.testing.assert_allclose(scores[:, 1], 100 - 5 * quality, atol=4)
    assert head.scales["second"]["noise"]["kind"] == "reference"
    assert head.scales["first"]["noise"]["label_mean"] == 0
