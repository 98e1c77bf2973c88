"""Heads on disk: strict, atomic, the same bytes for the same head; whatever is wrong is listed."""

import json

import pytest
import safetensors.torch
import torch

from vqa_train.core.errors import WeightsError
from vqa_train.heads.checkpoint import load_head, save_head
from vqa_train.heads.config import HeadConfig
from vqa_train.heads.mlp import MlpHead

HEADER = "vqa_train_head"


def head() -> MlpHead:
    made = MlpHead({"video": 4, "text": 3}, ["overall", "motion"], HeadConfig(hidden=(5,), activation="silu"))
    made.initialise(torch.Generator().manual_seed(1))
    return made.eval()


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
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.ones(6, 3)
    assert torch.equal(loaded(*x), head()(*x))
    assert not loaded.training


def test_the_same_head_gives_the_same_bytes(saved, tmp_path):
    for i in range(5):
        save_head(tmp_path / f"{i}", head(), {"note": "héllo", "best_epoch": 3})
        assert (tmp_path / f"{i}").read_bytes() == saved.read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("input_std"), "missing input_std"),
        (lambda t: t.update(extra=torch.zeros(1)), "unexpected extra"),
        (lambda t: t.update(input_std=torch.ones(9)), r"input_std is torch.float32 \(9,\), expected.*\(7,\)"),
        (lambda t: t.update(input_std=torch.ones(7, dtype=torch.float64)), "input_std is torch.float64"),
        (lambda t: t.update(target_mean=torch.tensor([1.0, float("nan")])), "target_mean holds NaN"),
    ],
)
def test_tensors_that_do_not_fit_are_listed(saved, change, message):
    rewrite(saved, change_tensors=change)
    with pytest.raises(WeightsError, match=message):
        load_head(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: h.update(schema="vqa-train/head/2"), "malformed header.*schema"),
        (lambda h: h["head"].update(hiden=[3]), "did you mean 'hidden'"),
        (lambda h: h["head"].update(kind="evil"), "malformed header.*kind"),
        (lambda h: h["head"].update(hidden=[65536, 65536, 65536]), "does not fit its network"),
        (lambda h: h["inputs"][0].update(dim=10**12), "does not fit its network"),
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
