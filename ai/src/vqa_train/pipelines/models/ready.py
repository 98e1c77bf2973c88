"""Ready-made scorers: a backbone that was trained to score becomes a registered model without any training of ours."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.errors import ModelError, UsageError
from vqa_train.core.hashing import seed_from, sha256_json
from vqa_train.core.provenance import RunProvenance
from vqa_train.onnx.export import export_module
from vqa_train.onnx.parity import check_parity, torch_reference
from vqa_train.onnx.probes import probe_clip
from vqa_train.onnx.runtime import OnnxModel
from vqa_train.pipelines.export.backbone import export_extractor
from vqa_train.pipelines.models.publish import publish
from vqa_train.pipelines.models.register import pack_backbone, write_description
from vqa_train.registry.cache import ready_models
from vqa_train.registry.registry import ModelRegistry
from vqa_train.registry.sidecar import (
    HEAD_FILE,
    SCORES,
    DatasetRef,
    GoldenRows,
    ModelInput,
    ModelSidecar,
    OnnxFile,
)

if TYPE_CHECKING:
    from vqa_train.backbones.base import Readout, VideoBackbone

_ROWS = 3
_TOLERANCE = 1e-5


def make_ready(
    name: str,
    *,
    weights: Path | None = None,
    random_weights: int | None = None,
    opset: int = 17,
    log: Callable[[str], None] = lambda _: None,
) -> ModelSidecar:
    """Export a backbone that has scores of its own and register it under its name in the cache.

    Args:
        name: registry name, without settings: a scorer is the published one.
        weights: file or folder to take them from; None as the weights manifest says.
        random_weights: refused, as `register` refuses them.
        opset: ONNX operator set.
        log: told what was written where.

    Raises:
        UsageError: a name with settings, a backbone that has no scores, random weights.
        WeightsError: the weights are missing or wrong.
        ModelError: a graph differs from its module.
        OSError: the cache cannot be written.
    """
    from vqa_train.backbones.build import build_backbone, split_name

    if split_name(name)[1]:
        raise UsageError(f"a ready-made scorer has no settings, got {name!r}", hint="fit a head for other settings")
    if random_weights is not None:
        raise UsageError("random weights make no scorer", hint="leave --random-weights out")
    backbone = build_backbone(name, weights=weights)
    readout = backbone.readout()
    if readout is None:
        raise UsageError(f"backbone {name!r} gives features, no scores", hint="fit a head on them")
    if backbone.spec.random_seed is not None:
        raise ModelError(f"backbone {name!r} has random weights, so its scores mean nothing")
    registry = ModelRegistry(ready_models())
    staging = registry.root / f".{name}.{uuid.uuid4().hex[:8]}.staging"
    try:
        staging.mkdir(parents=True)
        sidecar = _write(backbone, readout, staging, opset, log)
        return publish(registry, staging, sidecar, overwrite=True)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _write(
    backbone: VideoBackbone, readout: Readout, staging: Path, opset: int, log: Callable[[str], None]
) -> ModelSidecar:
    """Everything of the model's folder; the sidecar."""
    import torch

    spec = backbone.spec
    label = f"{spec.backbone}@{spec.fingerprint[:12]}"
    exported = export_extractor(backbone, staging / "backbones" / f"{label}.onnx", opset=opset)
    packed = pack_backbone(exported, label, staging, log)
    head = export_module(
        readout.module,
        tuple(torch.zeros(2, *spec.output(output).shape) for output in readout.outputs),
        staging / HEAD_FILE,
        input_names=list(readout.outputs),
        output_names=[SCORES],
        dynamic_axes={**{output: {0: "batch"} for output in readout.outputs}, SCORES: {0: "batch"}},
        opset=opset,
        metadata={
            "vqa_train.name": spec.backbone,
            "vqa_train.targets": list(readout.targets),
            "vqa_train.fingerprints": dict.fromkeys(readout.outputs, spec.fingerprint),
        },
    )
    rows = _rows(backbone, readout)
    parity = check_parity(
        torch_reference(readout.module, readout.outputs), staging / HEAD_FILE, rows, tolerance=_TOLERANCE
    )
    scores = OnnxModel(staging / HEAD_FILE, threads=1).run(rows)[SCORES]
    bounds = dict.fromkeys(readout.targets, readout.range)
    sidecar = ModelSidecar(
        name=spec.backbone,
        registered=True,
        kind="nr",
        onnx=OnnxFile(file=HEAD_FILE, sha256=head.sha256, bytes=head.bytes, opset=head.opset),
        inputs=[
            ModelInput(
                name=output,
                modality="video",
                backbone=spec.backbone,
                fingerprint=spec.fingerprint,
                output=output,
                dim=spec.output(output).shape[0],
                spec=spec.to_json(),
                license=backbone.license,
                **packed,
            )
            for output in readout.outputs
        ],
        targets=list(readout.targets),
        input_normalization=f"none: {readout.formula}",
        expected_output_range=bounds,
        direction="higher_is_better",
        mos_range=bounds,
        dataset=DatasetRef(name=readout.trained_on),
        train_commit="unknown",
        train_config_hash=sha256_json(spec.to_json()),
        license=backbone.license,
        inherited_licenses={f"weights {spec.backbone}": backbone.license},
        descends_from_random_weights=False,
        parity=parity.to_json(),
        golden_rows=GoldenRows(
            inputs={n: m.astype(float).tolist() for n, m in rows.items()}, scores=scores.astype(float).tolist()
        ),
        run_provenance=RunProvenance(entrypoint="export-backbone", config={"ready": spec.backbone}).to_json(),
    )
    return write_description(staging, sidecar)


def _rows(backbone: VideoBackbone, readout: Readout) -> dict[str, NDArray[np.float32]]:
    """What the backbone says of a few made clips."""
    spec = backbone.spec
    count = spec.sampling.num_frames if spec.sampling else 1
    clips = [probe_clip(count, 256, 288, seed_from("ready", spec.fingerprint, i)) for i in range(_ROWS)]
    found = [backbone.extract([clip])[0] for clip in clips]
    return {output: np.stack([row[output] for row in found]) for output in readout.outputs}
