"""DOVER's networks against the official code's keys and numbers, each way of computing against the other."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vqa_train.backbones import dover_cpu
from vqa_train.backbones.dover_convnext import DoverConvNext, Grn
from vqa_train.backbones.dover_convnext_cpu import convnext_features
from vqa_train.backbones.dover_cpu import is_fast
from vqa_train.backbones.dover_network import DoverNetwork
from vqa_train.backbones.dover_swin import SwinStage
from vqa_train.backbones.dover_team import Team
from vqa_train.onnx.export import export_module
from vqa_train.onnx.runtime import OnnxModel

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(Path(__file__).parent)
    import dover_golden as golden
    import dover_recipe as recipe

EACH = [(model, case, branch) for model in golden.MODELS for case in golden.CASES for branch in golden.BRANCHES]
# A place in a tensor that the small goldens depend on, by how its key ends; otherwise the first. Of the tables it is a
# row: of tokens six columns apart, and of a token and itself.
PLACES = {
    "dwconv.weight": 24,
    "relative_position_bias_table": 1273,
    "fragment_position_bias_table": 1267,
    "relative_position_index": 1,
}


@pytest.fixture(scope="module", autouse=True)
def networks() -> Iterator[Callable[[str, str], DoverNetwork]]:
    """(model, case) -> the network with that case's weights, built once."""

    @cache
    def built(model: str, rule: str) -> DoverNetwork:
        network = golden.load(DoverNetwork(mobile=model == "dover_mobile"), model, rule)
        assert isinstance(network, DoverNetwork)
        return network

    yield lambda model, case: built(model, "faint" if case == "faint" else "fill")
    for kept in (golden.weights, golden.clips):
        kept.cache_clear()


def run(network: DoverNetwork, branch: str, clips: Tensor) -> tuple[Tensor, Tensor]:
    with torch.inference_mode():
        return getattr(network, branch)(clips)


def plain(network: DoverNetwork, branch: str, clips: Tensor) -> tuple[Tensor, Tensor]:
    """The branch computed by its modules."""
    with torch.inference_mode():
        features = getattr(network, f"{branch}_backbone")(clips)
        return features, getattr(network, f"{branch}_head")(features)


@pytest.mark.parametrize("model", golden.MODELS)
def test_state_dict_keys_and_shapes_are_the_published_ones_in_order(model: str) -> None:
    state = DoverNetwork(mobile=model == "dover_mobile").state_dict()
    assert [(key, tuple(entry.shape)) for key, entry in state.items()] == list(golden.keys(model).items())
    for key, entry in state.items():
        assert entry.dtype == (torch.int64 if key.endswith("relative_position_index") else torch.float32)


@pytest.mark.parametrize("case", ["ref", "faint"])
@pytest.mark.parametrize("model", golden.MODELS)
def test_the_weights_are_those_that_the_goldens_were_made_with(
    networks: Callable[[str, str], DoverNetwork], model: str, case: str
) -> None:
    state = networks(model, case).state_dict()
    floating = {key: entry.numpy() for key, entry in state.items() if entry.is_floating_point()}
    assert recipe.digest(floating) == str(golden.numbers(model, case)["weights_sha256"])


@pytest.mark.parametrize(("model", "case", "branch"), EACH)
def test_features_and_scores_are_the_official_ones(
    networks: Callable[[str, str], DoverNetwork], model: str, case: str, branch: str
) -> None:
    clips = golden.clips(model, case, branch)
    outputs = run(networks(model, case), branch, clips)
    assert outputs[0].shape[1] == networks(model, case).feature_dim
    assert max(golden.distances(outputs, model, case, branch)) < golden.TOLERANCE
    np.testing.assert_array_equal(clips, recipe.clip(*golden.numbers(model, case)[f"{branch}/input_spec"].tolist()))


def tapped(backbone: nn.Module) -> tuple[dict[str, Tensor], Callable[[], None]]:
    """What the parts of a backbone give, by the goldens' names, as (B, C, T, H, W); filled while it runs."""
    found: dict[str, Tensor] = {}
    names = {"patch_embed": "embed", "norm": "final"}
    patterns = {
        r"layers\.(\d)\.blocks\.(\d)": r"stage\1.block\2",
        r"layers\.(\d)": r"stage\1.out",
        r"stages\.(\d)\.(\d)": r"stage\1.block\2",
        r"downsample_layers\.(\d)": r"stage\1.down",
    }
    hooks = []
    for path, module in backbone.named_modules():
        for pattern, name in patterns.items():
            if re.fullmatch(pattern, path):
                names[path] = re.sub(pattern, name, path)
        if path in names:
            channels_first = path.startswith("downsample_layers")

            def keep(
                _: nn.Module, __: object, y: Tensor, name: str = names[path], first: bool = channels_first
            ) -> None:
                found[name] = y if first else y.permute(0, 4, 1, 2, 3)

            hooks.append(module.register_forward_hook(keep))
    return found, lambda: [hook.remove() for hook in hooks] and None


@pytest.mark.parametrize(("model", "case", "branch"), EACH)
def test_every_stage_computed_by_its_modules_is_the_official_one(
    networks: Callable[[str, str], DoverNetwork], model: str, case: str, branch: str
) -> None:
    network, numbers = networks(model, case), golden.numbers(model, case)
    found, remove = tapped(getattr(network, f"{branch}_backbone"))
    try:
        outputs = plain(network, branch, golden.clips(model, case, branch))
    finally:
        remove()
    assert max(golden.distances(outputs, model, case, branch)) < golden.TOLERANCE
    assert sorted(found) == sorted(numbers[f"{branch}/taps"].tolist())
    for i, name in enumerate(numbers[f"{branch}/taps"].tolist()):
        values = found[name].reshape(-1)
        strided = values[torch.arange(64) * len(values) // 64]
        np.testing.assert_allclose(values[:16], numbers[f"{branch}/first"][i], rtol=0, atol=2e-5, err_msg=name)
        np.testing.assert_allclose(strided, numbers[f"{branch}/strided"][i], rtol=0, atol=2e-5, err_msg=name)


def kinds() -> list[tuple[str, str]]:
    """(model, first key) of each kind of tensor that computes anything, the number of its block aside."""
    found = {}
    for model in golden.MODELS:
        for key in golden.keys(model):
            if not re.search(r"backbone\.head\.", key):
                found.setdefault((model, re.sub(r"\.\d+\.", ".#.", key)), key)
    return [(model, key) for (model, _), key in found.items()]


@pytest.mark.parametrize(("model", "key"), kinds())
def test_one_element_of_a_tensor_changes_the_goldens(
    networks: Callable[[str, str], DoverNetwork], model: str, key: str
) -> None:
    network, branch = networks(model, "faint"), key.split("_", maxsplit=1)[0]
    flat = network.state_dict()[key].view(-1)
    shape = golden.keys(model)[key]
    place = next((place for end, place in PLACES.items() if key.endswith(end)), 0)
    place *= shape[1] if key.endswith("_bias_table") else 1
    before = flat[place].clone()
    with torch.no_grad():
        flat[place] = 0 if key.endswith("_index") else before + 3
        changed = run(network, branch, golden.clips(model, "faint", branch))
        flat[place] = before
    assert max(golden.distances(changed, model, "faint", branch)) > 5 * golden.TOLERANCE


@pytest.mark.parametrize("onednn", [True, False])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("model", golden.MODELS)
def test_threads_and_libraries_change_nothing(
    networks: Callable[[str, str], DoverNetwork],
    monkeypatch: pytest.MonkeyPatch,
    model: str,
    threads: int,
    onednn: bool,
) -> None:
    if onednn and not dover_cpu._ONEDNN:
        pytest.skip("this build of torch has no oneDNN")
    monkeypatch.setattr(dover_cpu, "_ONEDNN", onednn)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for branch in golden.BRANCHES:
            outputs = run(networks(model, "faint"), branch, golden.clips(model, "faint", branch))
            assert max(golden.distances(outputs, model, "faint", branch)) < golden.TOLERANCE
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("branch", golden.BRANCHES)
@pytest.mark.parametrize("model", golden.MODELS)
def test_a_clip_alone_has_the_features_it_has_in_a_batch(
    networks: Callable[[str, str], DoverNetwork], model: str, branch: str
) -> None:
    clips = torch.from_numpy(recipe.clip(2, 3, 18, 64, 100))
    together = run(networks(model, "odd"), branch, clips)
    for i in range(3):
        for alone, all_three in zip(run(networks(model, "odd"), branch, clips[i : i + 1]), together, strict=True):
            torch.testing.assert_close(alone[0], all_three[i], rtol=0, atol=1e-5)


@pytest.mark.parametrize("branch", golden.BRANCHES)
@pytest.mark.parametrize("model", golden.MODELS)
def test_bfloat16_comes_close(networks: Callable[[str, str], DoverNetwork], model: str, branch: str) -> None:
    clips = torch.from_numpy(recipe.clip(2, 1, 4, 64, 64))
    with torch.autocast("cpu", torch.bfloat16):
        features, _ = run(networks(model, "odd"), branch, clips)
    exact, _ = run(networks(model, "odd"), branch, clips)
    assert torch.cosine_similarity(features.float().flatten(), exact.flatten(), 0) > 0.999


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace. is deprecated:DeprecationWarning")
def test_only_inference_in_float32_on_a_processor_works_in_place() -> None:
    x = torch.zeros(1)
    assert not is_fast(x)
    with torch.no_grad():
        assert is_fast(x)
        assert not is_fast(x.double())
        assert not is_fast(x.to("meta"))
        with torch.autocast("cpu", torch.bfloat16):
            assert not is_fast(x)
        assert torch.jit.trace(lambda y: y * float(is_fast(y)), x + 1, check_trace=False)(x + 1) == 0


def test_gradients_reach_the_input(networks: Callable[[str, str], DoverNetwork]) -> None:
    clips = torch.zeros(1, 3, 2, 32, 32, requires_grad=True)
    networks("dover", "ref").technical(clips)[1].sum().backward()
    assert clips.grad is not None
    assert clips.grad.abs().sum() > 0


def test_the_epsilon_of_the_response_normalisation() -> None:
    """The goldens do not depend on it: their responses are too large."""
    x = recipe.uniform(0, (2, 3, 4, 5, 8)) * 1e-6
    grn = Grn(8)
    grn.gamma.data[:], grn.beta.data[:] = torch.arange(8.0), torch.arange(8.0) * 1e-6
    norm = np.sqrt((x**2).sum((1, 2), keepdims=True))
    expected = np.arange(8) * x * (norm / (norm.mean(-1, keepdims=True) + 1e-6)) + np.arange(8) * 1e-6 + x
    np.testing.assert_allclose(grn(torch.tensor(x).float()).detach(), expected, rtol=1e-4)


def test_faint_responses_are_normalised_alike_in_place() -> None:
    torch.manual_seed(0)
    network = DoverConvNext((1,), (8,), second=True).eval()
    for key, parameter in network.named_parameters():
        torch.nn.init.normal_(parameter, std=1e-6 if "pwconv1" in key else 1.0)
    clips = torch.randn(1, 3, 4, 16, 20)
    with torch.inference_mode():
        torch.testing.assert_close(convnext_features(network, clips), network(clips))


class Technical(nn.Module):
    def __init__(self, network: DoverNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        return self.network.technical(clips)


def through_onnx(module: nn.Module, inputs: Tensor, path: Path, outputs: list[str]) -> list[NDArray[np.float32]]:
    export_module(module, inputs, path, input_names=["x"], output_names=outputs, dynamic_axes={})
    found = OnnxModel(path, threads=1).run({"x": inputs.numpy()})
    return [found[name] for name in outputs]


def test_the_mobile_network_is_the_same_in_onnx(networks: Callable[[str, str], DoverNetwork], tmp_path: Path) -> None:
    network, clips = networks("dover_mobile", "ref"), golden.clips("dover_mobile", "ref", "technical")
    outputs = run(network, "technical", clips)
    found = through_onnx(Technical(network), clips, tmp_path / "mobile.onnx", ["features", "scores"])
    for values, expected in zip(found, outputs, strict=True):
        np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stage", [1, 3])
def test_a_stage_of_windows_is_the_same_in_onnx(
    networks: Callable[[str, str], DoverNetwork], tmp_path: Path, stage: int
) -> None:
    """Padded, shifted, two clips; with gates and a merging, and without."""
    layer = networks("dover", "ref").technical_backbone.layers[stage]
    assert isinstance(layer, SwinStage)
    x = torch.from_numpy(recipe.uniform(0, (2, 9, 8, 7, 96 << stage)).astype(np.float32))
    with torch.inference_mode():
        expected = layer(x)
    (found,) = through_onnx(layer, x, tmp_path / "stage.onnx", ["y"])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_team_does_all_the_work_with_a_thread_for_each_member() -> None:
    seen: list[tuple[int, int, bool]] = []
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with torch.inference_mode(), Team() as team:
            team.run(lambda i: seen.append((i, torch.get_num_threads(), torch.is_inference_mode_enabled())), range(50))
        assert torch.get_num_threads() == 3
        later: list[int] = []
        thread = Thread(target=lambda: later.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert later == [3]
    finally:
        torch.set_num_threads(before)
    assert sorted(seen) == [(i, 1, True) for i in range(50)]


@pytest.mark.parametrize("threads", [1, 2])
def test_a_team_raises_what_its_members_raise(threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with pytest.raises(ZeroDivisionError), Team() as team:
            team.run(lambda i: 1 // i and None, range(2))
    finally:
        torch.set_num_threads(before)
