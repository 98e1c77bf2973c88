"""What raw outputs mean: scores, deviations and likelihoods, against SciPy and by hand."""

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy, norm

from vqa_train.heads.config import HeadConfig
from vqa_train.heads.outputs import HeteroscedasticOutput, OrdinalOutput, PointOutput, output_of

LOW, HIGH = torch.tensor([[[-2.0, -1.0]]]), torch.tensor([[[2.0, 3.0]]])


def rows(width: int, count: int = 6, models: int = 1, seed: int = 0):
    """Raw outputs (M, N, width), labels and weights (M, N, 2) with a missing one."""
    generator = torch.Generator().manual_seed(seed)
    raw = torch.randn(models, count, width, generator=generator) * 2
    target = torch.randn(models, count, 2, generator=generator)
    weight = torch.rand(models, count, 2, generator=generator) + 0.1
    weight[:, 1, 0] = 0
    return raw, target, weight


@pytest.mark.parametrize(
    ("name", "kind", "width"),
    [("point", PointOutput, 3), ("ordinal", OrdinalOutput, 21), ("heteroscedastic", HeteroscedasticOutput, 6)],
)
def test_the_config_names_the_output_and_it_says_its_width(name, kind, width):
    output = output_of(HeadConfig(output=name, bins=7))
    assert type(output) is kind
    assert output.width(3) == width


def test_a_point_is_the_raw_number_and_states_no_deviation():
    raw, target, weight = rows(2)
    output = PointOutput()
    assert torch.equal(output.scores(raw, LOW, HIGH), raw)
    assert output.spread(raw, LOW, HIGH) is None
    assert output.loss(raw, target, weight, LOW, HIGH) is None


def test_a_gaussian_is_the_means_then_the_log_variances():
    output = HeteroscedasticOutput()
    raw = torch.tensor([[[1.0, -2.0, 0.0, 2.0]]])
    assert output.scores(raw, LOW, HIGH).tolist() == [[[1.0, -2.0]]]
    bounded = 8 * np.tanh(2 / 8)
    assert output.spread(raw, LOW, HIGH)[0, 0].tolist() == pytest.approx([1.0, np.exp(bounded / 2)])


def test_the_gaussians_loss_is_scipys_negative_log_likelihood():
    output = HeteroscedasticOutput()
    raw, target, weight = rows(4)
    loss = output.loss(raw, target, weight, LOW, HIGH)
    mean, spread = output.scores(raw, LOW, HIGH), output.spread(raw, LOW, HIGH)
    for k in range(2):
        each = -norm.logpdf(target[0, :, k], mean[0, :, k], spread[0, :, k]) - np.log(2 * np.pi) / 2
        assert loss[0, k].item() == pytest.approx(np.average(each, weights=weight[0, :, k]), rel=1e-5)


def test_the_likelihood_is_greatest_at_the_labels_own_deviation():
    output = HeteroscedasticOutput()
    target = torch.randn(1, 4000, 1, generator=torch.Generator().manual_seed(0)) * 0.5
    raw = torch.zeros(1, 1, 2, requires_grad=True)
    optimiser = torch.optim.LBFGS([raw], max_iter=50)

    def loss():
        optimiser.zero_grad()
        value = output.loss(raw.expand(1, 4000, 2), target, torch.ones_like(target), LOW, HIGH).sum()
        value.backward()
        return value

    optimiser.step(loss)
    assert output.spread(raw, LOW, HIGH).item() == pytest.approx(target.std(correction=0).item(), rel=1e-3)
    assert output.scores(raw, LOW, HIGH).item() == pytest.approx(target.mean().item(), abs=1e-3)


@pytest.mark.parametrize("value", [-1e6, 1e6])
def test_a_huge_log_variance_is_bounded_and_the_loss_finite(value):
    raw = torch.tensor([[[0.0, value]]], requires_grad=True)
    output = HeteroscedasticOutput()
    low, high = LOW[..., :1], HIGH[..., :1]
    loss = output.loss(raw, torch.ones(1, 1, 1), torch.ones(1, 1, 1), low, high)
    loss.sum().backward()
    assert output.spread(raw, low, high).item() == pytest.approx(np.exp(np.sign(value) * 4), rel=1e-5)
    assert loss.isfinite().all()
    assert raw.grad.isfinite().all()


def test_bins_reach_a_twentieth_beyond_the_labels_on_either_side():
    centres = OrdinalOutput(5).centres(LOW, HIGH)
    assert centres.shape == (1, 1, 2, 5)
    np.testing.assert_allclose(centres[0, 0, 0], np.linspace(-2.2, 2.2, 5), rtol=1e-6)
    np.testing.assert_allclose(centres[0, 0, 1], np.linspace(-1.2, 3.2, 5), rtol=1e-6)


def test_a_distributions_score_and_deviation_are_its_moments():
    output = OrdinalOutput(5)
    raw, _, _ = rows(10)
    scores, spread = output.scores(raw, LOW, HIGH), output.spread(raw, LOW, HIGH)
    for k, centres in enumerate((np.linspace(-2.2, 2.2, 5), np.linspace(-1.2, 3.2, 5))):
        for row in range(6):
            p = softmax(raw[0, row, 5 * k : 5 * k + 5].double().numpy())
            mean = np.average(centres, weights=p)
            assert scores[0, row, k].item() == pytest.approx(mean, abs=1e-5)
            assert spread[0, row, k].item() == pytest.approx(
                np.average((centres - mean) ** 2, weights=p) ** 0.5, rel=1e-4
            )


def test_the_distributions_loss_is_its_cross_entropy_with_a_gaussian_one_bin_wide():
    output = OrdinalOutput(5)
    raw, target, weight = rows(10)
    loss = output.loss(raw, target, weight, LOW, HIGH)
    for k, centres in enumerate((np.linspace(-2.2, 2.2, 5), np.linspace(-1.2, 3.2, 5))):
        each = []
        for row in range(6):
            p = softmax(raw[0, row, 5 * k : 5 * k + 5].double().numpy())
            label = norm.pdf(centres, loc=target[0, row, k].item(), scale=1.1)
            # Cross-entropy = entropy + divergence; scipy normalises both.
            each.append(entropy(label) + entropy(label, p))
        assert loss[0, k].item() == pytest.approx(np.average(each, weights=weight[0, :, k]), rel=1e-5)


def test_a_distribution_that_is_the_labels_own_has_the_least_loss_and_its_score():
    output = OrdinalOutput(20)
    low, high = LOW[..., :1], HIGH[..., :1]
    target = torch.tensor([[[0.7]]])
    centres = output.centres(low, high)[0, 0, 0]
    step = centres[1] - centres[0]
    right = -((centres - 0.7) ** 2) / (2 * step**2)
    assert output.scores(right.view(1, 1, 20), low, high).item() == pytest.approx(0.7, abs=1e-4)
    assert output.spread(right.view(1, 1, 20), low, high).item() == pytest.approx(step.item(), rel=1e-3)
    least = output.loss(right.view(1, 1, 20), target, torch.ones(1, 1, 1), low, high)
    for shift in (-1, 1):
        assert output.loss(right.roll(shift).view(1, 1, 20), target, torch.ones(1, 1, 1), low, high) > least


@pytest.mark.parametrize("output", [OrdinalOutput(5), HeteroscedasticOutput()])
def test_missing_labels_and_other_models_do_not_matter(output):
    raw, target, weight = rows(output.width(2), models=2)
    loss = output.loss(raw, target, weight, LOW, HIGH)
    assert loss.shape == (2, 2)
    moved = target.clone()
    moved[:, 1, 0] = 77.0
    torch.testing.assert_close(output.loss(raw, moved, weight, LOW, HIGH), loss)
    alone = output.loss(raw[1:], target[1:], weight[1:], LOW, HIGH)
    torch.testing.assert_close(alone, loss[1:])
    nothing = output.loss(raw, target, torch.zeros_like(weight), LOW, HIGH)
    assert torch.equal(nothing, torch.zeros(2, 2))
