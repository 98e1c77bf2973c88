"""The verified backbone graphs of a registered model: frames or a text to features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.errors import ModelError
from vqa_train.core.files import confined
from vqa_train.core.hashing import content_draws, sha256_bytes
from vqa_train.core.types import Clip
from vqa_train.onnx.runtime import CPU, FINGERPRINT_KEY, OnnxModel
from vqa_train.registry.cache import find_cached
from vqa_train.registry.sidecar import ModelInput, TokenizerFile

Features = dict[str, NDArray[np.float32]]

FRAMES, DRAWS = "frames", "draws"


@dataclass(frozen=True)
class ModelFiles:
    """Where a registered model's files are and how its graphs run.

    Attributes:
        model: its name, for messages.
        folder: of the model.
        threads: of each graph.
        providers: onnxruntime's names of execution providers.
        beside: folder of backbones by hash that came with the model, in a bundle.
    """

    model: str
    folder: Path
    threads: int
    providers: Sequence[str] = CPU
    beside: Path | None = None

    def graph(self, item: ModelInput) -> OnnxModel:
        """The backbone graph of an input, verified by hash and by the fingerprint that is embedded in it.

        Raises:
            ModelError: it is missing, changed, or computes other features.
        """
        onnx = item.backbone_onnx
        if onnx is None:
            raise ModelError(f"model input {item.name!r} has no backbone ONNX")
        if onnx.file is not None:
            path = confined(self.folder, onnx.file)
        else:
            path = find_cached(
                onnx.sha256,
                size=onnx.bytes,
                what=f"backbone {item.backbone!r} of model {self.model!r}",
                remedy="copy it there from a machine that has it, or register the model again where the weights are",
                beside=self.beside,
            )
        graph = OnnxModel(path, expected_sha256=onnx.sha256, threads=self.threads, providers=self.providers)
        found = graph.metadata.get(FINGERPRINT_KEY)
        if found != item.fingerprint:
            raise ModelError(
                f"backbone ONNX {str(path)!r} computes features {str(found)[:12]}, "
                f"model input {item.name!r} was fitted on {item.fingerprint[:12]}",
                hint="register the model again",
            )
        return graph

    def tokenizer(self, file: TokenizerFile) -> str:
        """The text of a `tokenizers` file, verified by hash.

        Raises:
            ModelError: it is missing or changed.
        """
        path = confined(self.folder, file.file)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ModelError(f"tokenizer {str(path)!r} cannot be read: {error.strerror}") from error
        found = sha256_bytes(data)
        if found != file.sha256:
            raise ModelError(f"tokenizer {str(path)!r} has sha256 {found[:12]}, expected {file.sha256[:12]}")
        return data.decode("utf-8")


def graph_inputs(graph: OnnxModel, clip: Clip) -> dict[str, NDArray[Any]]:
    """What a backbone's graph takes of a clip: its frames, and the numbers that its content decides.

    Raises:
        ModelError: the graph takes something else.
    """
    unknown = graph.inputs.keys() - {FRAMES, DRAWS}
    if unknown or FRAMES not in graph.inputs:
        raise ModelError(f"backbone ONNX {str(graph.path)!r} takes {sorted(graph.inputs)}, expected {FRAMES!r}")
    inputs: dict[str, NDArray[Any]] = {FRAMES: clip.frames}
    if DRAWS in graph.inputs:
        (count,) = graph.inputs[DRAWS].shape
        if not isinstance(count, int):
            raise ModelError(f"backbone ONNX {str(graph.path)!r} does not say how many {DRAWS!r} it takes")
        inputs[DRAWS] = content_draws(count, "draws", clip.key, clip.view)
    return inputs


class VideoGraph:
    """uint8 (T, H, W, 3) frames of each view to features, averaged over the views."""

    def __init__(self, files: ModelFiles, item: ModelInput) -> None:
        self._graph = files.graph(item)

    @property
    def outputs(self) -> Sequence[str]:
        """Names of the features it gives."""
        return list(self._graph.outputs)

    def features(self, views: Sequence[Clip]) -> dict[str, NDArray[np.float32]]:
        """Features of each view by output name, (views, ...)."""
        rows = [self._graph.run(graph_inputs(self._graph, clip)) for clip in views]
        return {name: np.stack([row[name] for row in rows]).astype(np.float32, copy=False) for name in rows[0]}


def over_views(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean over the first axis; in double precision, as the training table averages views."""
    return np.asarray(features.mean(axis=0, dtype=np.float64), dtype=np.float32)


class TextGraph:
    """A text to its embedding."""

    def __init__(self, files: ModelFiles, item: ModelInput) -> None:
        from tokenizers import Tokenizer

        if item.tokenizer is None:
            raise ModelError(f"model input {item.name!r} has no tokenizer")
        self._tokenizer: Any = Tokenizer.from_str(files.tokenizer(item.tokenizer))
        self._graph = files.graph(item)

    @property
    def outputs(self) -> Sequence[str]:
        """Names of the features it gives."""
        return list(self._graph.outputs)

    def features(self, text: str) -> Features:
        """Features by output name."""
        encoding = self._tokenizer.encode(text)
        arrays = {"input_ids": [encoding.ids], "attention_mask": [encoding.attention_mask]}
        outputs = self._graph.run({name: np.asarray(value, dtype=np.int64) for name, value in arrays.items()})
        return {name: np.asarray(value[0], dtype=np.float32) for name, value in outputs.items()}
