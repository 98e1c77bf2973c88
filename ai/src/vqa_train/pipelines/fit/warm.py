"""Warm start: the heads of an earlier run as the first weights of this one's final model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from vqa_train.core.errors import ConfigError
from vqa_train.heads.base import Head
from vqa_train.heads.checkpoint import load_ensemble
from vqa_train.pipelines import runs
from vqa_train.pipelines.fit.config import FitConfig, seeds_of
from vqa_train.pipelines.fit.data import FitData


def warm_start(folder: Path, data: FitData, config: FitConfig) -> list[Head]:
    """One head per member and seed, of a run with as many. The folds of a protocol never start from it.

    Raises:
        RunError: the run folder is missing or was changed.
        ConfigError: it has another number of heads, or was trained on videos that this run keeps for testing.
    """
    record = runs.open_run(folder)
    ensemble, _ = load_ensemble(folder / runs.HEAD_FILE)
    heads = [head.select([number]) for head in ensemble.heads for number in range(head.models)]
    wanted = sum(len(seeds_of(member.train, config.seeds)) for member in config.recipes)
    if len(heads) != wanted:
        raise ConfigError(
            f"run {str(folder)!r} has {len(heads)} heads, this recipe has {wanted}",
            hint="start from a run with the same members and seeds",
        )
    if list(record.targets) != list(data.table.target_names):
        raise ConfigError(
            f"run {str(folder)!r} has targets {', '.join(record.targets)}, this recipe "
            f"{', '.join(data.table.target_names)}"
        )
    seen = pl.read_parquet(folder / runs.PREDICTIONS_FILE, columns=["video_sha256", "split"])
    trained = set(seen.filter(pl.col("split").is_in(["train", "val"]))["video_sha256"])
    tested = {data.table.videos[row].sha256 for row in np.flatnonzero(data.splits == "test").tolist()}
    if trained & tested:
        raise ConfigError(
            f"run {str(folder)!r} was trained on {len(trained & tested)} videos that this run keeps for testing",
            hint="start from a run with the same splits, or of other datasets",
        )
    return heads
