"""AdamW and the learning rate against torch's own optimiser and cases worked by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from vqa_train.core.config import parse
from vqa_train.heads.config import TrainConfig
from vqa_train.heads.optimizer import AdamW, Packed, learning_rate


class Net(nn.Module):
    """M models with a weight matrix, a bias and a parameter that says it does not decay."""

    def __init__(self, models: int = 3) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(models, 4, 2, generator=generator))
        self.bias = nn.Parameter(torch.randn(models, 2, generator=generator))
        self.scale = nn.Parameter(torch.randn(models, 1, 2, generator=generator))
        self.scale.no_decay = True

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.baddbmm(self.bias.unsqueeze(1), x, self.weight) * self.scale


def column(values: np.ndarray) -> torch.Tensor:
    return torch.as_tensor(values, dtype=torch.float32)[..., None]


def test_it_is_torchs_adamw_with_a_learning_rate_and_a_decay_per_model():
    net, rates, decays = Net(), np.array([1e-3, 3e-2, 0.2]), [0.0, 0.3, 2.0]
    theirs = [nn.ParameterDict({n: nn.Parameter(p[i].clone()) for n, p in net.named_parameters()}) for i in range(3)]
    optimizers = [
        torch.optim.AdamW(
            [{"params": [p["weight"]]}, {"params": [p["bias"], p["scale"]], "weight_decay": 0.0}],
            lr=lr,
            weight_decay=decay,
            betas=(0.8, 0.95),
        )
        for p, lr, decay in zip(theirs, rates, decays, strict=True)
    ]
    packed = Packed([net], 3)
    ours = AdamW(packed, torch.tensor(decays), (0.8, 0.95))
    generator = torch.Generator().manual_seed(1)
    for step in range(12):
        x, y = torch.randn(3, 8, 4, generator=generator), torch.randn(3, 8, 2, generator=generator)
        lr = rates * (1 + step / 5)
        out = torch.empty_like(packed.matrix)
        gradient = packed.gradient(((net(x) - y) ** 2).mean((1, 2)).sum(), out)
        ours.step(packed, gradient, column(ours.factors(lr, np.full(3, step))))
        for i, (p, optimizer) in enumerate(zip(theirs, optimizers, strict=True)):
            for group in optimizer.param_groups:
                group["lr"] = lr[i]
            optimizer.zero_grad()
            (((torch.addmm(p["bias"], x[i], p["weight"]) * p["scale"]) - y[i]) ** 2).mean().backward()
            optimizer.step()
    for i, p in enumerate(theirs):
        for name, value in p.items():
            torch.testing.assert_close(getattr(net, name)[i], value, rtol=2e-5, atol=2e-6)


def test_the_first_step_is_the_learning_rate_in_the_direction_of_the_gradient():
    net = Net(2)
    before = net.bias.detach().clone()
    packed = Packed([net], 2)
    optimizer = AdamW(packed, torch.tensor([0.0, 0.0]), (0.9, 0.999))
    gradient = torch.full_like(packed.matrix, -5.0)
    optimizer.step(packed, gradient, column(optimizer.factors(np.array([0.1, 0.01]), np.zeros(2, dtype=np.int64))))
    torch.testing.assert_close(net.bias - before, torch.tensor([[0.1] * 2, [0.01] * 2]), rtol=1e-5, atol=1e-6)


def test_a_selected_model_goes_on_as_if_nothing_had_happened():
    net, twin = Net(), Net()
    packed, whole = Packed([net], 3), Packed([twin], 3)
    some, every = (AdamW(p, torch.tensor([0.1, 0.2, 0.3]), (0.9, 0.99)) for p in (packed, whole))
    generator = torch.Generator().manual_seed(1)
    for step in range(4):
        gradient = torch.randn(whole.matrix.shape, generator=generator)
        rates = np.array([0.1, 0.2, 0.3])
        every.step(whole, gradient, column(every.factors(rates, np.full(3, step))))
        if step == 2:
            models = torch.tensor([1])
            matrix, net = packed.matrix[models], Net(1)
            packed = Packed([net], 1)
            packed.bind(matrix)
            some.select(packed, models)
        rows = slice(1, 2) if step >= 2 else slice(None)
        some.step(packed, gradient[rows], column(some.factors(rates[rows], np.full(len(rates[rows]), step))))
    assert torch.equal(net.weight[0], twin.weight[1])


def test_parameters_are_views_of_the_matrix():
    net = Net()
    packed = Packed([net], 3)
    assert packed.matrix.shape == (3, 8 + 2 + 2)
    assert packed.matrices.tolist() == [1.0] * 8 + [0.0] * 4
    packed.matrix[1] = 7.0
    assert set(net.weight[1].unique().tolist()) == {7.0}
    assert not (net.weight[0] == 7.0).any()


def test_a_parameter_that_the_loss_does_not_reach_has_no_gradient():
    net = Net()
    packed = Packed([net], 3)
    gradient = packed.gradient(net.weight.sum(), torch.full_like(packed.matrix, torch.nan))
    assert gradient.tolist() == [[1.0] * 8 + [0.0] * 4] * 3


def rates(steps: int, epochs_steps: int = 0, **recipe) -> np.ndarray:
    config = parse(TrainConfig, {"optimizer": {"lr": 1.0}, **recipe}, "recipe")
    return learning_rate(config, np.arange(steps), steps)


def test_the_learning_rate_warms_up_and_falls_as_half_a_cosine():
    values = rates(100, warmup=0.1)
    assert values[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert values[10] == 1.0
    assert values[55] == pytest.approx(0.5)
    assert values[99] == pytest.approx(0.0, abs=1e-3)


def test_without_warmup_the_cosine_begins_at_the_peak():
    values = rates(40)
    assert values == pytest.approx((1 + np.cos(np.pi * np.arange(40) / 40)) / 2)


def test_a_constant_rate_is_constant_after_its_warmup():
    assert set(rates(10, schedule="constant")) == {1.0}
    assert rates(10, schedule="constant", warmup=0.2).tolist() == [0.5, 1.0, *[1.0] * 8]
    assert rates(10, schedule="constant", cycles=5, warmup=0.2).tolist() == [0.5, 1.0, *[1.0] * 8]


def test_one_cycle_rises_for_three_tenths_and_falls_to_zero():
    values = rates(100, schedule="one_cycle")
    assert values[:30] == pytest.approx(np.arange(1, 31) / 30)
    assert int(values.argmax()) in (29, 30)
    assert np.all(np.diff(values[30:]) < 0)
    assert values[-1] == pytest.approx(0, abs=1e-3)
    assert int(rates(100, schedule="one_cycle", warmup=0.5).argmax()) in (49, 50)


@pytest.mark.parametrize("schedule", ["cosine", "one_cycle"])
def test_cycles_begin_again(schedule):
    values, one = rates(90, schedule=schedule, cycles=3), rates(30, schedule=schedule)
    assert values == pytest.approx(np.tile(one, 3))


def test_a_cycle_that_is_no_whole_number_of_steps_keeps_its_length():
    values = rates(100, cycles=3)
    assert [int(i) for i in np.flatnonzero(np.diff(values) > 0) + 1] == [34, 67]


def test_one_step_has_the_peak_rate():
    assert rates(1).tolist() == [1.0]
