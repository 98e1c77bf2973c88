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


def test_other_outputs_than_the_modules_are_refused(write: Callable, rows: dict) -> None:
    head = Head()
    with pytest.raises(ModelError, match=r"has outputs \['scores'\], torch gives \['quality'\]"):
        check_parity(torch_reference(head, NAMES, ["quality"]), write(head), rows)


class Interval(Head):
    """Scores with an interval of `half`, missing values counted as `usual`."""

    def __init__(self, half: float = 0.5, usual: float = 0.0) -> None:
        super().__init__()
        self.half, self.usual = half, usual

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        filled = (torch.where(x.abs() < 1e30, x, torch.full_like(x, self.usual)) for x in (a, b))
        scores = super().forward(*filled)
        return scores, scores - self.half, scores + self.half


OUTPUTS = ["scores", "low", "high"]


@pytest.fixture
def write_interval(tmp_path: Path) -> Callable[[nn.Module], Path]:
    def write(module: nn.Module) -> Path:
        export_module(
            module, (torch.zeros(2, 2), torch.zeros(2, 3)), tmp_path / "i.onnx", input_names=NAMES,
            output_names=OUTPUTS, dynamic_axes={n: {0: "batch"} for n in (*NAMES, *OUTPUTS)},
        )  # fmt: skip
        return tmp_path / "i.onnx"

    return write


def test_every_output_is_compared(write_interval: Callable, rows: dict) -> None:
    reference = torch_reference(Interval(), NAMES, OUTPUTS)
    report = check_parity(reference, write_interval(Interval()), rows)
    assert [(s.name, s.output) for s in report.sets] == [
        (name, output) for name in ("real", "random", "extremes") for output in OUTPUTS
    ]
    with pytest.raises(ModelError, match=r"differ by 0\.001 .*in low, allowed"):
        check_parity(reference, write_interval(Interval(half=0.501)), rows)


def test_missing_values_are_compared_where_they_are_inputs(write_interval: Callable, rows: dict) -> None:
    reference = torch_reference(Interval(), NAMES, OUTPUTS)
    report = check_parity(reference, write_interval(Interval()), rows, missing=True)
    # Sixteen rows without a, without b, without both, and with NaN, infinity and minus infinity here and there.
    assert {s.rows for s in report.sets if s.name == "missing"} == {6 * 16}
    other = write_interval(Interval(usual=0.25))
    check_parity(reference, other, rows)
    with pytest.raises(ModelError, match="fails on missing rows"):
        check_parity(reference, other, rows, missing=True)


def test_missing_rows_lack_each_input_in_turn_then_all_then_parts(write_interval: Callable, rows: dict) -> None:
    seen: dict[str, np.ndarray] = {}
    ours = torch_reference(Interval(), NAMES, OUTPUTS)

    def reference(given: dict) -> dict:
        seen.update({name: matrix for name, matrix in given.items() if len(matrix) == 6 * 16})
        return ours(given)

    check_parity(reference, write_interval(Interval()), rows, missing=True)
    blocks = {name: matrix.reshape(6, 16, -1) for name, matrix in seen.items()}
    absent = {name: np.isnan(matrix).all(axis=(1, 2)).tolist() for name, matrix in blocks.items()}
    assert absent["a"] == [True, False, True, False, False, False]
    assert absent["b"] == [False, True, True, False, False, False]
    assert np.isfinite(blocks["b"][0]).all()
    for block, broken in zip(blocks["a"][3:, :, 0], (np.nan, np.inf, -np.inf), strict=True):
        np.testing.assert_array_equal(block, np.full(16, broken))


def test_rows_with_missing_values_give_finite_random_rows_of_the_columns_own_scale(
    write_interval: Callable, rows: dict
) -> None:
    seen: dict[str, np.ndarray] = {}
    ours = torch_reference(Interval(), NAMES, OUTPUTS)

    def reference(given: dict) -> dict:
        if len(given["a"]) == 64:
            seen.update(given)
        return ours(given)

    rows["a"][3:6] = np.nan
    rows["a"][0, 1] = np.inf
    rows["b"][:, 2] = np.nan
    check_parity(reference, write_interval(Interval()), rows)
    assert 8 < seen["a"].mean() < 12
    assert 1 < seen["a"].std() < 5
    assert np.array_equal(seen["b"][:, 2], np.zeros(64))


def test_an_input_without_any_finite_value_is_refused(write_interval: Callable, rows: dict) -> None:
    rows["b"][:] = np.nan
    with pytest.raises(ModelError, match="no finite value for input 'b'"):
        check_parity(torch_reference(Interval(), NAMES, OUTPUTS), write_interval(Interval()), rows)


def test_infinite_ends_agree_only_where_the_caller_expects_them(write_interval: Callable, rows: dict) -> None:
    endless = Interval(half=float("inf"))
    reference = torch_reference(endless, NAMES, OUTPUTS)
    path = write_interval(endless)
    check_parity(reference, path, rows, unbounded=("low", "high"))
    for unbounded in ((), ("low",), ("high",)):
        with pytest.raises(ModelError, match="NaN or infinite: (low|high)"):
            check_parity(reference, path, rows, unbounded=unbounded)
    with pytest.raises(ModelError, match="NaN or infinite: low"):
        check_parity(reference, write_interval(Interval()), rows, unbounded=("low", "high"))


def test_rounding_counts_by_the_scale_of_the_labels(write: Callable, rows: dict) -> None:
    head, other = Head(), Head()
    with torch.no_grad():
        other.net[2].bias[1] += 1e-4
    for floor, passes in (([1, 1], False), ([20, 1], False), ([1, 20], True), ([20, 0.01], False)):
        reference, path = torch_reference(head, NAMES), write(other)
        if passes:
            check_parity(reference, path, rows, floor={"scores": np.array(floor)})
        else:
            with pytest.raises(ModelError, match="fails on"):
                check_parity(reference, path, rows, floor={"scores": np.array(floor)})


def test_on_labels_of_a_narrow_scale_a_small_difference_counts(write: Callable, rows: dict) -> None:
    head, other = Head(scale=0.01), Head(scale=0.01)
    with torch.no_grad():
        other.net[2].bias[1] += 5e-4
    reference, path = torch_reference(head, NAMES), write(other)
    check_parity(reference, path, rows)
    with pytest.raises(ModelError, match="fails on real rows"):
        check_parity(reference, path, rows, floor={"scores": np.array([0.01, 0.01])})


def test_inputs_with_time_steps_are_compared(tmp_path: Path) -> None:
    class Steps(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x[:, 1:] - x[:, :-1]).abs().mean(dim=(1, 2)).unsqueeze(1)

    export_module(
        Steps(), torch.zeros(2, 4, 3), tmp_path / "m.onnx", input_names=["x"], output_names=["scores"],
        dynamic_axes={n: {0: "batch"} for n in ("x", "scores")},
    )  # fmt: skip
    rows = {"x": np.random.default_rng(0).normal(size=(7, 4, 3)).astype(np.float32)}
    report = check_parity(torch_reference(Steps(), ["x"]), tmp_path / "m.onnx", rows)
    assert [s.rows for s in report.sets] == [7, 64, 5]


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
