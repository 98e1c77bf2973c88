"""score: a video to its scores with onnxruntime alone: decode, backbone ONNX, head ONNX, every hash verified."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vqa_train.core.errors import ModelError, Reason, UsageError, VqaError
from vqa_train.core.files import confined
from vqa_train.core.hashing import sha256_file
from vqa_train.onnx.runtime import OnnxModel
from vqa_train.pipelines.score_graphs import Features, ModelFiles, TextGraph, VideoGraph
from vqa_train.registry.cache import ready_models
from vqa_train.registry.registry import ModelRegistry
from vqa_train.registry.sidecar import SCORES, Direction, ModelInput, ModelSidecar


@dataclass(frozen=True, kw_only=True)
class ScoreRequest:
    """One video to score, with its prompt where the model takes one."""

    video: Path
    prompt: str | None = None


@dataclass(frozen=True, kw_only=True)
class Score:
    """What a model says of one video.

    Attributes:
        video: the path as it was given.
        prompt: the text that went into the score, None for a model that takes none.
        scores: target -> score on the scale of `mos_range`.
        mos_range: target -> lowest and highest label of the dataset's scale; scores may lie a little outside.
        expected_range: target -> range of scores to expect; one outside says that the video is unlike those that
            the model was fitted on.
        direction: "higher_is_better" or "lower_is_better".
        model, model_sha256: name of the model and hash of its head's ONNX file.
    """

    video: str
    prompt: str | None
    scores: Mapping[str, float]
    mos_range: Mapping[str, tuple[float, float]]
    expected_range: Mapping[str, tuple[float, float]]
    direction: Direction
    model: str
    model_sha256: str

    @property
    def outside_expected(self) -> tuple[str, ...]:
        """Targets whose score lies outside `expected_range`."""
        ranges = self.expected_range
        return tuple(t for t, score in self.scores.items() if not ranges[t][0] <= score <= ranges[t][1])


@dataclass(frozen=True, kw_only=True)
class ScoreFailure:
    """Why one video has no score: a reason code and one line."""

    video: str
    prompt: str | None
    reason: Reason
    message: str


class Scorer:
    """A registered model, ready to score videos; imports no torch.

    Opening verifies everything that a score depends on: the sidecar against the registry, head, backbones and
    tokenizers against the sidecar's hashes, the feature specs against their fingerprints, and the fingerprint
    that is embedded in each backbone's graph.

    Args:
        model: name of a registered model, or the path of its folder (then `registry` is the folder around it), or
            name of a ready-made scorer that was made on this machine.
        registry: the folder that holds registry.json.
        threads: for decoding and for each graph; 0 takes all cores.
        decoder: registry name.

    Attributes:
        sidecar: everything that is known of the model.

    Raises:
        ModelError: no such model, or anything of it is missing or differs from what it claims.
        UsageError: a full-reference model.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        registry: Path = Path("model"),
        threads: int = 0,
        decoder: str = "pyav",
    ) -> None:
        place = Path(model)
        if isinstance(model, Path) or len(place.parts) > 1:
            registry = place.parent
        self.sidecar, folder = _find(place.name, registry)
        if self.sidecar.kind != "nr":
            raise UsageError(
                f"model {self.sidecar.name!r} is full-reference", hint="only no-reference models score alone"
            )
        self._threads, self._decoder = threads, decoder
        head = confined(folder, self.sidecar.onnx.file)
        self._head = OnnxModel(head, expected_sha256=self.sidecar.onnx.sha256, threads=threads)
        check_head(self._head, self.sidecar)
        self._videos: dict[str, VideoGraph] = {}
        self._texts: dict[str, TextGraph] = {}
        files = ModelFiles(self.sidecar.name, folder, threads)
        for item in self.sidecar.inputs:
            self._add_graph(item, files)

    def _add_graph(self, item: ModelInput, files: ModelFiles) -> None:
        """Open the backbone of an input, once for all inputs that take features of it."""
        spec = item.feature_spec()
        graph: VideoGraph | TextGraph
        if item.modality == "video":
            if item.fingerprint not in self._videos:
                self._videos[item.fingerprint] = VideoGraph(files, item, spec)
            graph = self._videos[item.fingerprint]
        else:
            if item.fingerprint not in self._texts:
                self._texts[item.fingerprint] = TextGraph(files, item)
            graph = self._texts[item.fingerprint]
        if item.output not in graph.outputs:
            raise ModelError(
                f"the backbone ONNX of model input {item.name!r} gives {sorted(graph.outputs)}, not {item.output!r}"
            )

    @property
    def takes_prompt(self) -> bool:
        """Whether every video needs a prompt."""
        return self.sidecar.takes_prompt

    def score(self, video: str | Path, prompt: str | None = None) -> Score:
        """Decode a video and score it.

        Args:
            video: the file.
            prompt: the text it was made from; needed by a model that takes one and ignored by one that does not.

        Raises:
            MediaError: the video cannot be read; `reason` says why.
            UsageError: the model takes a prompt and got none.
            ModelError: a graph failed or gave a NaN or infinity.
        """
        used = self._check_prompt(prompt)
        features = self._video_features(Path(video))
        for fingerprint, encoder in self._texts.items():
            features[fingerprint] = encoder.features(used or "")
        rows = {i.name: features[i.fingerprint][i.output][None].astype(np.float32) for i in self.sidecar.inputs}
        for name, row in rows.items():
            if not np.isfinite(row).all():
                raise ModelError(f"{str(video)!r}: NaN or infinity in feature {name!r}", reason=Reason.NON_FINITE)
        values = self._head.run(rows)[SCORES][0]
        if not np.isfinite(values).all():
            raise ModelError(f"{str(video)!r}: model {self.sidecar.name!r} gave {values}", reason=Reason.NON_FINITE)
        return Score(
            video=str(video),
            prompt=used,
            scores={target: float(value) for target, value in zip(self.sidecar.targets, values, strict=True)},
            mos_range=self.sidecar.mos_range,
            expected_range=self.sidecar.expected_output_range,
            direction=self.sidecar.direction,
            model=self.sidecar.name,
            model_sha256=self._head.sha256,
        )

    def score_many(self, requests: Iterable[ScoreRequest | str | Path]) -> Iterator[Score | ScoreFailure]:
        """Score videos one after the other, in order; one that fails is a record, and the rest go on."""
        for item in requests:
            request = item if isinstance(item, ScoreRequest) else ScoreRequest(video=Path(item))
            try:
                yield self.score(request.video, request.prompt)
            except VqaError as error:
                reason = error.reason or Reason.BACKBONE_ERROR
                yield ScoreFailure(video=str(request.video), prompt=request.prompt, reason=reason, message=str(error))

    def _check_prompt(self, prompt: str | None) -> str | None:
        if not self.takes_prompt:
            return None
        if prompt is None or not prompt.strip():
            raise UsageError(
                f"model {self.sidecar.name!r} takes a prompt and got none",
                hint="give the text that the video was made from with --prompt or in the list",
                reason=Reason.NO_PROMPT,
            )
        return prompt

    def _video_features(self, video: Path) -> dict[str, Features]:
        """Features by fingerprint and output, averaged over views; the file is decoded once."""
        if not self._videos:
            return {}
        from vqa_train.video.decode import read_clips

        samplings = [graph.sampling for graph in self._videos.values()]
        key = _key(video) if any(graph.needs_key for graph in self._videos.values()) else ""
        clips = read_clips(video, samplings, decoder=self._decoder, threads=self._threads, key=key)
        return {f: graph.features(views) for (f, graph), views in zip(self._videos.items(), clips, strict=True)}


def _find(name: str, registry: Path) -> tuple[ModelSidecar, Path]:
    """The model of the registry, or else the ready-made scorer of that name."""
    ready = ModelRegistry(ready_models())
    if name not in ModelRegistry(registry).models() and name in ready.models():
        return ready.find(name)
    return ModelRegistry(registry).find(name)


def _key(video: Path) -> str:
    from vqa_train.video.container import check_file

    check_file(video)
    return sha256_file(video)


def check_head(head: OnnxModel, sidecar: ModelSidecar) -> None:
    """Whether a head's graph is what its sidecar says: input names and dimensions, output, targets, opset.

    Raises:
        ModelError: names the first difference.
    """
    pairs: list[tuple[str, Any, Any]] = [
        ("inputs", sorted(item.name for item in sidecar.inputs), sorted(head.inputs)),
        ("outputs", [SCORES], list(head.outputs)),
        ("output names in the sidecar", [SCORES], sidecar.output_names),
        ("opset", sidecar.onnx.opset, head.opset),
    ]
    for item in sidecar.inputs:
        if item.name in head.inputs:
            pairs.append((f"dimensions of input {item.name!r}", [item.dim], list(head.inputs[item.name].shape[1:])))
    if SCORES in head.outputs:
        width = head.outputs[SCORES].shape[-1]
        if isinstance(width, int):
            pairs.append(("number of targets", len(sidecar.targets), width))
    for what, claimed, found in pairs:
        if claimed != found:
            raise ModelError(
                f"model {sidecar.name!r}: its sidecar says {what} {claimed}, the graph {str(head.path)!r} has {found}",
                hint="sidecar and graph do not belong together; export again",
            )
