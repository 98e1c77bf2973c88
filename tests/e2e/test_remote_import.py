"""Features and labels imported into a store behind a URL, and loaded from there by somebody with another cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from vqa_train.core.locations import location
from vqa_train.core.remote import find
from vqa_train.datasets.load import load_dataset
from vqa_train.pipelines.importing.config import ImportConfig
from vqa_train.pipelines.importing.run import import_features
from vqa_train.store.store import FeatureStore
from vqa_train.store.verify import verify


def test_imported_labels_live_in_the_remote_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "features.csv"
    file.write_text("id,mos,x0,x1\n" + "".join(f"v{i},{1 + i % 4},{i},{-i}\n" for i in range(12)), encoding="utf-8")
    store = location(f"memory://{tmp_path}/store")
    config = ImportConfig(
        file=file, name="toy", output=store, id_column="id", dim_columns=("x*",), labels={"mos": "mos"},
        mos_range={"mos": (1.0, 5.0)},
    )  # fmt: skip
    report = import_features(config)
    assert report.added == 12
    assert report.dataset is not None and report.dataset["manifest"] == f"{store}/datasets/toy.yaml"
    names = sorted(name.partition(".")[0] for name in find(store / "datasets"))  # type: ignore[arg-type]
    assert names == ["toy", "toy", "toy/labels"], "manifest, files table, label table and nothing else"
    monkeypatch.setenv("VQA_TRAIN_CACHE", str(tmp_path / "another"))
    dataset = load_dataset("toy", stores=[store])
    assert [video.labels["mos"] for video in dataset.videos] == [float(1 + i % 4) for i in range(12)]
    known = FeatureStore.open(store).find("toy").known_keys()
    assert known == {video.sha256 for video in dataset.videos}
    assert verify(store).ok
    again = import_features(config)
    assert again.no_op
