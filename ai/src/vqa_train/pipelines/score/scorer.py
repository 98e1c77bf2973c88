"""score: a video to its scores with onnxruntime alone: decode, backbone ONNX, head ONNX, every hash verified."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.errors import MediaError, ModelError, Reason, UsageError, VqaError
from vqa_train.core.files import confined
from vqa_train.onnx.providers import PROVIDERS, installed, resolve
from vqa_train.onnx.runtime import CPU, OnnxModel
from vqa_train.pipelines.models.check_head import check_head
from vqa_train.pipelines.score.decode import Decoders, place_of
from vqa_train.pipelines.score.features import Backbones, Role, Seen, bundled, head_rows, samplings_of
from vqa_train.pipelines.score.graphs import ModelFiles
from vqa_train.pipelines.score.lanes import in_lanes
from vqa_train.pipelines.score.references import References
from vqa_train.pipelines.score.timeline import Columns, columns_of, curve_rows
from vqa_train.pipelines.score.types import Score, ScoreFailure, ScoreMemory, ScoreRequest, Timeline
from vqa_train.registry.cache import LARGE_BYTES
from vqa_train.registry.locate import locate
from vqa_train.registry.sidecar import HIGH, LOW, SCORES, SPREAD, ModelSidecar

__all__ = ["Score", "ScoreFailure", "ScoreRequest", "Scorer", "Timeline"]

AUTO = "auto"
_MOST_LANES = 8


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


class Scorer:
    """A registered model, ready to score videos; imports no torch.

    Opening verifies everything that a score depends on: the sidecar against the registry, head, backbones and
    tokenizers against the sidecar's hashes, the feature specs against their fingerprints, and the fingerprint
    that is embedded in each backbone's graph.

    Args:
        model: NAME, NAME:VERSION or NAME@ALIAS of the registry, name of a ready-made scorer that was made on this
            machine, or path of a model's folder or of a bundle (see `registry.locate`).
        registry: the folder that holds registry.json, for names.
        threads: that decoders and graphs take together; 0 takes all cores.
        workers: videos that `score_many` has under way at once, which share `threads`; 0 takes one per thread and at
            most eight, or a single one where the backbones are large (over 50 MB) and run on the CPU.
        provider: what the backbones run on: "cpu", "cuda", "tensorrt", "openvino", or "auto": CUDA where it is
            installed and starts, else the CPU. The head takes microseconds and runs on the CPU.
        decoder: registry name.
        isolated: decode in processes of their own, which a broken file may crash; they stay until `close`.
        require_signature: public keys (files or texts), one of which must have signed the model.
        log: told why "auto" is not on CUDA although it is installed; by default a line on stderr.

    Attributes:
        sidecar: everything that is known of the model.
        provider: what the backbones run on.

    Raises:
        ModelError: no such model, anything of it is missing or differs from what it claims, no required key signed
            it, or the provider is not installed or does not start.
        UsageError: an unknown provider, or more workers than threads.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        registry: Path = Path("model"),
        threads: int = 0,
        workers: int = 0,
        provider: str = AUTO,
        decoder: str = "pyav",
        isolated: bool = False,
        require_signature: Sequence[str] = (),
        log: Callable[[str], None] = _say,
    ) -> None:
        if threads < 0:
            raise UsageError(f"threads must be 0 (all cores) or more, got {threads}")
        self._threads = threads or _cores()
        if not 0 <= workers <= self._threads:
            raise UsageError(
                f"workers must be 0 (chosen for you) to the number of threads, {self._threads}, got {workers}"
            )
        self.sidecar, folder = locate(model, registry, require_signature=require_signature)
        _check_kind(self.sidecar)
        samplings = samplings_of(self.sidecar)
        self._decoders = Decoders(samplings, decoder, isolated=isolated)
        if workers == 1 and samplings:
            # Its start takes as long as opening the graphs does.
            self._decoders.warm(self._threads)
        try:
            head = confined(folder, self.sidecar.onnx.file)
            self._head = OnnxModel(head, expected_sha256=self.sidecar.onnx.sha256, threads=1)
            check_head(self._head, self.sidecar)
            files = ModelFiles(self.sidecar.name, folder, self._threads, beside=bundled(folder))
            self.provider, self._files, self._backbones = _start(self.sidecar, files, provider, log)
        except BaseException:
            self._decoders.close()
            raise
        self._lanes = workers or self._chosen_lanes()
        # Graphs with the share of the threads that one of several lanes has; opened when first needed.
        self._shared: Backbones | None = None
        self._references = References()
        self._columns: dict[str, Columns | None] | None = None

    def _chosen_lanes(self) -> int:
        # A lane decodes, then computes: where one of both takes all threads anyway, or memory counts, one lane does.
        sizes = {i.backbone_onnx.sha256: i.backbone_onnx.bytes for i in self.sidecar.inputs if i.backbone_onnx}
        large = sum(sizes.values()) > LARGE_BYTES and self.provider == "cpu"
        return 1 if large else min(self._threads, _MOST_LANES)

    @property
    def takes_prompt(self) -> bool:
        """Whether a prompt goes into the scores."""
        return self.sidecar.takes_prompt

    @property
    def needs_prompt(self) -> bool:
        """Whether no video can be scored without one."""
        return self.sidecar.needs_prompt

    @property
    def takes_reference(self) -> bool:
        """Whether the model is full-reference: no video can be scored without its pristine version."""
        return self.sidecar.takes_reference

    def check_timeline(self) -> None:
        """Whether the model can say how a video is second by second.

        Raises:
            UsageError: it cannot; says which input has no features in time.
        """
        self._followed()

    def score(
        self,
        video: str | Path,
        prompt: str | None = None,
        reference: str | Path | None = None,
        *,
        timeline: bool = False,
    ) -> Score:
        """Decode a video and score it.

        Args:
            video: a file or a URL (https://, s3://, ...).
            prompt: the text it was made from; needed by a model that takes one, unless its heads were trained to do
                without (`needs_prompt`), and ignored by one that does not.
            reference: its pristine version; needed by a full-reference model, ignored by others.
            timeline: the scores second by second, too.

        Raises:
            MediaError: the video or its reference cannot be read; `reason` says why.
            UsageError: the model needs a prompt or a reference and got none, or has no timeline.
            ModelError: a graph failed or gave a NaN or infinity.
        """
        request = ScoreRequest(video=video, prompt=prompt, reference=reference)
        return self._score(request, self._backbones, self._threads, timeline)

    def score_many(
        self,
        requests: Iterable[ScoreRequest | str | Path],
        *,
        timeline: bool = False,
        memory: ScoreMemory | None = None,
    ) -> Iterator[Score | ScoreFailure]:
        """Score videos, several at once, in their order; one that fails is a record, and the rest go on.

        Every video has a thread of its own, which decodes it and then runs the graphs, each with an equal share of
        `threads`: no core waits for another, and the decoders and graphs together take no more than `threads`.

        Args:
            requests: read as needed, at most two per worker ahead of what was taken; may be endless.
            timeline: the scores second by second, too.
            memory: what it recalls is not scored again.

        Raises:
            UsageError: the model has no timeline.
        """
        if timeline:
            self.check_timeline()
        given = (item if isinstance(item, ScoreRequest) else ScoreRequest(video=item) for item in requests)
        share = max(1, self._threads // self._lanes)
        backbones = self._backbones
        if share < self._threads and self.provider == "cpu":
            if self._shared is None:
                self._shared = Backbones(self.sidecar, replace(self._files, threads=share))
            backbones = self._shared
        one = partial(self._attempt, backbones=backbones, threads=share, timeline=timeline, memory=memory)
        return in_lanes(one, given, self._lanes)

    def _attempt(
        self,
        request: ScoreRequest,
        backbones: Backbones,
        threads: int,
        timeline: bool,
        memory: ScoreMemory | None,
    ) -> Score | ScoreFailure:
        try:
            key, score = memory.recall(request) if memory is not None else (None, None)
            if score is None:
                score = self._score(request, backbones, threads, timeline)
                if memory is not None:
                    memory.keep(key, score)
            return score
        except VqaError as error:
            reference = None if request.reference is None else str(request.reference)
            return ScoreFailure(
                video=str(request.video),
                prompt=request.prompt,
                reference=reference,
                reason=error.reason or Reason.BACKBONE_ERROR,
                message=str(error),
            )

    def _score(self, request: ScoreRequest, backbones: Backbones, threads: int, timeline: bool) -> Score:
        followed = self._followed() if timeline else None
        prompt = self._check_prompt(request.prompt)
        reference = self._check_reference(request.reference)
        found: dict[Role, Seen] = {"video": Seen(), "reference": Seen()}
        if reference is not None:
            found["reference"] = self._references.get(
                reference, timeline, lambda: self._look(reference, "reference", backbones, threads, timeline)
            )
        if backbones.looks_at("video"):
            found["video"] = self._look(place_of(request.video), "video", backbones, threads, timeline)
        texts = backbones.text(prompt) if prompt is not None else {}
        name = str(request.video)
        rows, missing = head_rows(self.sidecar.inputs, found, texts, name)
        # One row at a time: a row's last digits must not depend on which others happened to be ready.
        outputs = {output: values[0] for output, values in self._head.run(rows).items()}
        score = self._stated(request, prompt, missing, outputs)
        if followed is None:
            return score
        return replace(score, timeline=self._curve(name, rows, found, followed))

    def _look(self, place: Path, role: Role, backbones: Backbones, threads: int, timeline: bool) -> Seen:
        clips = self._decoders.clips(place, threads)
        return backbones.video(clips, role, timeline=timeline)

    def _curve(
        self,
        video: str,
        rows: Mapping[str, NDArray[np.float32]],
        found: Mapping[Role, Seen],
        followed: Mapping[str, Columns | None],
    ) -> Timeline:
        curve = curve_rows(self.sidecar.inputs, rows, found, followed, video)
        scores = self._head.run(curve.rows)[SCORES]
        if not np.isfinite(scores).all():
            raise ModelError(f"{video!r}: NaN or infinity in the timeline", reason=Reason.NON_FINITE)
        columns = {target: tuple(map(float, scores[:, i])) for i, target in enumerate(self.sidecar.targets)}
        return Timeline(
            times=curve.seconds.starts, duration_s=curve.seconds.duration_s, steps=curve.steps, scores=columns
        )

    def _followed(self) -> dict[str, Columns | None]:
        if self._columns is None:
            self._columns = {item.name: columns_of(item, item.feature_spec()) for item in self.sidecar.inputs}
        return self._columns

    def _stated(
        self,
        request: ScoreRequest,
        prompt: str | None,
        missing: tuple[str, ...],
        outputs: Mapping[str, NDArray[Any]],
    ) -> Score:
        targets, calibration = self.sidecar.targets, self.sidecar.calibration
        bounded = calibration.half_widths if calibration is not None else {}
        for name, values in outputs.items():
            # Ends of an interval that the calibration could not bound are infinite.
            stated = [not (name in (LOW, HIGH) and target not in bounded) for target in targets]
            if not np.isfinite(values[stated]).all():
                raise ModelError(
                    f"{str(request.video)!r}: model {self.sidecar.name!r} gave {name} {values}",
                    reason=Reason.NON_FINITE,
                )
        numbers = {name: dict(zip(targets, map(float, values), strict=True)) for name, values in outputs.items()}
        spread, low, high = numbers.get(SPREAD, {}), numbers.get(LOW, {}), numbers.get(HIGH, {})
        # Calibrated on rows with every input: nothing is known of the others.
        known = set() if missing else set(bounded)
        return Score(
            video=str(request.video),
            prompt=prompt,
            reference=str(request.reference) if self.takes_reference else None,
            scores=numbers[SCORES],
            spread={target: spread.get(target) for target in targets},
            interval={target: (low[target], high[target]) if target in known else None for target in targets},
            level=calibration.level if calibration is not None and known else None,
            missing=missing,
            mos_range=self.sidecar.mos_range,
            expected_range=self.sidecar.expected_output_range,
            direction=self.sidecar.direction,
            model=self.sidecar.name,
            version=self.sidecar.version,
            model_sha256=self._head.sha256,
            provider=self.provider,
        )

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

    def _check_reference(self, reference: str | Path | None) -> Path | None:
        if not self.takes_reference:
            return None
        if reference is None or not str(reference).strip():
            raise UsageError(
                f"model {self.sidecar.name!r} is full-reference and got no reference",
                hint="give the pristine version of the video with --reference or in the list",
                reason=Reason.NO_REFERENCE,
            )
        try:
            return place_of(reference)
        except MediaError as error:
            raise MediaError(f"reference: {error.message}", hint=error.hint, reason=error.reason) from error

    def close(self) -> None:
        """End the decoding processes, if there are any; the next video starts others."""
        self._decoders.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _start(
    sidecar: ModelSidecar, files: ModelFiles, provider: str, log: Callable[[str], None]
) -> tuple[str, ModelFiles, Backbones]:
    """Open the backbones with the provider that was asked for; its name, what they were opened with, and they."""
    if provider == AUTO and "cuda" in installed():
        on_cuda = replace(files, providers=(PROVIDERS["cuda"],))
        try:
            return "cuda", on_cuda, Backbones(sidecar, on_cuda)
        except ModelError as error:
            log(f"note: not on CUDA, although it is installed: {error}")
    name = "cpu" if provider == AUTO else provider
    here = replace(files, providers=CPU if name == "cpu" else (resolve(name),))
    return name, here, Backbones(sidecar, here)


def _check_kind(sidecar: ModelSidecar) -> None:
    if (sidecar.kind == "fr") != sidecar.takes_reference:
        takes = "takes a reference" if sidecar.takes_reference else "takes no reference"
        raise ModelError(
            f"model {sidecar.name!r} says that its kind is {sidecar.kind!r}, but it {takes}",
            hint="register it again",
        )


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
