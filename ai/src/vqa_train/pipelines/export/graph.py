"""What a run's ONNX file must compute: its heads as a torch module, real rows, and what differences are measured
against."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.config import parse
from vqa_train.heads.checkpoint import load_ensemble
from vqa_train.heads.ensemble import Ensemble
from vqa_train.heads.graph import ScoringGraph
from vqa_train.pipelines import runs
from vqa_train.registry.facts import Calibration
from vqa_train.registry.sidecar import HIGH, LOW, SCORES, SPREAD

Rows = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class RunGraph:
    """A run's heads, ready to be exported or compared with.

    Attributes:
        graph: in inference mode, on the CPU.
        calibration: of the run's intervals, None without any.
        rows: input name -> float32 (N, *shape), real rows of the store that the run kept.
        floor: output name -> (K,): what differences count against, the labels' deviation, times what an interval
            multiplies.
        unbounded: outputs that may be infinite.
    """

    graph: ScoringGraph
    calibration: Calibration | None
    rows: Rows
    floor: dict[str, NDArray[Any]]
    unbounded: tuple[str, ...]

    @property
    def ensemble(self) -> Ensemble:
        """The heads."""
        return self.graph.ensemble


def run_graph(checkpoint: Path, record: runs.RunRecord) -> RunGraph:
    """The graph of an opened run.

    Raises:
        WeightsError: the heads are malformed.
        ConfigError: the run's calibration does not follow its schema.
    """
    ensemble, _ = load_ensemble(checkpoint / runs.HEAD_FILE)
    calibration = _calibration(record)
    graph = ScoringGraph(
        ensemble,
        calibration.half_widths if calibration else None,
        normalised=calibration is not None and calibration.normalised,
    ).eval()
    return RunGraph(
        graph=graph,
        calibration=calibration,
        rows=read_rows(checkpoint),
        floor=_floor(ensemble, calibration),
        unbounded=(LOW, HIGH) if bool(graph.beyond.any()) else (),
    )


def _calibration(record: runs.RunRecord) -> Calibration | None:
    if record.calibration is None:
        return None
    value = {key: entry for key, entry in record.calibration.items() if key != "schema"}
    return parse(Calibration, value, "the run's calibration")


def _floor(ensemble: Ensemble, calibration: Calibration | None) -> dict[str, NDArray[Any]]:
    import torch

    deviation = torch.cat([head.target_std for head in ensemble.heads]).amax(dim=0).double().numpy()
    widest = np.ones(len(ensemble.targets))
    if calibration is not None and calibration.normalised:
        widest += [calibration.half_widths.get(target, 0.0) for target in ensemble.targets]
    return {SCORES: deviation, SPREAD: deviation, LOW: deviation * widest, HIGH: deviation * widest}


def read_rows(checkpoint: Path) -> Rows:
    """Real rows of the store that a run kept: input name -> float32 (N, *shape)."""
    from safetensors.numpy import load_file

    return {name: np.asarray(matrix, np.float32) for name, matrix in load_file(checkpoint / runs.ROWS_FILE).items()}
