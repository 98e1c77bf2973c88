"""Heads on disk: strict, atomic, the same bytes for the same head; whatever is wrong is listed."""

import json

import pytest
import safetensors.torch
import torch

from vqa_train.core.errors import WeightsError
from vqa_train.heads.checkpoint import load_ensemble, load_head, save_ensemble, save_head
from vqa_train.heads.config import HeadConfig
from vqa_train.heads.ensemble import Ensemble
from vqa_train.heads.mlp import MlpHead

HEADER = "vqa_train_head"


def head(models: int = 1, seed: int = 1, **config) -> MlpHead:
    config = HeadConfig(**{"hidden": (5,), "activation": "silu", **config})
    made = MlpHead({"video": 4, "text": 3}, ["overall", "motion"], config, models=models)
    made.initialise([torch.Generator().manual_seed(seed + i) for i in range(models)])
    return made.requires_grad_(False).eval()


def rows() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.ones(6, 3)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "head.safetensors"
    save_head(path, head(), {"best_epoch": 3, "note": "héllo"})
    return path


def rewrite(path, change_tensors=None, change_header=None):
    with safetensors.safe_open(str(path), framework="pt") as file:
        header, tensors = json.loads(file.metadata()[HEADER]), {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    if change_tensors:
        change_tensors(tensors)
    if change_header:
        change_header(header)
    path.write_bytes(safetensors.torch.save(tensors, metadata={HEADER: json.dumps(header)}))


def test_a_head_comes_back_as_it_was(saved):
    loaded, meta = load_head(saved)
    assert meta == {"best_epoch": 3, "note": "héllo"}
    assert (loaded.inputs, loaded.targets, loaded.config) == (head().inputs, head().targets, head().config)
    assert list(loaded.inputs) == ["video", "text"]
    assert torch.equal(loaded(*rows()), head()(*rows()))
    assert not loaded.training


def test_an_ensemble_of_different_networks_comes_back_as_it_was(tmp_path):
    ensemble = Ensemble([head(3), head(seed=9, hidden=(4, 4), output="heteroscedastic")], [1.0, 3.0]).eval()
    save_ensemble(tmp_path / "both", ensemble, {"note": 1})
    loaded, meta = load_ensemble(tmp_path / "both")
    assert meta == {"note": 1}
    assert (loaded.models, loaded.member_weights) == (4, (1.0, 3.0))
    assert [member.config for member in loaded.heads] == [member.config for member in ensemble.heads]
    for got, expected in zip(loaded(*rows()), ensemble(*rows()), strict=True):
        assert torch.equal(got, expected)
    with pytest.raises(WeightsError, match="holds 2 heads"):
        load_head(tmp_path / "both")


def test_the_same_head_gives_the_same_bytes(saved, tmp_path):
    for i in range(5):
        save_head(tmp_path / f"{i}", head(), {"note": "héllo", "best_epoch": 3})
        assert (tmp_path / f"{i}").read_bytes() == saved.read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("members.0.input_std"), "missing members.0.input_std"),
        (lambda t: t.update(extra=torch.zeros(1)), "unexpected extra"),
        (
            lambda t: t.update({"members.0.input_std": torch.ones(1, 9)}),
            r"input_std is torch.float32 \(1, 9\), expected.*\(1, 7\)",
        ),
        (
            lambda t: t.update({"members.0.input_std": torch.ones(1, 7, dtype=torch.float64)}),
            "input_std is torch.float64",
        ),
        (
            lambda t: t.update({"members.0.target_mean": torch.tensor([[1.0, float("nan")]])}),
            "target_mean holds NaN",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_listed(saved, change, message):
    rewrite(saved, change_tensors=change)
    with pytest.raises(WeightsError, match=message):
        load_head(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: h.update(schema="vqa-train/head/3"), "malformed header.*schema"),
        (lambda h: h["members"][0]["head"].update(hiden=[3]), "did you mean 'hidden'"),
        (lambda h: h["members"][0]["head"].update(kind="evil"), "unknown head 'evil'"),
        (lambda h: h["members"][0]["head"].update(hidden=[65536, 65536, 65536]), "does not fit its network"),
        (lambda h: h["members"][0].update(models=10**9), "does not fit its network"),
        (lambda h: h["members"][0].update(weight=0), "malformed header.*weight"),
        (lambda h: h.update(members=[]), "malformed header.*members"),
        (lambda h: h["inputs"][0].update(shape=[10**12]), "does not fit its network"),
        (lambda h: h["inputs"][0].update(shape=[10**6, 10**6]), "takes vectors"),
        (lambda h: h["inputs"][0].update(name="text"), "names an input twice"),
        (lambda h: h.update(targets=["a", "a"]), "distinct targets"),
        (lambda h: h.update(inputs=[]), "malformed header"),
    ],
)
def test_a_header_that_lies_is_an_error_and_costs_no_memory(saved, change, message):
    rewrite(saved, change_header=change)
    with pytest.raises(WeightsError, match=message):
        load_head(saved)


def test_a_missing_cut_or_foreign_file_is_an_error(saved, tmp_path):
    with pytest.raises(WeightsError, match="does not exist"):
        load_head(tmp_path / "none.safetensors")
    with pytest.raises(WeightsError, match="cannot be read"):
        load_head(tmp_path)
    cut = tmp_path / "cut"
    cut.write_bytes(saved.read_bytes()[:-10])
    with pytest.raises(WeightsError, match="cannot be read"):
        load_head(cut)
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(WeightsError, match="cannot be read"):
        load_head(tmp_path / "empty")
    foreign = tmp_path / "foreign"
    foreign.write_bytes(safetensors.torch.save({"x": torch.zeros(1)}))
    with pytest.raises(WeightsError, match="is not a head of vqa-train"):
        load_head(foreign)


def test_what_json_cannot_hold_is_refused_and_the_old_file_stays(saved):
    before = saved.read_bytes()
    with pytest.raises(ValueError, match="JSON"):
        save_head(saved, head(), {"loss": float("nan")})
    assert saved.read_bytes() == before
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]
