"""fit with a protocol: held-out numbers that anyone can recompute from the run folder, ensembles and intervals."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import stats

from vqa_train.core.errors import ConfigError, RunError
from vqa_train.datasets.draft import ScanConfig
from vqa_train.datasets.load import load_dataset
from vqa_train.datasets.protocols import read_plan
from vqa_train.datasets.scan import scan
from vqa_train.heads import resume as state
from vqa_train.heads.checkpoint import load_ensemble
from vqa_train.heads.trainer import predict
from vqa_train.pipelines import runs
from vqa_train.pipelines.fit import run as pipeline
from vqa_train.pipelines.fit.resume import partial_folder
from vqa_train.store.store import FeatureRow, FeatureStore

QUICK: dict[str, Any] = {
    "epochs": 8, "batch_size": 16, "patience": None, "validation": {"fraction": 0}, "head": {"hidden": [8]},
    "optimizer": {"lr": 0.03}, "ema": None,
}  # fmt: skip


def recipe(**values: Any) -> pipeline.FitConfig:
    defaults = {"schema": "vqa-train/fit/1", "features": {"video": {"set": "fake"}}}
    if "members" not in values:
        defaults["train"] = QUICK
    return pipeline.parse_fit_config({**defaults, **values}, "recipe")


def run(data: Any, output: Path, config: pipeline.FitConfig, **options: Any) -> pipeline.FitResult:
    dataset = options.pop("dataset", str(data.manifest))
    return pipeline.fit(config, features=data.store, output=output, dataset=dataset, **options)


def held_out(folder: Path) -> pl.DataFrame:
    return pl.read_parquet(folder / runs.HELD_OUT_FILE)


def change_labels(data: Any, ids: set[str]) -> None:
    """Give these rows the opposite opinions, and write the manifest again."""
    labels = data.manifest.with_suffix("") / "labels.csv"
    lines = labels.read_text(encoding="utf-8").splitlines()
    cells = [line.split(",") for line in lines[1:]]
    changed = [[c[0], f"{6 - float(c[1]):.3f}", "", c[3]] if c[0] in ids else c for c in cells]
    labels.write_text("\n".join([lines[0], *(",".join(c) for c in changed)]) + "\n", encoding="utf-8")
    scan(ScanConfig(root=labels.parent, output=data.manifest))


def test_metrics_follow_from_the_held_out_predictions(labelled_store: Any, tmp_path: Path) -> None:
    result = run(labelled_store, tmp_path / "run", recipe(protocol="kfold:k=4"))
    report = json.loads((tmp_path / "run" / runs.PROTOCOL_FILE).read_text())
    assert report == result.protocol
    table = held_out(tmp_path / "run")
    assert sorted(table["id"]) == sorted(pl.read_parquet(tmp_path / "run" / runs.PREDICTIONS_FILE)["id"])
    per_fold = []
    for fold in report["folds"]:
        rows = table.filter(pl.col("fold") == fold["name"]).drop_nans("overall")
        assert len(rows) == fold["test"]
        srocc = stats.spearmanr(rows["overall"], rows["predicted_overall"]).statistic
        assert fold["metrics"]["overall"]["srocc"] == pytest.approx(srocc)
        mae = (rows["overall"] - rows["predicted_overall"]).abs().mean()
        assert fold["metrics"]["overall"]["mae"] == pytest.approx(mae, rel=1e-6)
        per_fold.append(srocc)
    summary = report["summary"]["overall"]["srocc"]
    assert summary["median"] == pytest.approx(np.median(per_fold))
    assert summary["std"] == pytest.approx(np.std(per_fold, ddof=1))
    pooled = stats.spearmanr(table["overall"], table["predicted_overall"]).statistic
    assert report["pooled"]["overall"]["srocc"] == pytest.approx(pooled)
    assert 0.8 < pooled < 1


def test_final_model_of_folds_is_trained_on_every_labelled_row(labelled_store: Any, tmp_path: Path) -> None:
    result = run(labelled_store, tmp_path / "run", recipe(protocol="kfold:k=4"))
    assert result.record.rows == {
        "train": 119, "val": 0, "test": 0, "in": 120, "without_features": 1, "unlabelled": 0,
    }  # fmt: skip
    assert result.record.training["counts"]["train"] == 119
    assert result.record.protocol == {"kind": "kfold", "k": 4, "repeats": 1, "salt": "", "by": "group", "rows": "all"}
    plan = read_plan(tmp_path / "run" / runs.SPLITS_FILE)
    assert plan.sha256 == result.record.splits_sha256
    history = json.loads((tmp_path / "run" / runs.HISTORY_FILE).read_text())["heads"]
    assert [(head["fold"], head["member"], len(head["epochs"])) for head in history] == [
        (None, "head", 8), *((f"fold-{i}", "head", 8) for i in range(4)),
    ]  # fmt: skip


def test_a_fold_is_the_same_whatever_the_labels_of_its_test_rows(labelled_store: Any, tmp_path: Path) -> None:
    config = recipe(protocol="kfold:k=3")
    run(labelled_store, tmp_path / "one", config)
    before = held_out(tmp_path / "one").filter(pl.col("fold") == "fold-0")
    change_labels(labelled_store, set(before["id"]))
    run(labelled_store, tmp_path / "two", config)
    after = held_out(tmp_path / "two").filter(pl.col("fold") == "fold-0")
    assert before["overall"].to_list() != after["overall"].to_list()
    assert before["predicted_overall"].to_list() == after["predicted_overall"].to_list()
    others = [held_out(tmp_path / name).filter(pl.col("fold") == "fold-1") for name in ("one", "two")]
    assert others[0]["predicted_overall"].to_list() != others[1]["predicted_overall"].to_list()


def test_splits_of_a_run_can_be_used_again(labelled_store: Any, tmp_path: Path) -> None:
    first = run(labelled_store, tmp_path / "one", recipe(protocol="repeated:repeats=3,salt=x"))
    splits = tmp_path / "one" / runs.SPLITS_FILE
    second = run(labelled_store, tmp_path / "two", recipe(protocol=f"file:{splits}"))
    assert second.record.splits_sha256 == first.record.splits_sha256
    assert second.record.protocol == first.record.protocol
    assert second.record.run_provenance["inputs"]["splits"]["sha256"] == first.record.files[runs.SPLITS_FILE]
    for name in (runs.HELD_OUT_FILE, runs.SPLITS_FILE, runs.PROTOCOL_FILE, runs.HEAD_FILE):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    drop = {"missing_mos": "drop", "protocol": f"file:{splits}"}
    with pytest.raises(ConfigError, match=r"splits are for other rows; rows of the splits that are not there.*set/v0"):
        run(labelled_store, tmp_path / "three", recipe(**drop))
    assert not (tmp_path / "three").exists()


def test_splitting_groups_by_row_warns_and_is_recorded(labelled_store: Any, tmp_path: Path) -> None:
    said: list[str] = []
    options = pipeline.FitOptions(warn=said.append)
    result = run(labelled_store, tmp_path / "run", recipe(protocol="kfold:k=4,by=row"), options=options)
    assert len(said) == 1
    assert "of 40 groups have rows in both the training and the test part" in said[0]
    assert result.record.warnings == said
    assert result.protocol is not None
    assert result.protocol["warnings"] == said


def test_hash_splits_keep_their_test_part_from_the_final_model(labelled_store: Any, tmp_path: Path) -> None:
    config = recipe(protocol="hash:train=0.5,val=0.2,test=0.3")
    first = run(labelled_store, tmp_path / "one", config)
    assert first.protocol is None
    table = pl.read_parquet(tmp_path / "one" / runs.PREDICTIONS_FILE)
    assert set(table["split"]) == {"train", "val", "test"}
    assert first.record.training["counts"]["train"] == (table["split"] == "train").sum()
    change_labels(labelled_store, set(table.filter(pl.col("split") == "test")["id"]))
    run(labelled_store, tmp_path / "two", config)
    heads = [(tmp_path / name / runs.HEAD_FILE).read_bytes() for name in ("one", "two")]
    assert heads[0] == heads[1]


def test_rows_kept_for_validation_do_not_train_a_closed_form_either(labelled_store: Any, tmp_path: Path) -> None:
    config = recipe(protocol="hash:train=0.5,val=0.2,test=0.3", train={"head": {"kind": "linear"}})
    result = run(labelled_store, tmp_path / "run", config)
    assert result.record.rows["val"] > 10
    assert result.record.training["counts"]["train"] == result.record.rows["train"]
    assert set(result.metrics) == {"train", "val"}


MEMBERS = [
    {"name": "wide", "weight": 3, "train": {**QUICK, "head": {"hidden": [12]}}},
    {"name": "small", "weight": 1, "train": {**QUICK, "head": {"hidden": [4]}}},
]


def test_members_and_seeds_are_averaged_by_weight(labelled_store: Any, tmp_path: Path) -> None:
    result = run(labelled_store, tmp_path / "run", recipe(protocol="kfold:k=2", members=MEMBERS, seeds=2))
    ensemble, _ = load_ensemble(tmp_path / "run" / runs.HEAD_FILE)
    assert [head.models for head in ensemble.heads] == [2, 2]
    assert [(m.name, m.weight, len(set(m.seeds))) for m in result.record.members] == [("wide", 3, 2), ("small", 1, 2)]
    table = pl.read_parquet(tmp_path / "run" / runs.PREDICTIONS_FILE)
    matrix = FeatureStore.open(labelled_store.store).find("fake").matrix("pooled", table["video_sha256"].to_list())
    each = np.stack([predict(head.select([i]), {"video": matrix}) for head in ensemble.heads for i in range(2)])
    shares = np.array([3, 3, 1, 1]) / 8
    mean = np.einsum("m,mnk->nk", shares, each)
    spread = np.sqrt(np.einsum("m,mnk->nk", shares, (each - mean) ** 2))
    np.testing.assert_allclose(table["predicted_overall"], mean[:, 0], rtol=1e-5)
    np.testing.assert_allclose(table["spread_overall"], spread[:, 0], rtol=1e-3, atol=1e-6)
    assert held_out(tmp_path / "run")["spread_overall"].min() > 0


def test_one_head_of_many_is_the_head_of_a_run_of_its_own(labelled_store: Any, tmp_path: Path) -> None:
    run(labelled_store, tmp_path / "many", recipe(protocol="kfold:k=3", members=MEMBERS, seeds=2))
    alone = recipe(protocol="kfold:k=3", members=MEMBERS[1:])
    run(labelled_store, tmp_path / "alone", alone)
    table = pl.read_parquet(tmp_path / "alone" / runs.PREDICTIONS_FILE)
    matrix = FeatureStore.open(labelled_store.store).find("fake").matrix("pooled", table["video_sha256"].to_list())
    many, _ = load_ensemble(tmp_path / "many" / runs.HEAD_FILE)
    np.testing.assert_allclose(
        predict(many.heads[1].select([0]), {"video": matrix})[:, 0], table["predicted_overall"], rtol=1e-4
    )


def test_intervals_are_the_quantile_of_the_held_out_residuals(labelled_store: Any, tmp_path: Path) -> None:
    config = recipe(protocol="kfold:k=5", calibration={"level": 0.8}, seeds=2)
    result = run(labelled_store, tmp_path / "run", config)
    entry = json.loads((tmp_path / "run" / runs.CALIBRATION_FILE).read_text())["targets"]["overall"]
    table = held_out(tmp_path / "run")
    residuals = np.sort((table["overall"] - table["predicted_overall"]).abs().to_numpy())
    assert entry["n"] == entry["coverage_n"] == 119
    assert entry["half_width"] == pytest.approx(residuals[math.ceil(120 * 0.8) - 1])
    # Coverage of 119 rows at 0.8 has a standard deviation of 0.037.
    assert 0.68 < entry["coverage"] < 0.92
    assert result.record.calibration == result.calibration
    # The protocol's own folds serve: nothing is trained twice.
    history = json.loads((tmp_path / "run" / runs.HISTORY_FILE).read_text())["heads"]
    assert len(history) == (1 + 5) * 2


def test_split_calibration_keeps_groups_out_of_the_final_model(labelled_store: Any, tmp_path: Path) -> None:
    config = recipe(protocol="hash:train=0.9,test=0.1", calibration={"method": "split", "fraction": 0.4, "level": 0.7})
    result = run(labelled_store, tmp_path / "run", config)
    table = pl.read_parquet(tmp_path / "run" / runs.PREDICTIONS_FILE)
    kept_out = table.filter(pl.col("split") == "calibration")
    assert result.record.rows["calibration"] == len(kept_out) > 20
    assert not set(kept_out["group"]) & set(table.filter(pl.col("split") == "train")["group"])
    residuals = np.sort((kept_out["overall"] - kept_out["predicted_overall"]).abs().to_numpy())
    assert result.calibration is not None
    entry = result.calibration["targets"]["overall"]
    assert entry["half_width"] == pytest.approx(residuals[math.ceil((len(kept_out) + 1) * 0.7) - 1])
    assert entry["coverage_n"] == entry["n"] == len(kept_out)
    change_labels(labelled_store, set(kept_out["id"]))
    run(labelled_store, tmp_path / "two", config)
    heads = [(tmp_path / name / runs.HEAD_FILE).read_bytes() for name in ("run", "two")]
    assert heads[0] == heads[1]


def test_too_few_groups_to_calibrate_is_said(labelled_store: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"calibration: .*at least k groups, got k=50 and 40 groups"):
        run(labelled_store, tmp_path / "run", recipe(protocol="kfold:k=2", calibration={"folds": 50}))


@pytest.fixture
def second(labelled_store: Any, tmp_path: Path) -> Path:
    """A further dataset of 60 videos in the same store, scored from 0 to 100, one of which the first one has too."""
    root = tmp_path / "other"
    root.mkdir()
    rng = np.random.default_rng(7)
    quality = rng.uniform(1, 5, 60)
    lines = ["id,overall,scene"]
    for i in range(60):
        (root / f"w{i:02d}.mp4").write_bytes(b"video 5" if i == 0 else b"other %d" % i)
        lines.append(f"w{i:02d},{(quality[i] - 1) * 25:.2f},scene{i // 2}")
    (root / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    manifest = tmp_path / "other.yaml"
    scan(
        ScanConfig(
            root=root, output=manifest, name="other", license="CC0-1.0", labels=(("labels.csv", None),),
            columns={"id": "id", "group": "scene"}, targets={"overall": "overall"}, mos_min=0, mos_max=100,
        )
    )  # fmt: skip
    features = FeatureStore.open(labelled_store.store).find("fake")
    known = features.known_keys()
    facts = {
        "num_frames": 9, "fps": 25.0, "width": 8, "height": 8, "duration_s": 0.36, "codec": "h264", "decoder": "none",
    }  # fmt: skip
    rows = []
    for i, video in enumerate(load_dataset(str(manifest)).videos):
        pooled = rng.normal(size=4).astype(np.float32)
        pooled[2] = quality[i] + rng.normal() * 0.2
        if video.sha256 not in known:
            outputs = {"pooled": pooled, "temporal": np.zeros((2, 3), np.float32)}
            rows.append(FeatureRow(key=video.sha256, outputs=outputs, facts=facts))
    features.append(rows, profile={"device": "cpu"}, run_id="made-by-test")
    return manifest


def test_leave_one_dataset_out_with_different_scales(labelled_store: Any, second: Path, tmp_path: Path) -> None:
    both = [str(labelled_store.manifest), str(second)]
    config = recipe(protocol="leave_one_dataset_out", calibration={"folds": 3}, targets=["overall"])
    result = run(labelled_store, tmp_path / "run", config, dataset=both)
    assert result.protocol is not None
    folds = {fold["name"]: fold for fold in result.protocol["folds"]}
    assert {name: (fold["train"], fold["test"], fold["left_out"]) for name, fold in folds.items()} == {
        # The shared video and the other one of its group do not train for the dataset that tests it.
        "set": (58, 119, 2),
        "other": (116, 60, 3),
    }
    assert all(fold["metrics"]["overall"]["srocc"] > 0.8 for fold in folds.values())
    assert "pooled" not in result.protocol
    record = result.record
    assert [(d.name, d.rows) for d in record.datasets] == [("set", 119), ("other", 60)]
    assert record.mos_range == {"overall": (1, 5)}
    assert set(record.scales) == {"set", "other"}
    assert record.scales["set"]["overall"]["kind"] == "reference"
    table = pl.read_parquet(tmp_path / "run" / runs.PREDICTIONS_FILE)
    # All predictions are on the first dataset's scale.
    assert table["predicted_overall"].max() < 8
    assert result.calibration is not None
    entry = result.calibration["targets"]["overall"]
    assert entry["n"] == 119
    assert "of rows of set alone" in entry["note"]


def test_cross_dataset_matrix(labelled_store: Any, second: Path, tmp_path: Path) -> None:
    both = [str(labelled_store.manifest), str(second)]
    result = run(
        labelled_store, tmp_path / "run", recipe(protocol="cross_dataset:k=2", targets=["overall"]), dataset=both
    )
    assert result.protocol is not None
    cells = {(c["train"], c["test"]): c["summary"]["overall"]["srocc"] for c in result.protocol["cells"]}
    assert set(cells) == {(a, b) for a in ("set", "other") for b in ("set", "other")}
    assert [cells[pair]["n"] for pair in (("set", "set"), ("set", "other"))] == [2, 1]
    across = [cells["set", "other"]["median"], cells["other", "set"]["median"]]
    assert result.protocol["summary"]["overall"]["srocc"]["n"] == 2
    assert result.protocol["summary"]["overall"]["srocc"]["median"] == pytest.approx(np.median(across))


def test_the_first_dataset_named_is_the_reference_also_in_a_file(
    labelled_store: Any, second: Path, tmp_path: Path
) -> None:
    names = {"set": str(labelled_store.manifest), "other": str(second)}
    config = recipe(targets=["overall"], memory_limit=1e-9)
    for order in (["set", "other"], ["other", "set"]):
        result = run(labelled_store, tmp_path / f"run-{order[0]}", config, dataset=[names[name] for name in order])
        assert result.record.scales[order[0]]["overall"]["kind"] == "reference"
        assert result.record.scales[order[1]]["overall"]["kind"] == "affine"


def test_targets_that_only_some_datasets_have(labelled_store: Any, second: Path, tmp_path: Path) -> None:
    both = [str(second), str(labelled_store.manifest)]
    result = run(labelled_store, tmp_path / "run", recipe(protocol="kfold:k=2", calibration={"folds": 2}), dataset=both)
    record = result.record
    assert record.targets == ["overall", "detail"]
    # Each target is on the scale of the first dataset that has it.
    assert record.mos_range == {"overall": (0, 100), "detail": (1, 5)}
    assert result.calibration is not None
    entries = result.calibration["targets"]
    assert (entries["overall"]["n"], entries["detail"]["n"]) == (60, 107)
    assert "of rows of other alone" in entries["overall"]["note"]
    assert entries["detail"]["note"] is None
    with pytest.raises(ConfigError, match="dataset 'other' has none of the targets detail"):
        run(labelled_store, tmp_path / "x", recipe(targets=["detail"]), dataset=both)
    with pytest.raises(ConfigError, match="named twice: other, other"):
        run(labelled_store, tmp_path / "x", recipe(), dataset=[str(second), str(second)])


def test_records_without_a_feature_set_are_masked_where_asked(labelled_store: Any, tmp_path: Path) -> None:
    inputs = {"video": {"set": "fake"}, "extra": {"set": "half"}}
    store = FeatureStore.open(labelled_store.store)
    from vqa_train.core.types import FeatureSpec, OutputSpec

    spec = FeatureSpec(
        backbone="half", definition=1, modality="video", outputs=(OutputSpec(name="pooled", shape=(2,)),),
        preprocessing={"imported": {}},
    )  # fmt: skip
    keys = [video.sha256 for video in load_dataset(str(labelled_store.manifest)).videos]
    rows = [FeatureRow(key=key, outputs={"pooled": np.ones(2, np.float32)}, facts={}) for key in keys[60:]]
    store.create_set(spec, license="CC0-1.0").append(rows, profile={"device": "cpu"}, run_id="made-by-test")
    dropped = run(labelled_store, tmp_path / "drop", recipe(features=inputs))
    assert dropped.record.rows["without_features"] == 61
    masked = run(labelled_store, tmp_path / "mask", recipe(features=inputs, missing_features="mask"))
    assert masked.record.rows["without_features"] == 0
    assert masked.record.training["masked"] == {"video": 1, "extra": 60}
    assert masked.record.training["nonfinite"] == {"video": 4, "extra": 120}


def test_features_in_a_file_give_the_same_head(labelled_store: Any, tmp_path: Path) -> None:
    config = recipe(protocol="kfold:k=2")
    in_memory = run(labelled_store, tmp_path / "memory", config)
    streamed = run(labelled_store, tmp_path / "file", config.model_copy(update={"memory_limit": 1e-9}))
    tables = [held_out(tmp_path / name).sort("id") for name in ("memory", "file")]
    np.testing.assert_allclose(tables[0]["predicted_overall"], tables[1]["predicted_overall"], rtol=1e-5)
    assert in_memory.record.splits_sha256 == streamed.record.splits_sha256
    with pytest.raises(ConfigError, match="features that stay in a file cannot be masked"):
        pipeline.fit(
            config.model_copy(update={"memory_limit": 1e-9, "missing_features": "mask", "features": {
                "video": pipeline.FeatureInput(set="fake"), "again": pipeline.FeatureInput(set="late"),
            }}),
            features=_with_late_set(labelled_store), output=tmp_path / "x", dataset=str(labelled_store.manifest),
        )  # fmt: skip


def _with_late_set(data: Any) -> Path:
    from vqa_train.core.types import FeatureSpec, OutputSpec

    spec = FeatureSpec(
        backbone="late", definition=1, modality="video", outputs=(OutputSpec(name="pooled", shape=(1,)),),
        preprocessing={"imported": {}},
    )  # fmt: skip
    key = load_dataset(str(data.manifest)).videos[0].sha256
    row = FeatureRow(key=key, outputs={"pooled": np.ones(1, np.float32)}, facts={})
    FeatureStore.open(data.store).create_set(spec, license="x").append([row], profile={}, run_id="made-by-test")
    return Path(data.store)


def stop_at(epoch: int) -> Callable[[str, dict[str, Any]], None]:
    def stop(_: str, entry: dict[str, Any]) -> None:
        if entry["epoch"] == epoch:
            raise KeyboardInterrupt

    return stop


def test_an_interrupted_fit_goes_on_to_the_same_run(
    labelled_store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "SECONDS", 0.0)
    config = recipe(protocol="kfold:k=2", members=[*MEMBERS, {"name": "ridge", "train": {"head": {"kind": "linear"}}}])
    whole = run(labelled_store, tmp_path / "whole", config)
    with pytest.raises(KeyboardInterrupt):
        run(labelled_store, tmp_path / "run", config, options=pipeline.FitOptions(on_epoch=stop_at(5)))
    assert not (tmp_path / "run").exists()
    assert partial_folder(tmp_path / "run").is_dir()
    seen: list[int] = []
    options = pipeline.FitOptions(resume=True, on_epoch=lambda _, entry: seen.append(entry["epoch"]))
    with pytest.raises(RunError, match="had another recipe"):
        run(labelled_store, tmp_path / "run", recipe(protocol="kfold:k=3"), options=options)
    resumed = run(labelled_store, tmp_path / "run", config, options=options)
    assert resumed.record.files == whole.record.files
    # The first member's heads were interrupted in epoch 5, so that epoch 5 is the first to be done again.
    assert seen[0] == 5
    assert not partial_folder(tmp_path / "run").exists()


def test_an_interrupted_fit_is_begun_anew_only_with_a_word(
    labelled_store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        run(labelled_store, tmp_path / "run", recipe(), options=pipeline.FitOptions(on_epoch=stop_at(5)))
    said: list[str] = []
    seen: list[int] = []
    options = pipeline.FitOptions(warn=said.append, on_epoch=lambda _, entry: seen.append(entry["epoch"]))
    run(labelled_store, tmp_path / "run", recipe(), options=options)
    assert "an interrupted fit is thrown away" in said[0]
    assert seen == list(range(1, 9))
    run(labelled_store, tmp_path / "run", recipe(), overwrite=True, options=replace(options, resume=True))
    assert "there is no interrupted fit" in said[1]


def test_warm_start_begins_at_another_runs_weights(labelled_store: Any, tmp_path: Path) -> None:
    run(labelled_store, tmp_path / "first", recipe())
    still = recipe(train={**QUICK, "epochs": 1, "optimizer": {"lr": 1e-9}, "ema": None})
    options = pipeline.FitOptions(init_from=tmp_path / "first")
    run(labelled_store, tmp_path / "second", still, options=options)
    tables = [pl.read_parquet(tmp_path / name / runs.PREDICTIONS_FILE) for name in ("first", "second")]
    np.testing.assert_allclose(tables[0]["predicted_overall"], tables[1]["predicted_overall"], atol=1e-4)
    with pytest.raises(ConfigError, match="has 1 heads, this recipe has 2"):
        run(labelled_store, tmp_path / "x", recipe(seeds=2), options=options)
    run(labelled_store, tmp_path / "all", recipe(protocol="kfold:k=2"))
    with pytest.raises(ConfigError, match=r"was trained on \d+ videos that this run keeps for testing"):
        run(labelled_store, tmp_path / "x", recipe(), options=pipeline.FitOptions(init_from=tmp_path / "all"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"members": MEMBERS, "train": QUICK}, "either `train`"),
        ({"members": [MEMBERS[0], MEMBERS[0]]}, "members has a name twice"),
        ({"protocol": "kfold:kk=3"}, "protocol: unknown key 'kk' - did you mean 'k'"),
        ({"protocol": {"kind": "kfold", "k": 1}}, "greater than or equal to 2"),
        ({"calibration": {"level": 1}}, "less than 1"),
        ({"seeds": 0}, "greater than or equal to 1"),
    ],
)
def test_mistakes_in_a_recipe_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        recipe(**values)


def test_a_resolved_recipe_is_the_same_recipe(tmp_path: Path) -> None:
    config = recipe(protocol="repeated:repeats=7", calibration={}, members=MEMBERS)
    assert pipeline.parse_fit_config(config.model_dump(mode="json", by_alias=True), "again") == config
