"""An interrupted training goes on to the very weights of one that was not, or begins again where anything differs."""

import json
import math

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch

from vqa_train.core.config import parse
from vqa_train.core.errors import RunError
from vqa_train.evaluation import METRICS
from vqa_train.heads import resume, trainer
from vqa_train.heads.config import TrainConfig
from vqa_train.heads.table import build_table
from vqa_train.heads.trainer import HeadJob, fit_heads

SROCC = METRICS.get("srocc")
ROWS = 120


class Stopped(Exception):
    """What interrupts a training here."""


@pytest.fixture(autouse=True)
def always_kept(monkeypatch):
    monkeypatch.setattr(resume, "SECONDS", 0.0)


def table(scale: float = 1.0, shift: float = 0.0, datasets: int = 1):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, 6)).astype(np.float32)
    y = (3 + x[:, :1] + 0.2 * rng.normal(size=(ROWS, 1))).astype(np.float32)
    keys = [f"{i:03d}" for i in range(ROWS)]
    names = [f"d{i % datasets}" for i in range(ROWS)]
    return build_table({"x": x * np.float32(scale)}, y + np.float32(shift), ["mos"], keys, keys, datasets=names)


def job(name: str = "a", rows=range(90), validation=range(90, 120), **recipe) -> HeadJob:
    base = {"epochs": 9, "head": {"hidden": [8]}, "batch_size": 16, "patience": None, **recipe}
    return HeadJob(
        config=parse(TrainConfig, base, "r"), train=np.array(rows), validation=np.array(validation), name=name
    )


def jobs() -> list[HeadJob]:
    return [
        job("a"),
        job("b", range(30, 90), seed=1),
        job("soon", range(20), range(90, 93), patience=1, optimizer={"lr": 0.05}),
        job("c", range(10, 100), [], schedule="one_cycle"),
    ]


def interrupt(made, what, folder, after: int) -> list[int]:
    """Train until `after` epochs of the last head were told; the epochs told."""
    told = []

    def on_epoch(name, entry):
        if name == what[-1].name:
            told.append(entry["epoch"])
            if len(told) == after:
                raise Stopped

    with pytest.raises(Stopped):
        fit_heads(made, what, metric=SROCC, on_epoch=on_epoch, checkpoint=folder)
    return told


def first_epoch(made, what, folder) -> int:
    """The first epoch that a further call trains, 0 for none."""
    told = []
    fit_heads(made, what, metric=SROCC, on_epoch=lambda _, entry: told.append(entry["epoch"]), checkpoint=folder)
    return min(told, default=0)


def assert_same_bits(one, two) -> None:
    a, b = one.module.state_dict(), two.module.state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert (one.history, one.best_epoch, one.counts, one.scales) == (
        two.history,
        two.best_epoch,
        two.counts,
        two.scales,
    )


@pytest.mark.parametrize("after", [1, 2, 5, 9])
def test_an_interrupted_training_ends_with_the_same_bits(tmp_path, after):
    whole = fit_heads(table(), jobs(), metric=SROCC)
    assert len(whole[2].history) < 9
    interrupt(table(), jobs(), tmp_path, after)
    told = []
    again = fit_heads(
        table(), jobs(), metric=SROCC, on_epoch=lambda name, e: told.append(e["epoch"]), checkpoint=tmp_path
    )
    # The epoch in which it was interrupted is trained again, those before are not.
    assert min(told) == after
    for one, two in zip(whole, again, strict=True):
        assert_same_bits(one, two)


def test_interrupted_twice_and_with_maps_between_datasets(tmp_path):
    what = [job("a", scales="monotone"), job("b", range(60), scales="monotone", seed=3)]
    whole = fit_heads(table(datasets=2), what, metric=SROCC)
    assert whole[0].scales["d1"]["mos"]["kind"] == "monotone"
    interrupt(table(datasets=2), what, tmp_path, 3)
    interrupt(table(datasets=2), what, tmp_path, 3)
    for one, two in zip(whole, fit_heads(table(datasets=2), what, metric=SROCC, checkpoint=tmp_path), strict=True):
        assert_same_bits(one, two)


def test_a_finished_training_is_taken_from_disk(tmp_path):
    whole = fit_heads(table(), jobs(), metric=SROCC, checkpoint=tmp_path)
    again = fit_heads(table(), jobs(), metric=SROCC, checkpoint=tmp_path)
    assert first_epoch(table(), jobs(), tmp_path) == 0
    for one, two in zip(whole, again, strict=True):
        assert_same_bits(one, two)


def test_a_head_that_diverged_is_remembered(tmp_path):
    what = [job("wild", optimizer={"lr": 1e30}), job("a")]
    told = []

    def on_epoch(name, entry):
        told.append(name)
        if len(told) == 4:
            raise Stopped

    with pytest.raises(Stopped):
        fit_heads(table(), what, metric=SROCC, on_epoch=on_epoch, checkpoint=tmp_path, raise_diverged=False)
    heads = fit_heads(table(), what, metric=SROCC, checkpoint=tmp_path, raise_diverged=False)
    assert [head.diverged for head in heads] == [1, 0]
    assert [len(head.history) for head in heads] == [1, 9]


def other_metric(predicted, target):
    return SROCC(predicted, target)


def test_the_same_call_goes_on_where_another_one_begins_again(tmp_path):
    interrupt(table(), [job()], tmp_path, 4)
    start = fit_heads(table(), [job()], metric=SROCC)[0].module
    warm = HeadJob(config=job().config, train=job().train, validation=job().validation, name="a", init=start)
    others = {
        "recipe": (table(), [job(optimizer={"lr": 1e-3})]),
        "seed": (table(), [job(seed=7)]),
        "rows": (table(), [job(rows=range(1, 90))]),
        "validation rows": (table(), [job(validation=range(91, 120))]),
        "features": (table(scale=1.5), [job()]),
        "labels": (table(shift=1.0), [job()]),
        "datasets": (table(datasets=2), [job()]),
        "start": (table(), [warm]),
        "company": (table(), [job(), job("b", seed=1)]),
    }
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for made, what in others.values():
        assert first_epoch(made, what, tmp_path) == 1
    told = []
    fit_heads(table(), [job()], metric=other_metric, on_epoch=lambda _, e: told.append(e["epoch"]), checkpoint=tmp_path)
    assert told[0] == 1
    assert all((tmp_path / name).read_bytes() == content for name, content in before.items())
    # A job's name is for messages: the state is the rows' and recipe's.
    assert first_epoch(table(), [job("renamed")], tmp_path) == 4


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def emptied(path):
    path.write_bytes(b"")


def turned(path):
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(bytes(content))


def foreign(path):
    path.write_bytes(safetensors.torch.save({"best": torch.zeros(1)}))


def without_a_tensor(path):
    with safetensors.safe_open(str(path), framework="pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    del tensors["kept"]
    path.write_bytes(safetensors.torch.save(tensors, metadata=metadata))


@pytest.mark.parametrize("damage", [cut, emptied, turned, foreign, without_a_tensor])
def test_a_damaged_file_is_an_error_that_names_it_and_says_what_to_do(tmp_path, damage):
    interrupt(table(), [job()], tmp_path, 4)
    (path,) = tmp_path.iterdir()
    damage(path)
    with pytest.raises(RunError, match="training state .*cannot be read") as caught:
        fit_heads(table(), [job()], metric=SROCC, checkpoint=tmp_path)
    assert path.name in str(caught.value)
    assert caught.value.hint == "delete it to begin again"
    assert "\n" not in str(caught.value)
    path.unlink()
    assert first_epoch(table(), [job()], tmp_path) == 1


def test_the_state_is_written_at_most_every_so_many_seconds_and_at_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(resume, "SECONDS", math.inf)
    seen = []
    fit_heads(
        table(),
        [job()],
        metric=SROCC,
        on_epoch=lambda _, entry: seen.append(list(tmp_path.iterdir())),
        checkpoint=tmp_path,
    )
    assert seen == [[]] * 9
    (path,) = tmp_path.iterdir()
    with safetensors.safe_open(str(path), framework="pt") as file:
        assert list(file.keys()) == ["best"]
        assert json.loads(file.metadata()["vqa_train_training"])["alive"] == []


def test_each_batch_of_heads_has_a_state_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "_TOGETHER", 2)
    whole = fit_heads(table(), jobs(), metric=SROCC)
    interrupt(table(), jobs(), tmp_path, 3)
    again = fit_heads(table(), jobs(), metric=SROCC, checkpoint=tmp_path, threads=2)
    for one, two in zip(whole, again, strict=True):
        assert_same_bits(one, two)
    assert len(list(tmp_path.iterdir())) == 2
