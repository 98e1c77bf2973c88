"""Losses against cases worked by hand and SciPy; masks, degenerate batches and leading model dimensions."""

import numpy as np
import pytest
import torch
from scipy import stats

from vqa_train.heads import LOSSES
from vqa_train.heads.losses import combined, huber, plcc, rank, smooth_l1, srocc

ALL_LOSSES = [LOSSES.get(name) for name in LOSSES.names()]


def column(values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32)[:, None]


def everything(x: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(x, dtype=torch.bool)


def random_batch(rows: int = 12, targets: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(rows, targets, generator=generator), torch.randn(rows, targets, generator=generator)


def test_smooth_l1_is_quadratic_below_one_deviation_and_linear_above():
    p, t = column([0.0, 0.0]), column([0.5, 3.0])
    assert smooth_l1(p, t, everything(p)).item() == pytest.approx((0.5 * 0.25 + (3 - 0.5)) / 2)


def test_huber_turns_linear_at_the_constant_of_huber():
    p, t = column([0.0, 0.0]), column([1.0, 3.0])
    assert huber(p, t, everything(p)).item() == pytest.approx((0.5 + 1.345 * (3 - 1.345 / 2)) / 2)


def test_the_rank_loss_of_a_case_worked_by_hand():
    # Pairs (higher first): 2 over 0: gap 2, predicted 1 -> 1; 2 over 1: gap 1, predicted 2 -> 0; 1 over 0: gap 1,
    # predicted -1 -> 2.
    p, t = column([0.0, -1.0, 1.0]), column([0.0, 1.0, 2.0])
    assert rank(p, t, everything(p)).item() == pytest.approx((1 + 0 + 2) / 3)


def test_pairs_of_equal_labels_do_not_count_in_the_rank_loss():
    p, t = column([5.0, -5.0, 0.0]), column([1.0, 1.0, 1.0])
    assert rank(p, t, everything(p)).item() == 0.0


def test_the_plcc_loss_is_one_less_pearsons_r():
    p, t = random_batch()
    expected = [1 - stats.pearsonr(p[:, k].numpy(), t[:, k].numpy()).statistic for k in range(3)]
    np.testing.assert_allclose(plcc(p, t, everything(p)), expected, atol=1e-6)


@pytest.mark.parametrize("loss", [loss for loss in ALL_LOSSES if loss is not srocc])
def test_perfect_predictions_have_no_loss(loss):
    _, t = random_batch()
    np.testing.assert_allclose(loss(t, t, everything(t)), 0, atol=1e-6)


@pytest.mark.parametrize("loss", ALL_LOSSES)
def test_masked_rows_change_neither_the_loss_nor_the_gradient(loss):
    p, t = random_batch()
    mask = everything(t)
    mask[3, 0] = mask[7, 0] = mask[5, 1] = False
    wild = torch.where(mask, t, torch.tensor(1e6))
    p.requires_grad_()
    value = loss(p, wild, mask)
    value.sum().backward()
    for k in range(3):
        rows = mask[:, k]
        alone = loss(p[rows, k : k + 1], t[rows, k : k + 1], everything(t[rows, k : k + 1]))
        assert value[k].item() == pytest.approx(alone.item(), abs=1e-6)
    assert torch.equal(p.grad[~mask], torch.zeros(3))


@pytest.mark.parametrize("loss", ALL_LOSSES)
@pytest.mark.parametrize("labelled", [0, 1], ids=["no labels", "one label"])
def test_too_few_labels_give_no_nan(loss, labelled):
    p, t = random_batch(4, 1)
    mask = torch.zeros_like(t, dtype=torch.bool)
    mask[:labelled] = True
    p.requires_grad_()
    value = loss(p, t, mask)
    value.sum().backward()
    assert torch.isfinite(value).all()
    assert torch.isfinite(p.grad).all()
    if loss not in (smooth_l1, huber) or labelled == 0:
        assert value.item() == 0
        assert not p.grad.any()


@pytest.mark.parametrize("loss", [plcc, srocc])
@pytest.mark.parametrize("constant", ["predictions", "labels"])
def test_the_correlation_of_a_constant_is_skipped_without_gradient(loss, constant):
    p, t = random_batch(6, 1)
    if constant == "predictions":
        p = torch.full_like(p, 0.7)
    else:
        t = torch.full_like(t, 0.7)
    p.requires_grad_()
    value = loss(p, t, everything(t))
    value.sum().backward()
    assert value.item() == 0
    assert not p.grad.any()


@pytest.mark.parametrize("loss", ALL_LOSSES)
def test_gradients_are_those_of_finite_differences(loss):
    p, t = (x.double() for x in random_batch(6, 2))
    mask = everything(t)
    mask[2, 0] = False
    assert torch.autograd.gradcheck(lambda x: loss(x, t, mask), p.requires_grad_())


@pytest.mark.parametrize("loss", ALL_LOSSES)
def test_leading_dimensions_are_independent_models(loss):
    p, t = random_batch(8, 3)
    models = torch.stack([p, p.flip(0), 2 * p])
    together = loss(models, t.expand(3, 8, 3), everything(models))
    assert together.shape == (3, 3)
    for i in range(3):
        np.testing.assert_allclose(together[i], loss(models[i], t, everything(t)), atol=1e-6)


def test_losses_and_targets_are_weighted():
    p, t = random_batch()
    mask = everything(t)
    target_weights = torch.tensor([1.0, 0.0, 3.0])
    value = combined(p, t, mask, {"smooth_l1": 2.0, "rank": 0.0, "plcc": 0.5}, target_weights)
    each = 2.0 * smooth_l1(p, t, mask) + 0.5 * plcc(p, t, mask)
    assert value.item() == pytest.approx(((each[0] + 3 * each[2]) / 4).item())
    extra = torch.tensor([1.0, 100.0, 2.0])
    more = combined(p, t, mask, {"smooth_l1": 2.0, "plcc": 0.5}, target_weights, extra)
    assert more.item() == pytest.approx(value.item() + (1 + 3 * 2) / 4)


def test_each_model_may_have_its_own_weight_of_a_loss():
    p, t = random_batch()
    models, mask = torch.stack([p, p]), torch.ones(2, 12, 3)
    value = combined(models, t.expand(2, 12, 3), mask, {"huber": torch.tensor([0.0, 2.0])}, torch.ones(2, 3))
    assert value.tolist() == pytest.approx([0.0, 2 * huber(p, t, everything(p)).mean().item()])


def test_weighted_losses_are_weighted_means_over_the_rows():
    p, t = random_batch(9, 1)
    weight = torch.linspace(0, 1, 9)[:, None]
    w, x, y = (v[:, 0].double().numpy() for v in (weight, p, t))
    error = np.abs(x - y)
    each = np.where(error < 1, error**2 / 2, error - 0.5)
    assert smooth_l1(p, t, weight).item() == pytest.approx(np.average(each, weights=w))
    covariance = np.cov(x, y, aweights=w, ddof=0)
    expected = 1 - covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1])
    assert plcc(p, t, weight).item() == pytest.approx(expected, abs=1e-6)
    pairs = [(i, j) for i in range(9) for j in range(9) if y[i] > y[j]]
    hinges = [max(0.0, (y[i] - y[j]) - (x[i] - x[j])) for i, j in pairs]
    assert rank(p, t, weight).item() == pytest.approx(
        np.average(hinges, weights=[w[i] * w[j] for i, j in pairs]), abs=1e-6
    )


@pytest.mark.parametrize("loss", ALL_LOSSES)
def test_twice_the_weight_is_the_row_twice(loss):
    p, t = random_batch(6, 1)
    weight = torch.ones(6, 1)
    weight[2] = 2
    again = torch.cat([p, p[2:3]]), torch.cat([t, t[2:3]])
    # The row and its copy are a pair of equal labels, which no loss counts; Spearman's steps see it as half a rank.
    assert loss(p, t, weight).item() == pytest.approx(loss(*again, torch.ones(7, 1)).item(), abs=1e-6)


def test_predictions_far_apart_make_the_srocc_loss_one_less_spearmans_rho():
    # Differences of at least 100 deviations are hard steps of the soft rank; labels have ties.
    rng = np.random.default_rng(0)
    for _ in range(5):
        x, y = 100.0 * rng.permutation(15), rng.integers(0, 6, 15).astype(float)
        value = srocc(column(x), column(y), torch.ones(15, 1)).item()
        assert value == pytest.approx(1 - stats.spearmanr(x, y).statistic, abs=1e-6)


def test_the_srocc_loss_falls_as_spearmans_rho_rises():
    rng = np.random.default_rng(1)
    y = rng.normal(size=60)
    true, loss = [], []
    for noise in (3.0, 1.5, 0.8, 0.4, 0.1):
        x = y + noise * rng.normal(size=60)
        true.append(stats.spearmanr(x, y).statistic)
        loss.append(srocc(column(x), column(y), torch.ones(60, 1)).item())
    assert np.all(np.diff(true) > 0)
    assert np.all(np.diff(loss) < 0)


def test_descending_the_srocc_loss_raises_spearmans_rho():
    p, t = random_batch(40, 1)
    before = stats.spearmanr(p, t).statistic
    p.requires_grad_()
    for _ in range(50):
        (gradient,) = torch.autograd.grad(srocc(p, t, torch.ones(40, 1)).sum(), p)
        p = (p - 2.0 * gradient).detach().requires_grad_()
    assert stats.spearmanr(p.detach(), t).statistic > before + 0.3


@pytest.mark.parametrize("loss", ALL_LOSSES)
@pytest.mark.parametrize("scale", [1e-12, 1e-5, 1e5])
def test_gradients_are_finite_for_tiny_and_huge_predictions(loss, scale):
    p, t = random_batch(16, 1)
    p = (p * scale).requires_grad_()
    loss(p, t, torch.ones(16, 1)).sum().backward()
    assert torch.isfinite(p.grad).all()
