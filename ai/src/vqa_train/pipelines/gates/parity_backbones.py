"""Made inputs for the graph of a registered backbone: clips of several sizes, or sentences through its tokenizer."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.errors import ModelError
from vqa_train.core.files import confined
from vqa_train.core.hashing import seed_from, sha256_bytes
from vqa_train.onnx.probes import SENTENCES, probe_clip
from vqa_train.onnx.runtime import FINGERPRINT_KEY, OnnxModel
from vqa_train.pipelines.gates.model import GateModel
from vqa_train.pipelines.score.graphs import FRAMES, graph_inputs
from vqa_train.registry.sidecar import ModelInput

_SIZES = ((144, 192), (241, 387), (192, 128))


def backbone_probes(found: GateModel, item: ModelInput, graph: OnnxModel) -> list[dict[str, NDArray[Any]]]:
    """Inputs by name, one per probe.

    Raises:
        ModelError: the graph computes other features or takes other inputs than it should, or its tokenizer is missing
            or changed.
    """
    fingerprint = graph.metadata.get(FINGERPRINT_KEY)
    if fingerprint != item.fingerprint:
        raise ModelError(
            f"backbone ONNX {str(graph.path)!r} computes features {str(fingerprint)[:12]}, model input {item.name!r} "
            f"was fitted on {item.fingerprint[:12]}"
        )
    return _sentences(found, item) if item.modality == "text" else _clips(item, graph)


def _clips(item: ModelInput, graph: OnnxModel) -> list[dict[str, NDArray[Any]]]:
    spec = item.feature_spec()
    if FRAMES not in graph.inputs:
        raise ModelError(f"backbone ONNX {str(graph.path)!r} takes {sorted(graph.inputs)}, expected {FRAMES!r}")
    count, height, width, _ = graph.inputs[FRAMES].shape
    if not isinstance(count, int):
        if spec.sampling is None:
            raise ModelError(f"feature spec of model input {item.name!r} has no sampling")
        count = spec.sampling.num_frames
    fixed = isinstance(height, int) and isinstance(width, int)
    sizes = [(int(height or 0), int(width or 0))] * len(_SIZES) if fixed else list(_SIZES)
    clips = [
        probe_clip(count, high, wide, seed_from("probe", item.fingerprint, i)) for i, (high, wide) in enumerate(sizes)
    ]
    return [graph_inputs(graph, clip) for clip in clips]


def _sentences(found: GateModel, item: ModelInput) -> list[dict[str, NDArray[Any]]]:
    from tokenizers import Tokenizer

    if item.tokenizer is None:
        raise ModelError(f"model input {item.name!r} has no tokenizer")
    path = confined(found.head.parent, item.tokenizer.file)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"tokenizer {str(path)!r} cannot be read: {error.strerror}") from error
    digest = sha256_bytes(data)
    if digest != item.tokenizer.sha256:
        raise ModelError(f"tokenizer {str(path)!r} has sha256 {digest[:12]}, expected {item.tokenizer.sha256[:12]}")
    tokenizer: Any = Tokenizer.from_str(data.decode("utf-8"))
    rows = [tokenizer.encode(text) for text in SENTENCES]
    return [
        {
            "input_ids": np.asarray([row.ids], dtype=np.int64),
            "attention_mask": np.asarray([row.attention_mask], dtype=np.int64),
        }
        for row in rows
    ]
