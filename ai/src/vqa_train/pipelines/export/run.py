"""export: a run's heads as one ONNX file with its sidecar, refused unless torch and onnxruntime agree."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqa_train import __version__
from vqa_train.core.errors import UsageError
from vqa_train.core.files import display_path
from vqa_train.heads.graph import ScoringGraph
from vqa_train.onnx.export import Exported, export_module
from vqa_train.onnx.parity import ParityReport, check_parity, torch_reference
from vqa_train.onnx.runtime import OnnxModel
from vqa_train.pipelines import runs
from vqa_train.pipelines.export.graph import run_graph
from vqa_train.pipelines.export.sidecar import run_sidecar
from vqa_train.registry.facts import Calibration
from vqa_train.registry.sidecar import (
    INTERVAL_KEY,
    SCORES,
    GoldenRows,
    OnnxFile,
    sidecar_path,
    write_sidecar,
)

EXPORT_SCHEMA = "vqa-train/export-report/1"
TOLERANCE = 1e-5
_GOLDEN_ROWS = 8
Rows = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class ExportResult:
    """What `export` wrote, what its graph gives, how many heads are in it, and how well it agrees with torch."""

    path: Path
    sidecar: Path
    sha256: str
    bytes: int
    outputs: tuple[str, ...]
    models: int
    parity: ParityReport

    def to_json(self) -> dict[str, Any]:
        """The report under its versioned schema."""
        return {
            "schema": EXPORT_SCHEMA,
            "onnx": display_path(self.path),
            "sidecar": display_path(self.sidecar),
            "sha256": self.sha256,
            "bytes": self.bytes,
            "outputs": list(self.outputs),
            "models": self.models,
            "parity": self.parity.to_json(),
        }


def export_run(checkpoint: Path, output: Path, *, opset: int = 17) -> ExportResult:
    """Write the heads of a run to `output` (NAME.onnx) and NAME.json beside it.

    The graph has one input per feature, float32 (N, *shape) with a dynamic batch, and outputs of float32
    (N, targets) on the scale of the labels: `scores`; `spread` where several heads are averaged or their outputs state
    one; `low` and `high` where the run has a calibration. All are compared with torch on real rows of the store (kept
    in the run), random rows, extremes and rows with missing values before the file gets its name: a graph that
    disagrees leaves no file.

    Raises:
        UsageError: `output` does not end in .onnx.
        RunError: the run folder is missing, unfinished or was changed, or its heads are not those of its record.
        ModelError: torch and onnxruntime differ by more than 1e-5, or the graph cannot be exported.
    """
    if output.suffix != ".onnx":
        raise UsageError(f"--output {str(output)!r} must end in .onnx")
    record = runs.open_run(checkpoint)
    run = run_graph(checkpoint, record)
    graph, ensemble, calibration, rows, floor = run.graph, run.ensemble, run.calibration, run.rows, run.floor
    names = list(ensemble.inputs)
    candidate = output.with_suffix(".candidate.onnx")
    try:
        exported = _export(graph, calibration, record, candidate, output.stem, opset)
        parity = check_parity(
            torch_reference(graph, names, graph.output_names),
            candidate,
            rows,
            tolerance=TOLERANCE,
            floor=floor,
            missing=True,
            unbounded=run.unbounded,
        )
        # A replay compares graph with graph; on labels of 0 to 100 rounding is as much larger as they are.
        golden = golden_rows(candidate, rows, tolerance=TOLERANCE * max(1.0, *(f.max() for f in floor.values())))
        sidecar = run_sidecar(
            checkpoint,
            record,
            ensemble,
            name=output.stem,
            onnx=OnnxFile(file=output.name, sha256=exported.sha256, bytes=exported.bytes, opset=exported.opset),
            output_names=graph.output_names,
            calibration=calibration,
            parity=parity,
            golden=golden,
        )
        candidate.replace(output)
    finally:
        candidate.unlink(missing_ok=True)
    write_sidecar(sidecar_path(output), sidecar)
    return ExportResult(
        path=output,
        sidecar=sidecar_path(output),
        sha256=exported.sha256,
        bytes=exported.bytes,
        outputs=graph.output_names,
        models=ensemble.models,
        parity=parity,
    )


def golden_rows(path: Path, rows: Rows, *, tolerance: float) -> GoldenRows:
    """A few of the rows, whole ones before those with a missing value, and what the graph says of them."""
    count = len(next(iter(rows.values())))
    whole = np.all([np.isfinite(matrix).reshape(count, -1).all(axis=1) for matrix in rows.values()], axis=0)
    chosen = np.argsort(~whole, kind="stable")[:_GOLDEN_ROWS]
    few = {name: np.where(np.isfinite(m[chosen]), m[chosen], np.float32("nan")) for name, m in rows.items()}
    got = OnnxModel(path, threads=1).run(few)
    others = {name: _numbers(values) for name, values in got.items() if name != SCORES}
    return GoldenRows(
        inputs={name: _numbers(matrix) for name, matrix in few.items()},
        scores=got[SCORES].astype(float).tolist(),
        outputs=others or None,
        tolerance=tolerance,
    )


def _export(
    graph: ScoringGraph, calibration: Calibration | None, record: runs.RunRecord, path: Path, name: str, opset: int
) -> Exported:
    import torch

    inputs = graph.ensemble.inputs
    metadata: dict[str, Any] = {
        "vqa_train.name": name,
        "vqa_train.version": __version__,
        "vqa_train.targets": record.targets,
        "vqa_train.fingerprints": {item.name: item.fingerprint for item in record.inputs},
    }
    if graph.bounded and calibration is not None:
        metadata[INTERVAL_KEY] = calibration.in_graph()
    return export_module(
        graph,
        tuple(torch.zeros(2, *shape) for shape in inputs.values()),
        path,
        input_names=list(inputs),
        output_names=graph.output_names,
        dynamic_axes={name: {0: "batch"} for name in (*inputs, *graph.output_names)},
        opset=opset,
        metadata=metadata,
        fold=False,
    )


def _numbers(matrix: NDArray[Any]) -> list[list[float | None]]:
    flat = matrix.reshape(len(matrix), -1).astype(float).tolist()
    return [[value if np.isfinite(value) else None for value in row] for row in flat]
