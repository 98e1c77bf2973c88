"""`store verify --deep` finds features that are whole on disk and are not what their backbone says of the videos."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from vqa_train.core.errors import StoreError, UsageError
from vqa_train.core.hashing import sha256_bytes
from vqa_train.pipelines.extract.run import ExtractConfig, extract_features
from vqa_train.pipelines.store import look as pipeline
from vqa_train.pipelines.store.deep import DeepConfig, verify_deep
from vqa_train.store.arrow import decode, encode, to_batch
from vqa_train.store.batch import digests, statistics
from vqa_train.store.seal import sealed
from vqa_train.store.store import FeatureStore


@pytest.fixture
def extracted(make_dataset: Callable[..., Path], tmp_path: Path) -> tuple[Path, Path]:
    """Manifest and store of three videos."""
    manifest, store = make_dataset(3), tmp_path / "store"
    extract_features(ExtractConfig(dataset=str(manifest), output=store, backbones=("nss",), workers=0))
    return manifest, store


def deep(manifest: Path, **options: object) -> DeepConfig:
    return DeepConfig(dataset=str(manifest), workers=0, **options)


def forge(store: Path, change: float) -> None:
    """Add `change` to a feature of every row, with hashes, digests, sums and seals that all agree."""
    features = FeatureStore.open(store).find("nss")
    for commit in features.commits():
        path = features.folder / "shards" / f"{commit.shard}.parquet"
        batch = to_batch(features.spec, decode(path))
        pooled = batch.outputs["pooled"].copy()
        pooled[:, 3] += change * abs(pooled).max()
        forged = type(batch)(batch.keys, batch.views, {**batch.outputs, "pooled": pooled}, batch.facts)
        data = encode(features.spec, forged)
        path.write_bytes(data)
        record = json.loads(path.with_suffix(".json").read_bytes())
        record |= {"sha256": sha256_bytes(data), "bytes": len(data), "digests": digests(features.spec, forged)}
        path.with_suffix(".json").write_bytes(sealed({**record, "statistics": statistics(features.spec, forged)}))
    for path in [features.folder / "manifest.json", *(features.folder / "snapshots").iterdir()]:
        path.unlink()


def test_an_honest_store_passes_and_every_sampled_row_is_compared(extracted):
    manifest, store = extracted
    report = pipeline.verify(store, deep(manifest, sample=2))
    (found,) = report["deep"]
    assert (report["ok"], found["checked"], found["unchecked"], found["problems"]) == (True, 2, None, [])
    assert set(found["largest"]) == {output.name for output in FeatureStore.open(store).find("nss").spec.outputs}
    assert max(found["largest"].values()) <= found["bound"] == 1e-5


def test_forged_features_pass_every_hash_and_fail_here(extracted):
    manifest, store = extracted
    forge(store, 1e-3)
    assert pipeline.verify(store)["ok"]
    report = pipeline.verify(store, deep(manifest))
    assert not report["ok"]
    assert "extracted again it differs by 0.001" in report["problems"][0]


def test_a_change_within_the_bound_passes(extracted):
    manifest, store = extracted
    forge(store, 1e-6)
    assert pipeline.verify(store, deep(manifest))["ok"]


def test_another_seed_takes_other_keys(extracted, monkeypatch):
    manifest, store = extracted
    from vqa_train.pipelines.store import deep as store_deep

    taken = []
    real = store_deep._extract
    monkeypatch.setattr(
        store_deep, "_extract", lambda s, videos, d, c: taken.append(videos[0].id) or real(s, videos, d, c)
    )
    for seed in range(6):
        verify_deep(store, deep(manifest, sample=1, seed=seed))
    assert len(set(taken)) > 1


def test_nothing_to_check_is_an_error_and_not_a_pass(extracted, tmp_path):
    manifest, store = extracted
    for path in manifest.parent.rglob("*.mp4"):
        path.unlink()
    with pytest.raises(UsageError, match="nothing could be extracted again: nss@.*no file or prompt"):
        verify_deep(store, deep(manifest))
    FeatureStore(tmp_path / "empty").create()
    with pytest.raises(UsageError, match="no feature sets"):
        verify_deep(tmp_path / "empty", deep(manifest))


def test_a_sample_of_none_and_an_unknown_set_are_errors(extracted):
    manifest, store = extracted
    with pytest.raises(UsageError, match="at least 1"):
        verify_deep(store, deep(manifest, sample=0))
    with pytest.raises(StoreError, match="no feature set 'dover'"):
        verify_deep(store, deep(manifest, sets=("dover",)))


def test_a_video_that_changed_since_is_a_problem(extracted):
    manifest, store = extracted
    for path in manifest.parent.rglob("*.mp4"):
        path.write_bytes(path.read_bytes()[:-100])
    (found,) = verify_deep(store, deep(manifest))
    assert found.checked == 0
    assert len(found.problems) == 3
    assert "cannot be extracted again" in found.problems[0]
