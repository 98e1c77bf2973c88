"""export-backbone: a backbone's ONNX file, what lies beside it, and a manifest that names every hash."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vqa_train.backbones import TEXT_ENCODERS
from vqa_train.core.errors import UsageError
from vqa_train.core.files import atomic_write_bytes, atomic_write_json
from vqa_train.core.hashing import sha256_file
from vqa_train.core.types import Clip
from vqa_train.pipelines.export.backbone import TOLERANCE, export_extractor

if TYPE_CHECKING:
    from vqa_train.backbones.base import TextEncoder, VideoBackbone

MANIFEST_SCHEMA = "vqa-train/backbone-onnx/1"


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Where the weights come from and the ONNX operator set."""

    weights: Path | None = None
    random_weights: int | None = None
    opset: int = 17


def export_to_folder(name: str, path: Path, options: ExportOptions, *, videos: Sequence[Path] = ()) -> dict[str, Any]:
    """Export the backbone or text encoder `name` to `path` and write the manifest `<path without suffix>.json`.

    Args:
        name: `NAME[:SETTING=VALUE,...]`.
        path: of the ONNX file.
        options: weights and operator set.
        videos: files to compare graph and module on, beside made clips.

    Returns:
        The manifest: backbone, spec, fingerprint, licence, inputs, and each file's sha256 and bytes.

    Raises:
        UsageError: an unknown name or setting, a path that is no .onnx file, videos for a text encoder.
        WeightsError: the weights are missing or wrong.
        ModelError: graph and module differ.
        MediaError: one of `videos` cannot be read.
    """
    from vqa_train.backbones.build import build_backbone, build_text_encoder, split_name

    if path.suffix != ".onnx":
        raise UsageError(f"--output {str(path)!r} must end in .onnx")
    extractor: VideoBackbone | TextEncoder
    clips: list[Clip] = []
    if split_name(name)[0] in TEXT_ENCODERS:
        if videos or options.random_weights is not None:
            raise UsageError(f"text encoder {name!r} takes no videos and no random weights")
        extractor = build_text_encoder(name, weights=options.weights)
    else:
        extractor = build_backbone(name, weights=options.weights, random_weights=options.random_weights)
        clips = [clip for video in videos for clip in _clips(extractor, video)]
    staging = path.parent / f".{path.stem}.{uuid.uuid4().hex[:8]}.staging"
    try:
        staging.mkdir(parents=True)
        exported = export_extractor(extractor, staging / path.name, opset=options.opset, clips=clips)
        if exported.tokenizer is not None:
            atomic_write_bytes(staging / f"{path.stem}.tokenizer.json", exported.tokenizer)
        # The graph last: where it is, all that it names is.
        made = sorted(staging.iterdir(), key=lambda file: file.suffix == ".onnx")
        files = [file.replace(path.parent / file.name) for file in made]
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    manifest = {
        "schema": MANIFEST_SCHEMA,
        "backbone": extractor.spec.backbone,
        "fingerprint": extractor.spec.fingerprint,
        "spec": extractor.spec.to_json(),
        "license": extractor.license,
        "opset": exported.onnx.opset,
        "inputs": {key: list(value) for key, value in exported.inputs.items()},
        "max_tokens": exported.max_tokens,
        "parity": {"tolerance": TOLERANCE, "videos": len(videos)},
        "files": {file.name: {"sha256": sha256_file(file), "bytes": file.stat().st_size} for file in files},
    }
    atomic_write_json(path.with_suffix(".json"), manifest)
    return manifest


def _clips(backbone: VideoBackbone, video: Path) -> list[Clip]:
    from vqa_train.video.decode import read_clips

    if backbone.spec.sampling is None:
        return []
    return read_clips(video, [backbone.spec.sampling], key=sha256_file(video))[0]
