"""What every head does, whichever it is; a new head passes this unchanged."""

import numpy as np
import pytest
import safetensors.torch
import torch

from vqa_train.core.config import parse
from vqa_train.core.errors import ConfigError, WeightsError
from vqa_train.evaluation import METRICS
from vqa_train.heads import HEADS
from vqa_train.heads.base import Head
from vqa_train.heads.checkpoint import load_head, save_head
from vqa_train.heads.config import HeadConfig, TrainConfig
from vqa_train.heads.noise import Noise
from vqa_train.heads.trainer import FittedHead, fit_head, predict
from vqa_train.onnx.export import export_module
from vqa_train.onnx.parity import check_parity, torch_reference
from vqa_train.onnx.runtime import OnnxModel

VECTORS = {"video.pooled": (7,), "text": (3,)}
STEPS = {"video.steps": (4, 5)}
TARGETS = ["overall", "motion"]
# The streams from here on belong to the trainer.
FIRST_TAKEN_STREAM = 31


@pytest.fixture(params=HEADS.names())
def kind(request) -> str:
    return request.param


def inputs_of(kind: str) -> dict[str, tuple[int, ...]]:
    return VECTORS | (STEPS if HEADS.get(kind).takes_time else {})


def rows(kind: str, count: int = 90, seed: int = 0):
    """Features of very different scales with a constant column, labels with holes, groups."""
    rng = np.random.default_rng(seed)
    scale = np.array([1e-6, 1, 1e6, 5, 1, 1, 1])
    video = rng.normal(size=(count, 7)) * scale + np.array([0, 100, -1e6, 0, 0, 0, 0])
    video[:, 6] = 42.0
    text = rng.normal(size=(count, 3))
    steps = rng.normal(size=(count, 4, 5)) * np.array([1, 1e-3, 1e4, 1, 1])
    signal = (video[:, 1] - 100) + text[:, 0]
    labels = np.stack([3 + signal, 50 - 10 * signal], axis=1)
    labels[::7, 1] = np.nan
    made = {"video.pooled": video, "text": text, "video.steps": steps}
    features = {name: made[name].astype(np.float32) for name in inputs_of(kind)}
    return features, labels.astype(np.float32), [f"g{i // 2}" for i in range(count)]


def fit(kind: str, part=None, **recipe) -> FittedHead:
    features, labels, groups = part or rows(kind)
    head = {"kind": kind, **recipe.pop("head", {})}
    config = parse(TrainConfig, {"epochs": 5, "head": head, **recipe}, "recipe")
    keys = [f"{i:04d}" for i in range(len(labels))]
    return fit_head(features, labels, groups, TARGETS, config, metric=METRICS.get("srocc"), keys=keys)


def extremes(kind: str) -> dict[str, np.ndarray]:
    """Rows of huge, tiny and broken values, alone and among ordinary ones."""
    values = np.array([0, 1e30, -1e30, 3e38, -3e38, np.inf, -np.inf, np.nan, 1e-40], dtype=np.float32)
    single, _, _ = rows(kind, len(values), seed=1)
    mixed = {name: matrix.copy() for name, matrix in single.items()}
    for matrix in mixed.values():
        matrix.reshape(len(values), -1)[:, 0] = values
    whole = {
        name: np.broadcast_to(values.reshape(-1, *[1] * len(shape)), (len(values), *shape))
        for name, shape in inputs_of(kind).items()
    }
    return {name: np.concatenate([mixed[name], whole[name]]) for name in mixed}


def tensors(features) -> list[torch.Tensor]:
    return [torch.from_numpy(matrix) for matrix in features.values()]


def untrained(kind: str, models: int = 1, **config) -> Head:
    return HEADS.get(kind)(inputs_of(kind), TARGETS, HeadConfig(kind=kind, **config), models=models)


def drawn(kind: str, models: int = 3, **config) -> Head:
    """Initialised, each model by a generator of its own."""
    head = untrained(kind, models, **config)
    head.initialise([torch.Generator().manual_seed(seed) for seed in range(models)])
    return head


@pytest.fixture
def trained_kind(kind) -> str:
    if HEADS.get(kind).closed_form:
        pytest.skip("its weights have a closed form: nothing is drawn and nothing dropped")
    return kind


def test_it_is_built_from_names_and_predicts_the_mean_until_it_is_trained(kind):
    before = torch.get_rng_state()
    head = untrained(kind).eval()
    assert torch.equal(torch.get_rng_state(), before)
    assert isinstance(head, Head)
    assert head.kind == kind
    features, _, _ = rows(kind, 5)
    assert torch.equal(head(*tensors(features)), torch.zeros(5, 2))


@pytest.mark.parametrize(
    ("inputs", "targets"), [({}, ["a"]), ({"x": 3}, []), ({"x": 0}, ["a"]), ({"x": 3}, ["a", "a"])]
)
def test_a_head_without_inputs_or_distinct_targets_is_an_error(kind, inputs, targets):
    with pytest.raises(ConfigError, match="distinct targets"):
        HEADS.get(kind)(inputs, targets, HeadConfig(kind=kind))


def test_inputs_with_time_are_refused_where_it_has_no_use_for_them(kind):
    if HEADS.get(kind).takes_time:
        assert HEADS.get(kind)(STEPS, TARGETS, HeadConfig(kind=kind)).columns == 20
    else:
        with pytest.raises(ConfigError, match="takes vectors.*`temporal`"):
            HEADS.get(kind)({**VECTORS, **STEPS}, TARGETS, HeadConfig(kind=kind))


def test_an_unknown_option_is_an_error(kind):
    with pytest.raises(ConfigError, match=f"head.options of kind '{kind}'.*colour"):
        untrained(kind, options={"colour": 1})


@pytest.mark.parametrize("count", [1, 2, 33])
def test_scores_are_float32_of_one_row_per_video_and_rows_do_not_mix(kind, count):
    head = fit(kind).module
    features, _, _ = rows(kind, count, seed=2)
    scores = head(*tensors(features))
    assert (scores.shape, scores.dtype) == ((count, 2), torch.float32)
    alone = torch.cat([head(*(x[i : i + 1] for x in tensors(features))) for i in range(count)])
    torch.testing.assert_close(scores, alone, rtol=1e-5, atol=1e-5)


def test_inputs_of_another_number_or_length_are_refused(kind):
    head = untrained(kind)
    with pytest.raises(ValueError, match="expected inputs"):
        head(torch.zeros(2, 7))
    with pytest.raises(ValueError, match="expected inputs"):
        head(*(torch.zeros(2, *shape[:-1], shape[-1] + 1) for shape in inputs_of(kind).values()))


def test_every_tensor_begins_with_the_models_and_a_model_is_what_it_would_be_alone(kind):
    head = drawn(kind, 3)
    assert {tensor.shape[0] for tensor in head.state_dict().values()} == {3}
    x = torch.randn(3, 6, head.columns, generator=torch.Generator().manual_seed(0))
    together = head.network(x)
    assert together.shape == (3, 6, head.width)
    for model in range(3):
        alone = head.select([model]).network(x[model : model + 1])
        torch.testing.assert_close(together[model : model + 1], alone, rtol=1e-5, atol=1e-6)


def test_each_model_is_drawn_from_its_own_generator_and_from_nothing_else(trained_kind):
    before = torch.get_rng_state()
    one, two = drawn(trained_kind, 3), drawn(trained_kind, 2)
    assert torch.equal(torch.get_rng_state(), before)
    for name, tensor in two.state_dict().items():
        assert torch.equal(one.state_dict()[name][:2], tensor)
    assert any(not torch.equal(tensor[0], tensor[1]) for tensor in two.state_dict().values())


def test_dropout_comes_from_the_noise_alone_and_each_mask_has_a_stream(trained_kind):
    class Watched(Noise):
        def __init__(self, *args) -> None:
            super().__init__(*args)
            self.streams: list[int] = []

        def keep(self, stream, shape, drop):
            self.streams.append(stream)
            return super().keep(stream, shape, drop)

    head = drawn(trained_kind, 2, hidden=(8,) * 16)
    x = torch.randn(2, 50, head.columns, generator=torch.Generator().manual_seed(0))
    noise = Watched([1, 2])
    dropped = head.network(x, noise, 0.5)
    assert len(set(noise.streams)) == len(noise.streams) > 0
    assert max(noise.streams) < FIRST_TAKEN_STREAM
    assert not torch.equal(dropped, head.network(x))
    assert torch.equal(dropped, head.network(x, Noise([1, 2]), torch.tensor([0.5, 0.5])))
    assert torch.equal(head.network(x, Noise([1, 2]), 0.0), head.network(x))


def test_a_new_row_at_the_end_leaves_the_other_rows_dropout_alone(trained_kind):
    head = drawn(trained_kind, 2)
    x = torch.randn(2, 9, head.columns, generator=torch.Generator().manual_seed(0))
    more, fewer = (head.network(rows, Noise([1, 2]), 0.5) for rows in (x, x[:, :8]))
    torch.testing.assert_close(more[:, :8], fewer, rtol=1e-5, atol=1e-6)


def test_the_gradient_of_one_model_does_not_reach_another(trained_kind):
    head = drawn(trained_kind, 2)
    x = torch.randn(2, 5, head.columns, generator=torch.Generator().manual_seed(0))
    head.network(x, Noise([1, 2]), 0.1)[0].square().sum().backward()
    gradients = [parameter.grad for parameter in head.parameters()]
    assert all(gradient is not None and gradient[0].any() for gradient in gradients)
    assert not any(gradient[1].any() for gradient in gradients)


def test_inputs_are_standardised_inside_the_graph(kind):
    features, labels, groups = rows(kind)
    one = fit(kind, (features, labels, groups))
    moved = {name: matrix * np.float32(4) for name, matrix in features.items()}
    two = fit(kind, (moved, labels, groups))
    # A power of two scales float32 exactly, so the network inside sees the very same numbers.
    np.testing.assert_array_equal(predict(one.module, features), predict(two.module, moved))


def test_scores_are_on_the_scale_of_the_labels_and_losses_are_not(kind):
    features, labels, groups = rows(kind)
    one = fit(kind, (features, labels, groups))
    two = fit(kind, (features, labels * np.float32(8), groups))
    np.testing.assert_allclose(predict(two.module, features), predict(one.module, features) * 8, rtol=1e-5)
    assert [e["train_loss"] for e in one.history] == pytest.approx([e["train_loss"] for e in two.history], rel=1e-5)


def test_it_learns(kind):
    """Better than the mean on rows of which it has seen the like: both targets follow one signal."""
    features, labels, groups = rows(kind, 300)
    fitted = fit(kind, (features, labels, groups), epochs=40, validation={"fraction": 0}, patience=None)
    assert fitted.validation.sum() == 0
    unseen, truth, _ = rows(kind, 200, seed=9)
    predicted = predict(fitted.module, unseen)
    for column in range(2):
        known = ~np.isnan(truth[:, column])
        assert np.corrcoef(predicted[known, column], truth[known, column])[0, 1] > 0.8


def test_a_closed_form_has_no_epochs_and_says_what_it_chose_and_others_have_both(kind):
    fitted = fit(kind)
    if HEADS.get(kind).closed_form:
        assert (fitted.history, fitted.best_epoch, fitted.counts["steps"]) == ([], 0, 0)
        assert not list(fitted.module.parameters())
        assert fitted.chosen
        assert all(np.isfinite(value) for value in fitted.chosen.values())
        assert fitted.counts["train"] == 90
    else:
        assert len(fitted.history) == 5
        assert fitted.chosen == {}


@pytest.mark.parametrize("output", ["ordinal", "heteroscedastic"])
def test_outputs_with_a_deviation_are_trained_or_refused(kind, output):
    if HEADS.get(kind).closed_form:
        with pytest.raises(ConfigError, match="output `point` only"):
            fit(kind, head={"output": output})
        return
    fitted = fit(kind, head={"output": output, "bins": 7})
    head = fitted.module
    features, _, _ = rows(kind, 20)
    raw = head.raw(*tensors(features))
    spread = head.spread(raw)
    assert spread.shape == (1, 20, 2)
    assert (spread > 0).all()
    assert fitted.history[-1]["train_loss"] < fitted.history[0]["train_loss"]


def test_broken_and_huge_values_give_finite_scores_and_a_missing_value_counts_as_the_mean(kind):
    head = fit(kind).module
    assert np.isfinite(predict(head, extremes(kind))).all()
    features, _, _ = rows(kind, 4, seed=3)
    column = features["video.pooled"][:, 2]
    column[:] = [np.nan, np.inf, -np.inf, np.nan]
    holed = predict(head, features)
    column[:] = head.input_mean[0, 2].item()
    np.testing.assert_array_equal(holed, predict(head, features))


def test_values_beyond_the_clip_change_nothing_more(kind):
    head = fit(kind).module
    features, _, _ = rows(kind, 4, seed=3)
    mean, std = head.input_mean[0, 3].item(), head.input_std[0, 3].item()
    features["video.pooled"][:, 3] = mean + 6.5 * std
    near = predict(head, features)
    features["video.pooled"][:, 3] = 1e20
    np.testing.assert_array_equal(near, predict(head, features))
    features["video.pooled"][:, 3] = mean + 5 * std
    assert not np.array_equal(near, predict(head, features))


def test_a_constant_column_is_silenced_whatever_comes_later(kind):
    head = fit(kind).module
    features, _, _ = rows(kind, 6, seed=3)
    before = predict(head, features)
    features["video.pooled"][:, 6] = [0, 1e9, -3e38, np.inf, np.nan, 43]
    np.testing.assert_array_equal(predict(head, features), before)


def test_fitting_twice_gives_the_same_weights_bit_for_bit_and_the_seed_moves_what_is_drawn(kind):
    one, two = (fit(kind).module.state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    other = fit(kind, seed=1).module.state_dict()
    differs = any(not torch.equal(one[name], other[name]) for name in one)
    assert differs is not HEADS.get(kind).closed_form


def test_the_labels_of_one_target_do_not_need_those_of_the_other(kind):
    """Where no row has both labels, both are learnt all the same."""
    features, labels, groups = rows(kind, 200)
    labels[:100, 0], labels[100:, 1] = np.nan, np.nan
    fitted = fit(kind, (features, labels, groups), epochs=60, validation={"fraction": 0}, patience=None)
    unseen, truth, _ = rows(kind, 200, seed=9)
    predicted = predict(fitted.module, unseen)
    known = ~np.isnan(truth[:, 1])
    assert np.corrcoef(predicted[known].T, truth[known].T)[[0, 1], [2, 3]].min() > 0.6


def test_the_expected_range_holds_the_training_labels(kind):
    _, labels, _ = rows(kind)
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
    features, _, _ = rows(kind, 20, seed=4)
    np.testing.assert_array_equal(predict(loaded, features), predict(head, features))
    with safetensors.safe_open(str(tmp_path / "head"), framework="pt") as file:
        metadata, state = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for name, tensor in state.items():
        cut = {**state, name: tensor[..., :-1].contiguous()}
        (tmp_path / "cut").write_bytes(safetensors.torch.save(cut, metadata=metadata))
        with pytest.raises(WeightsError, match="does not fit its network"):
            load_head(tmp_path / "cut")


@pytest.mark.parametrize("output", ["point", "ordinal", "heteroscedastic"])
def test_onnxruntime_agrees_on_ordinary_and_extreme_rows_of_any_number(kind, output, tmp_path):
    if output != "point" and HEADS.get(kind).closed_form:
        pytest.skip("a closed form gives output `point` only")
    head = fit(kind, head={"output": output}).module
    path = tmp_path / "head.onnx"
    names = list(inputs_of(kind))
    export_module(
        head,
        tuple(torch.zeros(2, *shape) for shape in inputs_of(kind).values()),
        path,
        input_names=names,
        output_names=["scores"],
        dynamic_axes={name: {0: "N"} for name in [*names, "scores"]},
        fold=False,
    )
    model = OnnxModel(path)
    assert (list(model.inputs), model.opset) == (names, 17)
    check_parity(torch_reference(head, names), path, rows(kind, 200, seed=6)[0], missing=True)
    for features in (rows(kind, 1, seed=5)[0], extremes(kind)):
        expected = predict(head, features)
        got = model.run(features)["scores"]
        assert got.dtype == np.float32
        # On the scale of each label, so that a 0-100 scale is held to the same precision as 1-5.
        assert (np.abs(got - expected) / np.maximum(1.0, np.abs(expected))).max() < 1e-5
