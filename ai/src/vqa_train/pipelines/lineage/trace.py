"""lineage: follows a model back to its run, feature sets, shards, videos and weights, and checks what is at hand."""

from __future__ import annotations

from vqa_train.pipelines.lineage.config import LineageConfig
from vqa_train.pipelines.lineage.data import Datasets, trace_datasets
from vqa_train.pipelines.lineage.graph import Lineage
from vqa_train.pipelines.lineage.model import trace_model
from vqa_train.pipelines.lineage.run import TracedRun, trace_run
from vqa_train.pipelines.lineage.store import trace_store
from vqa_train.pipelines.lineage.videos import check_files, trace_videos

__all__ = ["LineageConfig", "trace"]


def trace(config: LineageConfig) -> Lineage:
    """Everything that the model descends from.

    Nothing is claimed that was not checked: a node is `verified` where its bytes were read in this call and are those
    that were recorded, and `not_looked_for` where nothing was given to look in.

    Raises:
        ModelError, UsageError, ConfigError: the model itself cannot be opened: what its sidecar says cannot be trusted.
        StoreError: `features` is not a feature store.
    """
    traced = trace_model(config)
    lineage, sidecar = traced.lineage, traced.sidecar
    run: TracedRun = trace_run(lineage, traced, config)
    datasets: Datasets = trace_datasets(lineage, run.node, sidecar, run.block, config)
    if run.predictions is not None:
        trace_videos(lineage, run, datasets)
    if config.features is not None:
        trace_store(lineage, sidecar, run, config.features)
    if config.content:
        check_files(lineage, datasets)
    return lineage
