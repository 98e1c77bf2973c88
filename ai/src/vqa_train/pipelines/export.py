"""export: a run's head as one ONNX file with its sidecar, refused unless torch and onnxruntime agree."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqa_train import __version__
from vqa_train.core.errors import UsageError
from vqa_train.core.files import display_path
from vqa_train.heads.base import Head
from vqa_train.heads.checkpoint import load_head
from vqa_train.onnx.export import Exported, export_module
from vqa_train.onnx.parity import ParityReport, check_parity, torch_reference
from vqa_train.onnx.runtime import OnnxModel
from vqa_train.pipelines import runs
from vqa_train.registry.sidecar import (
    SCORES,
    DatasetRef,
    GoldenRows,
    ModelInput,
    ModelSidecar,
    OnnxFile,
    sidecar_path,
    write_sidecar,
)

EXPORT_SCHEMA = "vqa-train/export-report/1"
TOLERANCE = 1e-5
_GOLDEN_ROWS = 8


@dataclass(frozen=True)
class ExportResult:
    """What `export` wrote and how well the graph agrees with torch."""

    path: Path
    sidecar: Path
    sha256: str
    parity: ParityReport

    def to_json(self) -> dict[str, Any]:
        """The report under its versioned schema."""
        return {
            "schema": EXPORT_SCHEMA,
            "onnx": display_path(self.path),
            "sidecar": display_path(self.sidecar),
            "sha256": self.sha256,
            "parity": self.parity.to_json(),
        }


def export_run(checkpoint: Path, output: Path, *, opset: int = 17) -> ExportResult:
    """Write the head of a run to `output` (NAME.onnx) and NAME.json beside it.

    The graph has one input per feature, float32 (N, D) with a dynamic batch, and one output `scores`,
    float32 (N, targets), on the scale of the labels. It is compared with torch on real rows of the store (kept in
    the run), random rows and extremes before it gets its name: a graph that disagrees leaves no file.

    Raises:
        UsageError: `output` does not end in .onnx.
        RunError: the run folder is missing, unfinished or was changed.
        ModelError: torch and onnxruntime differ by more than 1e-5, or the graph cannot be exported.
    """
    if output.suffix != ".onnx":
        raise UsageError(f"--output {str(output)!r} must end in .onnx")
    record = runs.open_run(checkpoint)
    module, _ = load_head(checkpoint / runs.HEAD_FILE)
    rows = _read_rows(checkpoint / runs.ROWS_FILE)
    names = [item.name for item in record.inputs]
    candidate = output.with_suffix(".candidate.onnx")
    try:
        exported = _export(module, record, candidate, output.stem, opset)
        parity = check_parity(torch_reference(module, names), candidate, rows, tolerance=TOLERANCE)
        golden = _golden_rows(candidate, rows)
        candidate.replace(output)
    finally:
        candidate.unlink(missing_ok=True)
    file = OnnxFile(file=output.name, sha256=exported.sha256, bytes=exported.bytes, opset=exported.opset)
    write_sidecar(sidecar_path(output), _sidecar(record, output.stem, file, parity, golden))
    return ExportResult(output, sidecar_path(output), exported.sha256, parity)


def _export(module: Head, record: runs.RunRecord, path: Path, name: str, opset: int) -> Exported:
    import torch

    names = [item.name for item in record.inputs]
    return export_module(
        module,
        tuple(torch.zeros(2, item.dim) for item in record.inputs),
        path,
        input_names=names,
        output_names=[SCORES],
        dynamic_axes={**{n: {0: "batch"} for n in names}, SCORES: {0: "batch"}},
        opset=opset,
        metadata={
            "vqa_train.name": name,
            "vqa_train.version": __version__,
            "vqa_train.targets": record.targets,
            "vqa_train.fingerprints": {item.name: item.fingerprint for item in record.inputs},
        },
    )


def _read_rows(path: Path) -> dict[str, NDArray[np.float32]]:
    from safetensors.numpy import load_file

    rows: dict[str, NDArray[np.float32]] = load_file(path)
    return rows


def _golden_rows(path: Path, rows: dict[str, NDArray[np.float32]]) -> GoldenRows:
    few = {name: matrix[:_GOLDEN_ROWS] for name, matrix in rows.items()}
    scores = OnnxModel(path, threads=1).run(few)[SCORES]
    return GoldenRows(
        inputs={n: m.astype(float).tolist() for n, m in few.items()}, scores=scores.astype(float).tolist()
    )


def _sidecar(
    record: runs.RunRecord, name: str, file: OnnxFile, parity: ParityReport, golden: GoldenRows
) -> ModelSidecar:
    return ModelSidecar(
        name=name,
        onnx=file,
        inputs=[
            ModelInput(
                name=item.name,
                modality=item.spec["modality"],
                backbone=item.spec["backbone"],
                fingerprint=item.fingerprint,
                output=item.output,
                dim=item.dim,
                spec=item.spec,
                license=item.license,
            )
            for item in record.inputs
        ],
        targets=record.targets,
        input_normalization=(
            f"inside the graph: training rows' mean and standard deviation per column, clipped at "
            f"+-{record.config['train']['head']['clip_sd']:g} standard deviations, NaN and infinity as the mean"
        ),
        expected_output_range=record.expected_output_range,
        direction=record.direction,
        mos_range=record.mos_range,
        dataset=DatasetRef(**record.dataset),
        train_config_hash=record.config_sha256,
        inherited_licenses={
            f"dataset {record.dataset['name']}": record.dataset_license,
            **{f"features {item.spec['backbone']}": item.license for item in record.inputs},
        },
        descends_from_random_weights=any(item.spec["weights"]["random_seed"] is not None for item in record.inputs),
        parity=parity.to_json(),
        golden_rows=golden,
        run_provenance=record.run_provenance,
    )
