"""score: a video to its scores with onnxruntime alone: decode, backbone ONNX, head ONNX, every hash verified."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.errors import MediaError, ModelError, Reason, UsageError, VqaError
from vqa_train.core.files import confined
from vqa_train.core.hashing import sha256_file
from vqa_train.onnx.runtime import OnnxModel
from vqa_train.pipelines.check_head import check_head
from vqa_train.pipelines.score_graphs import Features, ModelFiles, TextGraph, VideoGraph
from vqa_train.registry.cache import ready_models
from vqa_train.registry.registry import ModelRegistry
from vqa_train.registry.sidecar import HIGH, LOW, SCORES, SPREAD, Direction, ModelInput, ModelSidecar

if TYPE_CHECKING:
    from vqa_train.core.types import Clip
    from vqa_train.video.steady import SteadyDecoder


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
        prompt: the text that went into the score, None for a model that takes none and where none was given.
        scores: target -> score on the scale of `mos_range`.
        spread: target -> standard deviation of what the model's heads say, on the same scale; None where the model
            states none.
        interval: target -> lowest and highest label to expect at `level`; None where the model has no interval, or
            an input is missing.
        level: share of new labels that the intervals are to hold; None without intervals.
        missing: inputs of the model that were absent, counted as what is usual in training.
        mos_range: target -> lowest and highest label of the dataset's scale; scores may lie a little outside.
        expected_range: target -> range of scores to expect; one outside says that the video is unlike those that
            the model was fitted on.
        direction: "higher_is_better" or "lower_is_better".
        model, model_sha256: name of the model and hash of its head's ONNX file.
    """

    video: str
    prompt: str | None
    scores: Mapping[str, float]
    spread: Mapping[str, float | None]
    interval: Mapping[str, tuple[float, float] | None]
    level: float | None
    missing: tuple[str, ...]
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
        isolated: decode in a process of its own, which a broken file may crash; it stays until `close`.

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
        isolated: bool = False,
    ) -> None:
        place = Path(model)
        if isinstance(model, Path) or len(place.parts) > 1:
            registry = place.parent
        self.sidecar, folder = _find(place.name, registry)
        if self.sidecar.kind != "nr":
            raise UsageError(
                f"model {self.sidecar.name!r} is full-reference", hint="only no-reference models score alone"
            )
        self._threads, self._decoder, self._isolated = threads, decoder, isolated
        self._steady: SteadyDecoder | None = None
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
        """Whether a prompt goes into the scores."""
        return self.sidecar.takes_prompt

    @property
    def needs_prompt(self) -> bool:
        """Whether no video can be scored without one."""
        return self.sidecar.needs_prompt

    def score(self, video: str | Path, prompt: str | None = None) -> Score:
        """Decode a video and score it.

        Args:
            video: the file.
            prompt: the text it was made from; needed by a model that takes one, unless its heads were trained to do
                without (`needs_prompt`), and ignored by one that does not.

        Raises:
            MediaError: the video cannot be read; `reason` says why.
            UsageError: the model needs a prompt and got none.
            ModelError: a graph failed or gave a NaN or infinity.
        """
        used = self._check_prompt(prompt)
        features = self._video_features(Path(video))
        if used is not None:
            features |= {fingerprint: encoder.features(used) for fingerprint, encoder in self._texts.items()}
        rows, missing = {}, []
        for item in self.sidecar.inputs:
            if item.fingerprint in features:
                row = features[item.fingerprint][item.output][None].astype(np.float32)
                if not np.isfinite(row).all():
                    raise ModelError(
                        f"{str(video)!r}: NaN or infinity in feature {item.name!r}", reason=Reason.NON_FINITE
                    )
            else:
                missing.append(item.name)
                row = np.full((1, *item.dims), np.nan, dtype=np.float32)
            rows[item.name] = row
        return self._score(str(video), used, tuple(missing), {k: v[0] for k, v in self._head.run(rows).items()})

    def _score(
        self, video: str, prompt: str | None, missing: tuple[str, ...], outputs: Mapping[str, NDArray[Any]]
    ) -> Score:
        targets, calibration = self.sidecar.targets, self.sidecar.calibration
        bounded = calibration.half_widths if calibration is not None else {}
        for name, values in outputs.items():
            # Ends of an interval that the calibration could not bound are infinite.
            stated = [not (name in (LOW, HIGH) and target not in bounded) for target in targets]
            if not np.isfinite(values[stated]).all():
                raise ModelError(
                    f"{video!r}: model {self.sidecar.name!r} gave {name} {values}", reason=Reason.NON_FINITE
                )
        numbers = {name: dict(zip(targets, map(float, values), strict=True)) for name, values in outputs.items()}
        spread, low, high = numbers.get(SPREAD, {}), numbers.get(LOW, {}), numbers.get(HIGH, {})
        # Calibrated on rows with every input: nothing is known of the others.
        known = set() if missing else set(bounded)
        return Score(
            video=video,
            prompt=prompt,
            scores=numbers[SCORES],
            spread={target: spread.get(target) for target in targets},
            interval={target: (low[target], high[target]) if target in known else None for target in targets},
            level=calibration.level if calibration is not None and known else None,
            missing=missing,
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
            if not self.needs_prompt:
                return None
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
        clips = self._isolated_clips(video) if self._isolated else self._clips(video)
        return {f: graph.features(views) for (f, graph), views in zip(self._videos.items(), clips, strict=True)}

    def _clips(self, video: Path) -> list[list[Clip]]:
        from vqa_train.video.decode import read_clips

        samplings = [graph.sampling for graph in self._videos.values()]
        key = _key(video) if any(graph.needs_key for graph in self._videos.values()) else ""
        return read_clips(video, samplings, decoder=self._decoder, threads=self._threads, key=key)

    def _isolated_clips(self, video: Path) -> list[list[Clip]]:
        from vqa_train.video.job import DEFAULT_RECYCLE, DecodeJob, DecodeLimits
        from vqa_train.video.steady import SteadyDecoder

        if self._steady is None:
            self._steady = SteadyDecoder(
                [graph.sampling for graph in self._videos.values()],
                decoder=self._decoder,
                limits=DecodeLimits(),
                recycle=DEFAULT_RECYCLE,
                threads=self._threads or os.cpu_count() or 1,
            )
        outcome = self._steady.decode(DecodeJob(key="", path=video))
        if outcome.reason is not None:
            raise MediaError(outcome.message, reason=outcome.reason)
        return outcome.clips

    def close(self) -> None:
        """End the decoding process, if there is one; the next video starts another."""
        if self._steady is not None:
            self._steady.close()
            self._steady = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


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
