"""The recipe ai/configs/features.yaml, unchanged, on features as they come: NaN, infinity, constants, few rows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy import stats

from vqa_train.core.config import parse
from vqa_train.pipelines.fit.run import FitConfig, fit, load_fit_config
from vqa_train.pipelines.importing.config import ImportConfig
from vqa_train.pipelines.importing.run import import_features
from vqa_train.pipelines.runs import open_run

RECIPE = Path(__file__).parents[2] / "ai" / "configs" / "features.yaml"


def imported(folder: Path, features: np.ndarray, labels: np.ndarray, **options: object) -> FitConfig:
    """The recipe for a store in `folder` that holds these rows, in scenes of four."""
    ids = np.array([f"v{i:04d}" for i in range(len(labels))])
    scenes = np.array([f"scene{i // 4}" for i in range(len(labels))])
    np.savez(folder / "made.npz", video_id=ids, features=features, mos=labels, content_id=scenes)
    import_features(ImportConfig(file=folder / "made.npz", name="made", output=folder / "store", **options))  # type: ignore[arg-type]
    values = load_fit_config(RECIPE).model_dump(mode="json", by_alias=True)
    changes = {"dataset": "made", "features": {"features": {"set": "made"}}, "protocol": "kfold:k=2"}
    return parse(FitConfig, values | changes, str(RECIPE))


def made(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features of many scales, opinion scores that two directions of them explain, and these directions' sum."""
    rng = np.random.default_rng(3)
    latent = rng.normal(size=(rows, 2))
    x = latent @ rng.normal(size=(2, columns)) + rng.normal(size=(rows, columns))
    quality = latent.sum(axis=1)
    return (x * 10.0 ** rng.integers(-6, 7, columns)).astype(np.float32), quality, rng.normal(size=rows)


def test_200_rows_of_4096_columns_with_every_fault_and_dmos(tmp_path: Path) -> None:
    x, quality, noise = made(200, 4096)
    rng = np.random.default_rng(4)
    x[rng.random(x.shape) < 0.01] = np.nan
    x[rng.random(x.shape) < 0.005] = np.inf
    x[rng.random(x.shape) < 0.005] = -np.inf
    x[:, 10:60] = 7.25
    x[:, 60:70] = np.nan
    x[5, 70:90] = 3e38
    dmos = 50 - 12 * quality + 2 * noise
    config = imported(tmp_path, x, dmos, lower_is_better=True)
    result = fit(config, features=tmp_path / "store", output=tmp_path / "run")
    record = open_run(tmp_path / "run")
    assert record.direction == "lower_is_better"
    held = pl.read_parquet(tmp_path / "run" / "heldout.parquet")
    assert len(held) == 200
    predicted, label = held["predicted_mos"].to_numpy(), held["mos"].to_numpy()
    assert np.isfinite(predicted).all()
    assert stats.spearmanr(predicted, label).statistic > 0.9
    assert result.calibration is not None
    entry = result.calibration["targets"]["mos"]
    assert 0 < entry["half_width"] < np.ptp(dmos)
    assert 0.8 < entry["coverage"] <= 1
    every = pl.read_parquet(tmp_path / "run" / "predictions.parquet")
    assert np.isfinite(every["predicted_mos"].to_numpy()).all()


@pytest.mark.parametrize("rows", [24, 60])
def test_few_rows_of_a_dozen_columns(tmp_path: Path, rows: int) -> None:
    x, quality, noise = made(rows, 12)
    config = imported(tmp_path, x, 3 + quality + 0.1 * noise)
    fit(config, features=tmp_path / "store", output=tmp_path / "run")
    held = pl.read_parquet(tmp_path / "run" / "heldout.parquet")
    assert stats.spearmanr(held["predicted_mos"].to_numpy(), held["mos"].to_numpy()).statistic > 0.5


def test_features_that_say_nothing_give_scores_near_the_mean(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    x = np.full((80, 6), 4.0, np.float32)
    labels = 3 + rng.normal(size=80)
    config = imported(tmp_path, x, labels)
    fit(config, features=tmp_path / "store", output=tmp_path / "run")
    held = pl.read_parquet(tmp_path / "run" / "heldout.parquet")
    assert np.abs(held["predicted_mos"].to_numpy() - 3).max() < 0.6
    summary = json.loads((tmp_path / "run" / "protocol.json").read_text())["summary"]["mos"]
    # A constant prediction has no correlation: nothing is made up in its place.
    assert summary["srocc"]["median"] is None
    assert summary["srocc"]["undefined"] == 2
