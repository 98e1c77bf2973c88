"""Extraction with a batched backbone: settings, random weights, shards, the numerics profile, the dry run."""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import vqa_train.backbones
import vqa_train.backbones.build
from vqa_train.backbones.base import Compute
from vqa_train.core.errors import UsageError
from vqa_train.core.plugins import Registry
from vqa_train.pipelines.extract import compute as compute_module
from vqa_train.pipelines.extract.compute import in_words, network_seconds, resolve_compute
from vqa_train.pipelines.extract.estimate import estimate
from vqa_train.pipelines.extract.run import ExtractConfig, ExtractReport, extract_features
from vqa_train.pipelines.extract.shards import Shard
from vqa_train.store.store import FeatureStore


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`tiny-batched` is a registered backbone."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "backbones")
    importlib.import_module("tiny_batched")
    registry = Registry(
        "backbone", {"nss": "vqa_train.backbones.nss:NssBackbone", "tiny-batched": "tiny_batched:TinyBatched"}
    )
    monkeypatch.setattr(vqa_train.backbones, "BACKBONES", registry)
    monkeypatch.setattr(vqa_train.backbones.build, "BACKBONES", registry)
    yield


def config(manifest: Path, store: Path, **options: object) -> ExtractConfig:
    settings = {"dataset": str(manifest), "output": store, "backbones": ("tiny-batched",), "workers": 1, **options}
    return ExtractConfig(**settings)


def run(manifest: Path, store: Path, **options: object) -> ExtractReport:
    return extract_features(config(manifest, store, **options))


def matrix(store: Path, name: str) -> np.ndarray:
    found = FeatureStore.open(store).find(name)
    return found.matrix("pooled", sorted(found.known_keys()))


def test_the_batch_does_not_change_the_features(make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    manifest = make_dataset(5)
    run(manifest, tmp_path / "one", batch=1)
    run(manifest, tmp_path / "four", batch=4)
    assert matrix(tmp_path / "one", "tiny-batched").tobytes() == matrix(tmp_path / "four", "tiny-batched").tobytes()


def test_two_backbones_of_different_kinds_share_a_run(make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    report = run(make_dataset(3), tmp_path / "store", backbones=("nss", "tiny-batched"), batch=2)
    assert [(s.name.partition("@")[0], s.done) for s in report.sets] == [("nss", 3), ("tiny-batched", 3)]


def test_a_setting_makes_another_feature_set(make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    manifest, store = make_dataset(2), tmp_path / "store"
    plus = run(manifest, store)
    minus = run(manifest, store, backbones=("tiny-batched:sign=minus",))
    assert plus.sets[0].name != minus.sets[0].name
    np.testing.assert_array_equal(matrix(store, plus.sets[0].name), -matrix(store, minus.sets[0].name))
    spec = FeatureStore.open(store).find(minus.sets[0].name).spec
    assert vqa_train.backbones.build.rebuild(spec).spec.fingerprint == spec.fingerprint


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tiny-batched:sing=minus", "no setting 'sing' - did you mean 'sign'"),
        ("tiny-batched:sign=up", "sign must be one of plus, minus, got 'up'"),
        ("tiny-batched:sign", "expected NAME:SETTING=VALUE"),
        ("tiny-batched:sign=plus,sign=plus", "each setting once"),
        ("nss:sign=plus", "backbone 'nss' has no setting 'sign'"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(
    make_dataset: Callable[..., Path], tmp_path: Path, name: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        run(make_dataset(1), tmp_path / "store", backbones=(name,))


def test_random_weights_stand_in_the_spec(make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    manifest, store = make_dataset(1), tmp_path / "store"
    real, random = run(manifest, store), run(manifest, store, random_weights=7)
    assert real.sets[0].name != random.sets[0].name
    assert FeatureStore.open(store).find(random.sets[0].name).spec.random_seed == 7


def test_how_it_was_computed_is_recorded(make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    report = run(make_dataset(2), tmp_path / "store", precision="float32")
    [(profile, rows)] = FeatureStore.open(tmp_path / "store").find(report.sets[0].name).profiles()
    assert (profile["device"], profile["precision"], profile["decoder"], rows) == ("cpu", "float32", "pyav", 2)


def test_shards_cover_everything_once(make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    manifest, store = make_dataset(8), tmp_path / "store"
    parts = [run(manifest, store, shard=Shard(i, 3)).sets[0] for i in range(3)]
    assert sum(part.done for part in parts) == 8
    # The last part sees what the first two have done.
    assert [part.known + part.done + part.left for part in parts] == [8, 8, 8]
    assert len(FeatureStore.open(store).find("tiny-batched").known_keys()) == 8
    run(manifest, tmp_path / "whole")
    assert matrix(store, "tiny-batched").tobytes() == matrix(tmp_path / "whole", "tiny-batched").tobytes()


def test_a_dry_run_writes_nothing_and_counts_what_a_run_then_does(
    make_dataset: Callable[..., Path], tmp_path: Path
) -> None:
    manifest = make_dataset(5, bad={"bad.mp4": b"no video at all"})
    found = estimate(config(manifest, tmp_path / "store", backbones=("tiny-batched", "nss")))
    assert not (tmp_path / "store").exists()
    assert found.videos == 6
    assert {(s.name.partition("@")[0], s.videos, s.known) for s in found.sets} == {
        ("tiny-batched", 6, 0),
        ("nss", 6, 0),
    }
    assert found.sets[0].bytes == 6 * 4 * (3 + 1)
    assert found.seconds > 0
    assert found.decode_seconds > 0
    assert found.network_seconds > 0
    json.dumps(found.to_json(), allow_nan=False)
    run(manifest, tmp_path / "store")
    later = estimate(config(manifest, tmp_path / "store"))
    assert (later.videos, later.sets[0].known, later.sets[0].failed_before, later.seconds) == (0, 5, 1, 0)
    assert estimate(config(manifest, tmp_path / "store", retry_failed=True)).videos == 1


def test_a_dry_run_over_damaged_files_says_that_the_time_is_unknown(
    make_dataset: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    found = estimate(config(make_dataset(0, bad={"a.mp4": b"no video", "b.mp4": b"none either"}), tmp_path / "store"))
    assert found.videos == 2
    assert math.isnan(found.seconds)
    assert found.to_json()["seconds"] is None


def test_long_runs_on_a_cpu_are_announced(
    make_dataset: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = make_dataset(2)
    said: list[str] = []
    extract_features(config(manifest, tmp_path / "a"), log=said.append)
    assert not [line for line in said if "warning" in line]
    monkeypatch.setattr(compute_module, "_matmul_rate", lambda _: 1.0)  # one operation a second
    extract_features(config(manifest, tmp_path / "b"), log=said.append)
    [warning] = [line for line in said if "warning" in line]
    # 2 videos x 1536 operations, at half of one operation a second.
    assert "take about 1.7 h on this CPU for 2 videos" in warning


class TestCompute:
    def test_the_cpu_is_taken_where_there_is_no_gpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        found = resolve_compute()
        assert (found.device, found.precision, found.batch) == ("cpu", "float32", 0)
        assert found.threads >= 1

    def test_a_gpu_computes_in_bfloat16(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        assert resolve_compute() == Compute(device="cuda", precision="bfloat16")
        assert resolve_compute("cuda:1", "float32", 4) == Compute(device="cuda:1", batch=4)
        with pytest.raises(UsageError, match="'cuda:2' is not there: torch finds 2"):
            resolve_compute("cuda:2")

    @pytest.mark.parametrize("device", ["gpu", "meta", "cpu:x"])
    def test_unknown_devices_are_refused(self, device: str) -> None:
        with pytest.raises(UsageError, match="device"):
            resolve_compute(device)

    def test_bfloat16_needs_a_cpu_that_has_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(compute_module, "_cpu_has_bfloat16", lambda: False)
        with pytest.raises(UsageError, match="no bfloat16 instructions"):
            resolve_compute("cpu", "bfloat16")
        monkeypatch.setattr(compute_module, "_cpu_has_bfloat16", lambda: True)
        assert resolve_compute("cpu", "bfloat16").precision == "bfloat16"

    def test_seconds_follow_from_operations_and_speed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(compute_module, "_matmul_rate", lambda _: 1000.0)
        backbone = vqa_train.backbones.build.build_backbone("tiny-batched")
        assert network_seconds([backbone], Compute()) == pytest.approx(1536 / 500)
        assert network_seconds([vqa_train.backbones.build.build_backbone("nss")], Compute()) == 0


@pytest.mark.parametrize(
    ("seconds", "words"), [(3, "3 s"), (89, "89 s"), (600, "10 min"), (12600, "3.5 h"), (432000, "5.0 days")]
)
def test_durations_are_said_as_people_say_them(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
