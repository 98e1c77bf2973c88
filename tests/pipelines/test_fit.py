"""fit on a store: the run folder is whole, atomic, reproducible, and training never sees test rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from vqa_train.core.errors import ConfigError, RunError, StoreError
from vqa_train.pipelines import runs
from vqa_train.pipelines.fit import run as pipeline


def run(data: Any, output: Path, **options: Any) -> pipeline.FitResult:
    config = options.pop("config", None) or pipeline.load_fit_config(data.recipe)
    return pipeline.fit(config, features=data.store, output=output, dataset=str(data.manifest), **options)


def test_run_folder_is_complete_and_learns(labelled_store: Any, tmp_path: Path) -> None:
    result = run(labelled_store, tmp_path / "run")
    assert runs.open_run(tmp_path / "run") == result.record
    assert result.record.targets == ["overall", "detail"]
    assert [(i.name, i.dim, i.shape, i.license) for i in result.record.inputs] == [("video", 4, [4], "CC-BY-4.0")]
    assert result.record.rows["in"] == 120
    assert result.record.rows["without_features"] == 1
    assert sum(result.record.rows[s] for s in ("train", "val", "test")) == 119
    assert result.metrics["val"].result("overall").metrics["srocc"].value > 0.9
    table = pl.read_parquet(tmp_path / "run" / runs.PREDICTIONS_FILE)
    test = table.filter(pl.col("split") == "test").drop_nulls().drop_nans()
    assert np.corrcoef(test["overall"], test["predicted_overall"])[0, 1] > 0.8
    assert labelled_store.left_out not in table["id"].to_list()


def test_groups_never_straddle_splits(labelled_store: Any, tmp_path: Path) -> None:
    run(labelled_store, tmp_path / "run")
    table = pl.read_parquet(tmp_path / "run" / runs.PREDICTIONS_FILE)
    per_group = table.group_by("group").agg(pl.col("split").n_unique().alias("splits"))
    assert per_group["splits"].max() == 1
    assert set(table["split"].unique()) == {"train", "val", "test"}


def test_labels_of_test_rows_do_not_change_the_weights(labelled_store: Any, tmp_path: Path) -> None:
    """A planted leak would show: other test labels, the same bytes of the head."""
    run(labelled_store, tmp_path / "one")
    table = pl.read_parquet(tmp_path / "one" / runs.PREDICTIONS_FILE)
    test_ids = set(table.filter(pl.col("split") == "test")["id"])
    labels = labelled_store.manifest.with_suffix("") / "labels.csv"
    lines = labels.read_text(encoding="utf-8").splitlines()
    changed = [lines[0]]
    for line in lines[1:]:
        cells = line.split(",")
        changed.append(",".join([cells[0], "1.0", "5.0", cells[3]]) if cells[0] in test_ids else line)
    assert changed != lines
    labels.write_text("\n".join(changed) + "\n", encoding="utf-8")
    from vqa_train.datasets.draft import ScanConfig
    from vqa_train.datasets.scan import scan

    scan(ScanConfig(root=labels.parent, output=labelled_store.manifest))
    run(labelled_store, tmp_path / "two")
    heads = [(tmp_path / name / runs.HEAD_FILE).read_bytes() for name in ("one", "two")]
    assert heads[0] == heads[1]


def test_same_config_and_features_give_the_same_bytes(labelled_store: Any, tmp_path: Path) -> None:
    run(labelled_store, tmp_path / "one")
    run(labelled_store, tmp_path / "two")
    first, second = (json.loads((tmp_path / name / runs.RUN_FILE).read_text())["files"] for name in ("one", "two"))
    assert first == second
    assert set(first) == {
        runs.HEAD_FILE, runs.PREDICTIONS_FILE, runs.METRICS_FILE, runs.HISTORY_FILE, runs.ROWS_FILE, runs.SPLITS_FILE,
        runs.STATISTICS_FILE, runs.FEATURES_FILE,
    }  # fmt: skip
    for name in first:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def test_non_empty_folder_is_refused_without_overwrite(labelled_store: Any, tmp_path: Path) -> None:
    run(labelled_store, tmp_path / "run")
    before = (tmp_path / "run" / runs.RUN_FILE).read_bytes()
    with pytest.raises(RunError, match="not empty.*--overwrite"):
        run(labelled_store, tmp_path / "run")
    assert (tmp_path / "run" / runs.RUN_FILE).read_bytes() == before
    run(labelled_store, tmp_path / "run", overwrite=True)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.txt").write_text("years of work")
    with pytest.raises(RunError, match="not a run folder"):
        run(labelled_store, tmp_path / "thesis", overwrite=True)


def test_interrupted_fit_leaves_nothing(labelled_store: Any, tmp_path: Path) -> None:
    def stop(_: str, entry: dict[str, Any]) -> None:
        if entry["epoch"] == 3:
            raise KeyboardInterrupt

    before = set(tmp_path.iterdir())
    with pytest.raises(KeyboardInterrupt):
        run(labelled_store, tmp_path / "run", options=pipeline.FitOptions(on_epoch=stop))
    assert set(tmp_path.iterdir()) == before


def test_changed_or_missing_run_files_are_refused(labelled_store: Any, tmp_path: Path) -> None:
    run(labelled_store, tmp_path / "run")
    head = tmp_path / "run" / runs.HEAD_FILE
    data = bytearray(head.read_bytes())
    data[-1] ^= 1
    head.write_bytes(data)
    with pytest.raises(RunError, match=r"head\.safetensors.*sha256"):
        runs.open_run(tmp_path / "run")
    (tmp_path / "run" / runs.RUN_FILE).unlink()
    with pytest.raises(RunError, match="is not a run folder"):
        runs.open_run(tmp_path / "run")


def test_a_run_of_another_version_says_what_to_do(labelled_store: Any, tmp_path: Path) -> None:
    run(labelled_store, tmp_path / "run")
    path = tmp_path / "run" / runs.RUN_FILE
    path.write_text(path.read_text().replace(runs.RUN_SCHEMA, "vqa-train/run/1", 1))
    with pytest.raises(RunError, match=r"schema 'vqa-train/run/1', expected 'vqa-train/run/2' - fit again"):
        runs.open_run(tmp_path / "run")


def test_missing_mos_policies_count_rows(labelled_store: Any, tmp_path: Path) -> None:
    config = pipeline.load_fit_config(labelled_store.recipe)
    masked = run(labelled_store, tmp_path / "mask").metrics["train"].result("detail")
    dropped = run(labelled_store, tmp_path / "drop", config=config.model_copy(update={"missing_mos": "drop"}))
    assert masked.missing_labels > 0
    assert dropped.metrics["train"].result("detail").missing_labels == 0
    assert dropped.record.rows["in"] == 108


def test_unknown_target_feature_and_output_are_named(labelled_store: Any, tmp_path: Path) -> None:
    config = pipeline.load_fit_config(labelled_store.recipe)
    with pytest.raises(ConfigError, match=r"dataset 'set' has no target 'ovrall'.*overall, detail"):
        run(labelled_store, tmp_path / "r", config=config.model_copy(update={"targets": ["ovrall"]}))
    bad = {"video": pipeline.FeatureInput(set="dover")}
    with pytest.raises(StoreError, match="no feature set 'dover'"):
        run(labelled_store, tmp_path / "r", config=config.model_copy(update={"features": bad}))
    temporal = {"video": pipeline.FeatureInput(set="fake", output="temporal")}
    with pytest.raises(ConfigError, match="takes vectors"):
        run(labelled_store, tmp_path / "r", config=config.model_copy(update={"features": temporal}))
    assert not (tmp_path / "r").exists()


def test_recipe_with_unknown_key_suggests_the_nearest(labelled_store: Any) -> None:
    labelled_store.recipe.write_text(labelled_store.recipe.read_text().replace("epochs", "epoch"))
    with pytest.raises(ConfigError, match=r"unknown key 'train\.epoch'.*did you mean 'epochs'"):
        pipeline.load_fit_config(labelled_store.recipe)


def test_record_names_no_machine_path(labelled_store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["vqa-train", "fit"])
    run(labelled_store, Path("run"))
    record = json.loads((tmp_path / "run" / runs.RUN_FILE).read_text())
    assert str(tmp_path) not in json.dumps({k: v for k, v in record.items() if k != "run_provenance"})


def test_recipes_that_come_along_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = pipeline.load_fit_config(Path("features"))
    assert [member.name for member in recipe.recipes] == ["mlp", "kernel-ridge", "ridge"]
    with pytest.raises(ConfigError, match="no recipe 'feature'.*did you mean 'features'"):
        pipeline.load_fit_config(Path("feature"))
    with pytest.raises(ConfigError, match="features.yaml"):
        pipeline.load_fit_config(Path("features.yaml"))
    # A file of the name comes first.
    Path("features").write_text("schema: vqa-train/fit/1\nfeatures: {f: {set: mine}}\ntrain: {epochs: 3}\n")
    assert pipeline.load_fit_config(Path("features")).features["f"].set == "mine"
