"""What every head does, whichever it is; a new head passes this unchanged."""

import warnings

import numpy as np
import onnxruntime
import pytest
import torch

from vqa_train.core.config import parse
from vqa_train.core.errors import ConfigError
from vqa_train.evaluation import METRICS
from vqa_train.heads import HEADS
from vqa_train.heads.base import Head
from vqa_train.heads.checkpoint import load_head, save_head
from vqa_train.heads.config import HeadConfig, TrainConfig
from vqa_train.heads.trainer import FittedHead, fit_head, predict

INPUTS = {"video.pooled": 7, "text": 3}
TARGETS = ["overall", "motion"]


@pytest.fixture(params=HEADS.names())
def kind(request) -> str:
    return request.param


def rows(count: int = 90, seed: int = 0):
    """Features of very different scales with a constant column, labels with holes, groups."""
    rng = np.random.default_rng(seed)
    scale = np.array([1e-6, 1, 1e6, 5, 1, 1, 1])
    video = rng.normal(size=(count, 7)) * scale + np.array([0, 100, -1e6, 0, 0, 0, 0])
    video[:, 6] = 42.0
    text = rng.normal(size=(count, 3))
    signal = (video[:, 1] - 100) + text[:, 0]
    labels = np.stack([3 + signal, 50 - 10 * signal], axis=1)
    labels[::7, 1] = np.nan
    features = {"video.pooled": video.astype(np.float32), "text": text.astype(np.float32)}
    return features, labels.astype(np.float32), [f"g{i // 2}" for i in range(count)]


def fit(kind: str, part=None, **recipe) -> FittedHead:
    features, labels, groups = part or rows()
    config = parse(TrainConfig, {"epochs": 5, "head": {"kind": kind}, **recipe}, "recipe")
    keys = [f"{i:04d}" for i in range(len(labels))]
    return fit_head(features, labels, groups, TARGETS, config, metric=METRICS.get("srocc"), keys=keys)


def extremes() -> dict[str, np.ndarray]:
    """Rows of huge, tiny and broken values, alone and among ordinary ones."""
    values = np.array([0, 1e30, -1e30, 3e38, -3e38, np.inf, -np.inf, np.nan, 1e-40], dtype=np.float32)
    single, _, _ = rows(len(values), seed=1)
    mixed = {name: matrix.copy() for name, matrix in single.items()}
    for matrix in mixed.values():
        matrix[:, 0] = values
    whole = {name: np.repeat(values[:, None], dim, axis=1) for name, dim in INPUTS.items()}
    return {name: np.concatenate([mixed[name], whole[name]]) for name in INPUTS}


def tensors(features) -> list[torch.Tensor]:
    return [torch.from_numpy(features[name]) for name in INPUTS]


def test_it_is_built_from_names_and_predicts_the_mean_until_it_is_trained(kind):
    before = torch.get_rng_state()
    head = HEADS.get(kind)(INPUTS, TARGETS, HeadConfig(kind=kind)).eval()
    assert torch.equal(torch.get_rng_state(), before)
    assert isinstance(head, Head)
    assert head.kind == kind
    features, _, _ = rows(5)
    assert torch.equal(head(*tensors(features)), torch.zeros(5, 2))


@pytest.mark.parametrize(
    ("inputs", "targets"), [({}, ["a"]), ({"x": 3}, []), ({"x": 0}, ["a"]), ({"x": 3}, ["a", "a"])]
)
def test_a_head_without_inputs_or_distinct_targets_is_an_error(kind, inputs, targets):
    with pytest.raises(ConfigError, match="distinct targets"):
        HEADS.get(kind)(inputs, targets, HeadConfig(kind=kind))


@pytest.mark.parametrize("count", [1, 2, 33])
def test_scores_are_float32_of_one_row_per_video_and_rows_do_not_mix(kind, count):
    head = fit(kind).module
    features, _, _ = rows(count, seed=2)
    scores = head(*tensors(features))
    assert (scores.shape, scores.dtype) == ((count, 2), torch.float32)
    alone = torch.cat([head(*(x[i : i + 1] for x in tensors(features))) for i in range(count)])
    torch.testing.assert_close(scores, alone, rtol=1e-5, atol=1e-5)


def test_inputs_of_another_number_or_length_are_refused(kind):
    head = HEADS.get(kind)(INPUTS, TARGETS, HeadConfig(kind=kind))
    with pytest.raises(ValueError, match="expected inputs"):
        head(torch.zeros(2, 7))
    with pytest.raises(ValueError, match="expected inputs"):
        head(torch.zeros(2, 1), torch.zeros(2, 3))


def test_inputs_are_standardised_inside_the_graph(kind):
    features, labels, groups = rows()
    one = fit(kind, (features, labels, groups))
    moved = {name: matrix * np.float32(4) for name, matrix in features.items()}
    two = fit(kind, (moved, labels, groups))
    # A power of two scales float32 exactly, so the network inside sees the very same numbers.
    np.testing.assert_array_equal(predict(one.module, features), predict(two.module, moved))


def test_scores_are_on_the_scale_of_the_labels_and_losses_are_not(kind):
    features, labels, groups = rows()
    one = fit(kind, (features, labels, groups))
    two = fit(kind, (features, labels * np.float32(8), groups))
    np.testing.assert_allclose(predict(two.module, features), predict(one.module, features) * 8, rtol=1e-5)
    assert one.history[-1]["train_loss"] == pytest.approx(two.history[-1]["train_loss"], rel=1e-5)


def test_broken_and_huge_values_give_finite_scores_and_a_missing_value_counts_as_the_mean(kind):
    head = fit(kind).module
    assert np.isfinite(predict(head, extremes())).all()
    features, _, _ = rows(4, seed=3)
    column = features["video.pooled"][:, 2]
    column[:] = [np.nan, np.inf, -np.inf, np.nan]
    holed = predict(head, features)
    column[:] = head.input_mean[2].item()
    np.testing.assert_array_equal(holed, predict(head, features))


def test_values_beyond_the_clip_change_nothing_more(kind):
    head = fit(kind).module
    features, _, _ = rows(4, seed=3)
    mean, std = head.input_mean[3].item(), head.input_std[3].item()
    features["video.pooled"][:, 3] = mean + 6.5 * std
    near = predict(head, features)
    features["video.pooled"][:, 3] = 1e20
    np.testing.assert_array_equal(near, predict(head, features))
    features["video.pooled"][:, 3] = mean + 5 * std
    assert not np.array_equal(near, predict(head, features))


def test_a_constant_column_is_silenced_whatever_comes_later(kind):
    head = fit(kind).module
    features, _, _ = rows(6, seed=3)
    before = predict(head, features)
    features["video.pooled"][:, 6] = [0, 1e9, -3e38, np.inf, np.nan, 43]
    np.testing.assert_array_equal(predict(head, features), before)


def test_fitting_twice_gives_the_same_weights_bit_for_bit(kind):
    one, two = (fit(kind).module.state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    other = fit(kind, seed=1).module.state_dict()
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_the_expected_range_holds_the_training_labels(kind):
    _, labels, _ = rows()
    fitted = fit(kind)
    train = ~fitted.validation
    for k, name in enumerate(TARGETS):
        low, high = fitted.module.expected_output_range()[name]
        smallest, largest = float(np.nanmin(labels[train, k])), float(np.nanmax(labels[train, k]))
        assert low == pytest.approx(smallest - 0.1 * (largest - smallest), rel=1e-5)
        assert high == pytest.approx(largest + 0.1 * (largest - smallest), rel=1e-5)


def test_a_checkpoint_comes_back_bit_for_bit_and_fits_no_other_network(kind, tmp_path):
    head = fit(kind).module
    save_head(tmp_path / "head", head, {"epoch": 5})
    loaded, meta = load_head(tmp_path / "head")
    assert type(loaded) is type(head)
    assert meta == {"epoch": 5}
    features, _, _ = rows(20, seed=4)
    np.testing.assert_array_equal(predict(loaded, features), predict(head, features))


def test_onnxruntime_agrees_on_ordinary_and_extreme_rows_of_any_number(kind, tmp_path):
    head = fit(kind).module
    path = tmp_path / "head.onnx"
    with warnings.catch_warnings():
        # torch's TorchScript exporter, which needs no further package, announces its successor.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            head,
            tuple(torch.zeros(2, dim) for dim in INPUTS.values()),
            str(path),
            input_names=list(INPUTS),
            output_names=["scores"],
            dynamic_axes={name: {0: "N"} for name in [*INPUTS, "scores"]},
            opset_version=17,
            dynamo=False,
        )
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert [i.name for i in session.get_inputs()] == list(INPUTS)
    for features in (rows(1, seed=5)[0], rows(200, seed=6)[0], extremes()):
        expected = predict(head, features)
        got = session.run(["scores"], features)[0]
        assert got.dtype == np.float32
        # On the scale of each label, so that a 0-100 scale is held to the same precision as 1-5.
        scale = np.maximum(1.0, np.abs(expected))
        assert np.abs(got - expected).max() < 1e-4
        assert (np.abs(got - expected) / scale).max() < 1e-5
