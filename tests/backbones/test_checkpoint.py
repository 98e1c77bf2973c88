"""Checkpoints are read without running them and loaded key by key; random weights depend on key and seed alone."""

from __future__ import annotations

import math
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from vqa_train.backbones.base import BackboneOptions
from vqa_train.backbones.checkpoint import fill_randomly, load_strictly, load_weights, read_checkpoint
from vqa_train.core.errors import ModelError, UsageError, WeightsError
from vqa_train.core.hashing import seed_from, sha256_file

State = dict[str, Tensor]


class Net(nn.Module):
    """Every kind of entry that a backbone has."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, 8, (2, 4, 4))
        self.norm = nn.BatchNorm1d(8)
        self.gamma = nn.Parameter(torch.ones(8))
        self.register_buffer("index", torch.arange(6).reshape(2, 3))


@pytest.fixture(autouse=True)
def own_weights_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "weights"
    monkeypatch.setenv("VQA_TRAIN_WEIGHTS", str(folder))
    return folder


@pytest.fixture
def net() -> Net:
    net = Net()
    fill_randomly(net, 1)
    return net


@pytest.fixture
def state(net: Net) -> State:
    return {key: tensor.clone() for key, tensor in net.state_dict().items()}


def equal(one: State, other: State) -> bool:
    return list(one) == list(other) and all(torch.equal(one[key], other[key]) for key in one)


def on_meta() -> Net:
    with torch.device("meta"):
        return Net()


# Reading


def test_a_safetensors_file_is_read(state: State, tmp_path: Path) -> None:
    save_file(state, tmp_path / "a.safetensors")
    read = read_checkpoint(tmp_path / "a.safetensors")
    assert equal(dict(sorted(read.items())), dict(sorted(state.items())))
    assert read.unwrapped == ()


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".ckpt"])
@pytest.mark.parametrize("new_layout", [True, False])
def test_torch_files_of_both_layouts_are_read(state: State, tmp_path: Path, suffix: str, new_layout: bool) -> None:
    path = tmp_path / f"a{suffix}"
    torch.save(OrderedDict(state), path, _use_new_zipfile_serialization=new_layout)
    assert equal(read_checkpoint(path), state)


def test_another_pickle_protocol_is_read_without_a_warning(state: State, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "a.pth", pickle_protocol=3)
    assert equal(read_checkpoint(tmp_path / "a.pth"), state)


def prefixed(state: State, prefix: str) -> State:
    return {prefix + key: tensor for key, tensor in state.items()}


@pytest.mark.parametrize(
    ("wrap", "unwrapped"),
    [
        (lambda s: {"state_dict": s, "epoch": 3}, ("state_dict",)),
        (lambda s: {"model": s, "optimizer": {"lr": 0.1}}, ("model",)),
        (lambda s: {"model_state_dict": s}, ("model_state_dict",)),
        (lambda s: {"model": {"state_dict": s}}, ("model", "state_dict")),
        (lambda s: prefixed(s, "module."), ("module.",)),
        (lambda s: {"state_dict": prefixed(s, "module._orig_mod.")}, ("state_dict", "module.", "_orig_mod.")),
        # What DOVER's training script saves beside the weights: numpy numbers.
        (
            lambda s: {"state_dict": s, "validation_results": (np.float64(0.8), np.float32(0.7), 0.6, np.arange(3.0))},
            ("state_dict",),
        ),
    ],
)
@pytest.mark.parametrize("new_layout", [True, False])
def test_wrapped_state_dicts_are_unwrapped(
    state: State, tmp_path: Path, wrap: Any, unwrapped: tuple[str, ...], new_layout: bool
) -> None:
    torch.save(wrap(state), tmp_path / "a.pth", _use_new_zipfile_serialization=new_layout)
    read = read_checkpoint(tmp_path / "a.pth")
    assert equal(read, state)
    assert read.unwrapped == unwrapped


def test_numpy_numbers_of_numpy_1_are_passed_over_too(tmp_path: Path) -> None:
    """numpy 2 renamed the module that its numbers are pickled under; DOVER's files are older."""
    torch.save({"state_dict": {"a": torch.zeros(1)}, "results": (np.float64(0.8),)}, tmp_path / "new.pth")
    with zipfile.ZipFile(tmp_path / "new.pth") as new, zipfile.ZipFile(tmp_path / "old.pth", "w") as old:
        for name in new.namelist():
            old.writestr(name, new.read(name).replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert list(read_checkpoint(tmp_path / "old.pth")) == ["a"]


class Malicious:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("echo pwned > pwned.txt",)


@pytest.mark.parametrize("wrap", [lambda e, s: {"a": e}, lambda e, s: {"state_dict": s, "results": e}])
@pytest.mark.parametrize("new_layout", [True, False])
def test_nothing_in_a_pickle_is_run(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrap: Any, new_layout: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(wrap(Malicious(), state), "a.pth", _use_new_zipfile_serialization=new_layout)
    with pytest.raises(WeightsError, match="a.pth' is not weights alone and is not opened: .*posix"):
        read_checkpoint(Path("a.pth"))
    assert not Path("pwned.txt").exists()


def test_a_whole_pickled_network_is_refused_with_the_name_of_its_class(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="GLOBAL torch.nn.modules.linear.Linear - where you trust it, convert"):
        read_checkpoint(tmp_path / "a.pth")


def test_a_torchscript_archive_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("a/constants.pkl", pickle.dumps(()))
        archive.writestr("a/data.pkl", pickle.dumps({}))
        archive.writestr("a/version", "3")
    with pytest.raises(WeightsError, match="a.pt' cannot be read"):
        read_checkpoint(tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"epoch": 3, "name": "x"}, "holds no state dict but 2 entries .'epoch': int, 'name': str"),
        ({}, "holds no state dict but 0 entries"),
        ([torch.zeros(2)], "holds a list, expected a state dict"),
        (torch.zeros(2), "holds a Tensor, expected a state dict"),
        (
            {"model": {"a": torch.zeros(1)}, "state_dict": {"a": torch.ones(1)}},
            r"several state dicts \(state_dict, model\)",
        ),
        ({"a": torch.zeros(1), "epoch": 3}, "holds no state dict but 2 entries"),
        ({"state_dict": {"a": 1}}, "holds no state dict but 1 entries"),
    ],
)
def test_what_holds_no_state_dict_says_what_it_holds(tmp_path: Path, value: Any, message: str) -> None:
    torch.save(value, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=message):
        read_checkpoint(tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.safetensors", b"\x08\0\0\0\0\0\0\0not json", "is not a safetensors file"),
        ("a.pth", b"PK\x03\x04 and no more", "cannot be read"),
        ("a.pth", b"\x80\x02}q\x00", "cannot be read"),
        ("a.pth", b"", "is empty"),
        ("a.pth", b"\n<!doctype html><html>", "is a web page - fetch the file itself"),
        ("a.safetensors", b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
        ("a.h5", b"data", "unknown kind; known: .safetensors, .pth, .pt, .bin, .ckpt"),
    ],
)
def test_files_that_are_no_checkpoints_are_refused(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(WeightsError, match=message) as caught:
        read_checkpoint(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_truncated_checkpoint_is_refused(state: State, tmp_path: Path) -> None:
    for name, save in (("a.pth", torch.save), ("a.safetensors", save_file)):
        save(state, tmp_path / name)
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[: len(data) * 2 // 3])
        with pytest.raises(WeightsError):
            read_checkpoint(tmp_path / name)
    with pytest.raises(WeightsError, match="is not a file"):
        read_checkpoint(tmp_path / "nowhere.pth")


# Loading


def test_every_entry_is_loaded(state: State) -> None:
    for module in (Net(), on_meta()):
        load_strictly(module, state, what="it")
        assert equal(module.state_dict(), state)
        assert not any(tensor.is_meta for tensor in module.state_dict().values())


def test_a_network_on_meta_takes_the_tensors_themselves(state: State) -> None:
    module = on_meta()
    load_strictly(module, state, what="it")
    assert module.conv.weight.data_ptr() == state["conv.weight"].data_ptr()
    elsewhere = Net()
    load_strictly(elsewhere, state, what="it")
    assert elsewhere.conv.weight.data_ptr() != state["conv.weight"].data_ptr()


@pytest.mark.parametrize("make", [Net, on_meta])
def test_another_precision_becomes_the_networks(make: Any, state: State) -> None:
    half = {key: tensor.half() if tensor.is_floating_point() else tensor.int() for key, tensor in state.items()}
    module = make()
    load_strictly(module, half, what="it")
    assert module.conv.weight.dtype == torch.float32
    assert module.index.dtype == torch.int64
    assert torch.equal(module.conv.weight, state["conv.weight"].half().float())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda s: s.pop("gamma"), r"it lacks 1 of 9 keys \(gamma\)$"),
        (lambda s: s.update(more=torch.zeros(1)), r"it has 1 unknown \(more\)$"),
        (lambda s: s.update(gamma=torch.zeros(9)), r"it has other shapes \(gamma \(9,\) for \(8,\)\)$"),
        (lambda s: s.update({"norm.weight": torch.ones(8).long()}), r"other types \(norm.weight int64 for float32\)$"),
        (lambda s: s.update(index=torch.zeros(2, 3)), r"other types \(index float32 for int64\)$"),
        (lambda s: s.update(index=torch.zeros(2, 3).bool()), r"other types \(index bool for int64\)$"),
    ],
)
def test_what_does_not_fit_is_listed_and_nothing_is_loaded(state: State, damage: Any, message: str) -> None:
    module = Net()
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    damage(state)
    with pytest.raises(
        WeightsError, match=f"^a file does not fit the network: {message}" if "^" in message else message
    ):
        load_strictly(module, state, what="a file")
    assert equal(module.state_dict(), before)


def test_everything_wrong_is_said_at_once_with_the_first_few_keys(state: State) -> None:
    state = {f"x{i}": torch.zeros(1) for i in range(5)} | {"gamma": torch.zeros(1), "index": state["index"]}
    with pytest.raises(WeightsError) as caught:
        load_strictly(Net(), state, what="dover: 'f.pth'")
    assert str(caught.value) == (
        "dover: 'f.pth' does not fit the network: it lacks 7 of 9 keys (conv.weight, conv.bias, norm.weight and 4 more)"
        "; it has 5 unknown (x0, x1, x2 and 2 more); it has other shapes (gamma (1,) for (8,))"
    )


def test_a_prefix_too_many_is_named(state: State) -> None:
    with pytest.raises(
        WeightsError, match="- 9 of the missing keys are there with the prefix 'net.', which has to be taken off"
    ):
        load_strictly(Net(), prefixed(state, "net."), what="it")
    # Most of them is enough, as when a checkpoint holds a head as well.
    most = {**prefixed(state, "a.b."), "head.weight": torch.zeros(1)}
    most.pop("a.b.gamma")
    with pytest.raises(WeightsError, match="- 8 of the missing keys are there with the prefix 'a.b.'"):
        load_strictly(Net(), most, what="it")


def test_a_prefix_too_few_is_named(state: State) -> None:
    outer = nn.ModuleDict({"net": Net()})
    with pytest.raises(
        WeightsError, match="- 9 of the missing keys are there without the prefix 'net.', which has to be put on"
    ):
        load_strictly(outer, state, what="it")


def test_other_keys_altogether_get_no_advice(state: State) -> None:
    with pytest.raises(WeightsError) as caught:
        load_strictly(Net(), {"a.weight": torch.zeros(1)}, what="it")
    assert "prefix" not in str(caught.value)


def test_the_message_says_what_was_unwrapped(state: State, tmp_path: Path) -> None:
    torch.save({"state_dict": prefixed({"a": torch.zeros(1)}, "module.")}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"it \(read from 'state_dict', 'module.'\) does not fit"):
        load_strictly(Net(), read_checkpoint(tmp_path / "a.pth"), what="it")


def test_ignored_keys_are_neither_required_nor_loaded(state: State) -> None:
    given = {**state, "predictor.a": torch.zeros(1), "gamma": torch.full((8,), 7.0)}
    module = Net()
    load_strictly(module, given, what="it", ignore=["predictor.", "gamma", "absent"])
    assert torch.equal(module.gamma, torch.ones(8))
    assert torch.equal(module.conv.weight, state["conv.weight"])
    with pytest.raises(WeightsError, match="predictor.a"):
        load_strictly(module, given, what="it", ignore=["predict", "gamma"])


def test_a_buffer_that_nobody_filled_is_an_error(state: State) -> None:
    module = on_meta()
    module.register_buffer("table", torch.empty(3, device="meta"), persistent=False)
    with pytest.raises(ModelError, match=r"Net has 1 tensors without values \(table\)"):
        load_strictly(module, state, what="it")
    with pytest.raises(ModelError, match=r"Net has 1 tensors without values \(index\)"):
        fill_randomly(on_meta(), 0)


# load_weights


def test_weights_are_found_verified_and_loaded(state: State, own_weights_folder: Path) -> None:
    path = own_weights_folder / "dover" / "DOVER.pth"
    path.parent.mkdir(parents=True)
    torch.save(state, path)
    module = Net()
    loaded = load_weights("dover", module, BackboneOptions())
    assert (loaded.sha256, loaded.random_seed) == (sha256_file(path), None)
    assert loaded.license == "S-Lab License 1.0 (non-commercial)"
    assert equal(module.state_dict(), state)
    assert not any(parameter.requires_grad for parameter in module.parameters())
    state["gamma"] += 1
    torch.save(state, path)
    with pytest.raises(WeightsError, match="DOVER.pth' has sha256 .*at first use"):
        load_weights("dover", Net(), BackboneOptions())


def test_given_weights_are_taken_from_there(state: State, tmp_path: Path) -> None:
    save_file(state, tmp_path / "mine.safetensors")
    loaded = load_weights("dover", Net(), BackboneOptions(weights=tmp_path / "mine.safetensors"))
    assert loaded.sha256 == sha256_file(tmp_path / "mine.safetensors")


def test_misfits_name_the_entry_and_the_file(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "mine.pth")
    with pytest.raises(WeightsError, match="^dover: '.*mine.pth' does not fit the network: it lacks 9 of 9 keys"):
        load_weights("dover", Net(), BackboneOptions(weights=tmp_path / "mine.pth"))


def test_random_weights_need_no_file_and_carry_their_seed() -> None:
    module, again = Net(), Net()
    loaded = load_weights("dover", module, BackboneOptions(random_weights=3))
    assert (loaded.sha256, loaded.random_seed) == (None, 3)
    assert loaded.license == "S-Lab License 1.0 (non-commercial)"
    load_weights("dover", again, BackboneOptions(random_weights=3))
    assert equal(module.state_dict(), again.state_dict())
    with pytest.raises(UsageError, match="both random weights and"):
        load_weights("dover", module, BackboneOptions(random_weights=3, weights=Path("x")))
    with pytest.raises(UsageError, match="unknown weights 'nosuch'"):
        load_weights("nosuch", module, BackboneOptions(random_weights=3))


def test_missing_weights_are_an_error_and_never_random() -> None:
    with pytest.raises(WeightsError, match="weights 'dover' not found: no DOVER.pth"):
        load_weights("dover", Net(), BackboneOptions())


# Random weights


def mersenne_uniform(seed: int, count: int) -> np.ndarray:
    """What torch.Generator gives as float32 in [0, 1): 24 low bits of MT19937, here numpy's."""
    generator = np.random.RandomState(seed & 0xFFFFFFFF)
    words = generator.randint(0, 2**32, count, dtype=np.uint32)
    return ((words & ((1 << 24) - 1)) / np.float64(1 << 24)).astype(np.float32)


def test_random_numbers_are_those_of_another_implementation(net: Net) -> None:
    key = "conv.weight"
    u = 2 * mersenne_uniform(seed_from("random-weights", 1, key), net.conv.weight.numel()) - 1
    expected = u * np.float32(math.sqrt(3 / (3 * 2 * 4 * 4)))
    np.testing.assert_array_equal(net.conv.weight.detach().numpy().ravel(), expected)


def test_each_kind_of_entry_has_a_sensible_scale() -> None:
    module = nn.ModuleDict({"fc": nn.Linear(4000, 300), "norm": nn.BatchNorm1d(3000)})
    fill_randomly(module, 0)
    state = module.state_dict()
    # u * sqrt(3 / fan_in): a standard deviation of 1 / sqrt(fan_in), here over a million draws.
    assert state["fc.weight"].std().item() == pytest.approx(4000**-0.5, rel=5e-3)
    assert state["fc.weight"].mean().item() == pytest.approx(0, abs=1e-4)
    assert 0.09 < state["fc.bias"].abs().max() <= 0.1
    for name in ("weight", "running_var"):
        assert 0.9 <= state[f"norm.{name}"].min() < 0.91
        assert 1.09 < state[f"norm.{name}"].max() <= 1.1
    for name in ("bias", "running_mean"):
        assert 0.09 < state[f"norm.{name}"].abs().max() <= 0.1
    assert state["norm.num_batches_tracked"] == 0
    x = torch.randn(500, 4000, generator=torch.Generator().manual_seed(0))
    assert module["fc"](x).std().item() == pytest.approx(1, rel=0.02)


def test_integer_buffers_stay(net: Net) -> None:
    assert torch.equal(net.index, torch.arange(6).reshape(2, 3))


def test_numbers_depend_on_key_and_seed_and_not_on_the_order() -> None:
    module = nn.ModuleDict({"a": nn.Linear(5, 5), "b": nn.Linear(5, 5)})
    fill_randomly(module, 0)
    turned = nn.ModuleDict({"b": nn.Linear(5, 5), "a": nn.Linear(5, 5)})
    torch.manual_seed(99)
    fill_randomly(turned, 0)
    assert equal(dict(sorted(module.state_dict().items())), dict(sorted(turned.state_dict().items())))
    assert not torch.equal(module["a"].weight, module["b"].weight)
    other = nn.ModuleDict({"a": nn.Linear(5, 5), "b": nn.Linear(5, 5)})
    fill_randomly(other, 1)
    assert not torch.equal(module["a"].weight, other["a"].weight)


def test_the_global_generator_is_left_alone() -> None:
    net = Net()
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    fill_randomly(net, 5)
    assert torch.equal(torch.rand(3), expected)


def test_meta_and_half_precision_get_the_same_numbers(net: Net) -> None:
    with torch.device("meta"):
        module = nn.Linear(7, 3)
    fill_randomly(module, 2)
    plain, half = nn.Linear(7, 3), nn.Linear(7, 3, dtype=torch.bfloat16)
    fill_randomly(plain, 2)
    fill_randomly(half, 2)
    assert equal(module.state_dict(), plain.state_dict())
    assert torch.equal(half.weight, plain.weight.bfloat16())


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_a_large_checkpoint_is_not_held_twice(tmp_path: Path) -> None:
    """Anonymous memory while 64 MB are read, loaded into a network on meta, and used."""
    code = f"""
import torch
from pathlib import Path
from torch import nn
from vqa_train.backbones.checkpoint import load_strictly, read_checkpoint
def anonymous():
    fields = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(fields["RssAnon"].split()[0]) // 1024
def build():
    return nn.ModuleList(nn.Linear(4096, 1024, bias=False) for _ in range(4))
for name in ("a.pth", "a.safetensors"):
    with torch.device("meta"):
        module = build()
    before = anonymous()
    load_strictly(module, read_checkpoint(Path({str(tmp_path)!r}) / name), what=name)
    assert sum(layer.weight.sum().item() for layer in module) == 4 * 4096 * 1024
    grown = anonymous() - before
    assert grown < 24, f"{{name}}: {{grown}} MiB"
"""
    layer = {f"{i}.weight": torch.ones(1024, 4096) for i in range(4)}
    torch.save(layer, tmp_path / "a.pth")
    save_file(layer, tmp_path / "a.safetensors")
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    shutil.rmtree(tmp_path)
