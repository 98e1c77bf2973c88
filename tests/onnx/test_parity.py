"""Parity finds a graph that computes something else, and refuses to pass when it could not have failed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vqa_train.core.errors import ModelError
from vqa_train.onnx.export import export_module
from vqa_train.onnx.parity import check_parity, compare, torch_reference

NAMES = ["a", "b"]


class Head(nn.Module):
    """(a - mean) and b through a small network; `shift` appears where training mode or a branch would differ."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.net = nn.Sequential(nn.Linear(5, 6), nn.GELU(), nn.Linear(6, 2))
        self.scale = scale

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.net(torch.cat([a - 10, b], dim=1)) * self.scale


@pytest.fixture
def rows() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "a": rng.normal(10, 3, (20, 2)).astype(np.float32),
        "b": rng.normal(0, 1, (20, 3)).astype(np.float32),
    }


@pytest.fixture
def write(tmp_path: Path) -> Callable[[nn.Module], Path]:
    def write(module: nn.Module) -> Path:
        export_module(
            module, (torch.zeros(2, 2), torch.zeros(2, 3)), tmp_path / "m.onnx", input_names=NAMES,
            output_names=["scores"], dynamic_axes={n: {0: "batch"} for n in (*NAMES, "scores")},
        )  # fmt: skip
        return tmp_path / "m.onnx"

    return write


def test_a_faithful_graph_passes_with_every_set_reported(write: Callable, rows: dict) -> None:
    head = Head()
    report = check_parity(torch_reference(head, NAMES), write(head), rows)
    assert {s.name: s.rows for s in report.sets} == {"real": 20, "random": 64, "extremes": 5}
    assert all(0 <= s.max_scaled_diff <= 1e-5 for s in report.sets)
    assert report.to_json()["opset"] == 17
    assert report.to_json()["sets"][0]["name"] == "real"


def test_slightly_other_weights_fail(write: Callable, rows: dict) -> None:
    head, other = Head(), Head()
    with torch.no_grad():
        other.net[2].bias[1] += 2e-4
    with pytest.raises(ModelError, match=r"fails on real rows.*differ by 0\.0002"):
        check_parity(torch_reference(head, NAMES), write(other), rows)


def test_a_difference_only_beyond_the_real_rows_is_found(write: Callable, rows: dict) -> None:
    class Clamped(Head):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return super().forward(a.clamp(max=25), b)

    assert rows["a"].max() < 25
    with pytest.raises(ModelError, match="fails on extremes rows"):
        check_parity(torch_reference(Head(), NAMES), write(Clamped()), rows)


def test_swapped_inputs_fail(tmp_path: Path) -> None:
    class Difference(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return (a - b).sum(dim=1, keepdim=True)

    rng = np.random.default_rng(2)
    rows = {name: rng.normal(size=(6, 3)).astype(np.float32) for name in NAMES}
    export_module(
        Difference(), (torch.zeros(2, 3), torch.zeros(2, 3)), tmp_path / "m.onnx", input_names=NAMES[::-1],
        output_names=["scores"], dynamic_axes={n: {0: "batch"} for n in (*NAMES, "scores")},
    )  # fmt: skip
    with pytest.raises(ModelError, match="fails on real rows"):
        check_parity(torch_reference(Difference(), NAMES), tmp_path / "m.onnx", rows)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: {}, "no real rows"),
        (lambda r: {n: m[:0] for n, m in r.items()}, "no real rows"),
        (lambda r: {**r, "b": np.zeros_like(r["b"])}, "only zeros for input 'b'"),
        (lambda r: {**r, "a": np.repeat(r["a"][:1], 20, axis=0)}, "the same row 20 times for input 'a'"),
    ],
)
def test_rows_that_check_nothing_are_refused(write: Callable, rows: dict, change: Callable, message: str) -> None:
    head = Head()
    with pytest.raises(ModelError, match=message):
        check_parity(torch_reference(head, NAMES), write(head), change(rows))


def test_a_collapsed_head_is_refused(write: Callable, rows: dict) -> None:
    head = Head(scale=0.0)
    with pytest.raises(ModelError, match="the same for all real rows"):
        check_parity(torch_reference(head, NAMES), write(head), rows)


def test_one_real_row_is_enough_because_random_rows_follow(write: Callable, rows: dict) -> None:
    head = Head()
    report = check_parity(torch_reference(head, NAMES), write(head), {n: m[:1] for n, m in rows.items()})
    assert [s.rows for s in report.sets] == [1, 64, 5]


def test_nan_on_both_sides_is_no_agreement(write: Callable, rows: dict) -> None:
    head = Head()
    rows["a"][3, 0] = np.nan
    with pytest.raises(ModelError, match="NaN or infinite"):
        check_parity(torch_reference(head, NAMES), write(head), rows)


def test_an_unknown_output_is_refused(write: Callable, rows: dict) -> None:
    head = Head()
    with pytest.raises(ModelError, match=r"no output 'quality', it has \['scores'\]"):
        check_parity(torch_reference(head, NAMES), write(head), rows, output="quality")


def test_differences_are_absolute_up_to_one_and_relative_beyond() -> None:
    small = compare("real", np.array([[0.5]]), np.array([[0.5 + 9e-6]]), tolerance=1e-5, what="m")
    assert small.max_scaled_diff == pytest.approx(9e-6)
    large = compare("real", np.array([[100.0]]), np.array([[100.0005]]), tolerance=1e-5, what="m")
    assert large.max_scaled_diff == pytest.approx(5e-6)
    assert large.max_abs_diff == pytest.approx(5e-4)


def test_another_shape_is_refused() -> None:
    with pytest.raises(ModelError, match=r"torch gives \(2, 1\), onnxruntime \(2, 2\)"):
        compare("real", np.ones((2, 1)), np.ones((2, 2)), tolerance=1e-5, what="m")


def test_the_reference_leaves_the_module_in_its_mode(rows: dict) -> None:
    head = Head().train()
    torch_reference(head, NAMES)(rows)
    assert head.training
