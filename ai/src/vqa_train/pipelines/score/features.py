"""Everything of a model but its head: its backbones' graphs, and the features that they give of a video or a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.errors import ModelError, Reason
from vqa_train.core.types import Clip, Sampling
from vqa_train.pipelines.score.graphs import Features, ModelFiles, TextGraph, VideoGraph, over_views
from vqa_train.pipelines.score.seconds import TEMPORAL, Seconds, shares
from vqa_train.registry.registry import REGISTRY_FILE
from vqa_train.registry.sidecar import ModelInput, ModelSidecar

Role = Literal["video", "reference"]


def role_of(item: ModelInput) -> Role:
    """Which of the two videos of a full-reference model an input is of."""
    return "reference" if item.of == "reference" else "video"


def samplings_of(sidecar: ModelSidecar) -> list[Sampling]:
    """Which frames each video backbone wants, in the order of `Backbones`; every input's spec is checked.

    Raises:
        ModelError: a spec without sampling, or one that is not what the sidecar says.
    """
    found = {}
    for item in sidecar.inputs:
        spec = item.feature_spec()
        if item.modality != "video":
            continue
        if spec.sampling is None:
            raise ModelError(f"feature spec of model input {item.name!r} has no sampling")
        found[item.fingerprint] = spec.sampling
    return list(found.values())


@dataclass
class Seen:
    """What the backbones say of one video.

    Attributes:
        features: fingerprint -> output -> what the head is given.
        temporal: fingerprint -> (views, steps, d), for a timeline.
        weights: fingerprint -> `seconds.shares`.
        duration_s: of the video in seconds; None where no backbone looked at it.
    """

    features: dict[str, Features] = field(default_factory=dict)
    temporal: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    weights: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    duration_s: float | None = None


class Backbones:
    """The verified graphs of a model's backbones and text encoders; `video` and `text` may run in several threads.

    Raises:
        ModelError: a graph or tokenizer is missing, changed, computes other features, or its provider does not start.
    """

    def __init__(self, sidecar: ModelSidecar, files: ModelFiles) -> None:
        self._videos: dict[str, VideoGraph] = {}
        self._texts: dict[str, TextGraph] = {}
        self._roles: dict[Role, set[str]] = {"video": set(), "reference": set()}
        for item in sidecar.inputs:
            self._add(item, files)

    def _add(self, item: ModelInput, files: ModelFiles) -> None:
        """Open the backbone of an input, once for all inputs that take features of it."""
        graph: VideoGraph | TextGraph
        if item.modality == "video":
            if item.fingerprint not in self._videos:
                self._videos[item.fingerprint] = VideoGraph(files, item)
            graph = self._videos[item.fingerprint]
            self._roles[role_of(item)].add(item.fingerprint)
        else:
            if item.fingerprint not in self._texts:
                self._texts[item.fingerprint] = TextGraph(files, item)
            graph = self._texts[item.fingerprint]
        if item.output not in graph.outputs:
            raise ModelError(
                f"the backbone ONNX of model input {item.name!r} gives {sorted(graph.outputs)}, not {item.output!r}"
            )

    def looks_at(self, role: Role) -> bool:
        """Whether any feature is of this video."""
        return bool(self._roles[role])

    def video(self, clips: Sequence[Sequence[Clip]], role: Role, *, timeline: bool) -> Seen:
        """What the backbones of a role say of a video, from its clips per sampling and view."""
        seen = Seen()
        for (fingerprint, graph), views in zip(self._videos.items(), clips, strict=True):
            if fingerprint not in self._roles[role]:
                continue
            found = graph.features(views)
            seen.features[fingerprint] = {name: over_views(values) for name, values in found.items()}
            seen.duration_s = views[0].duration_s
            if timeline and TEMPORAL in found:
                temporal = found[TEMPORAL]
                seen.temporal[fingerprint] = temporal
                seen.weights[fingerprint] = shares(views, temporal.shape[1], Seconds(views[0].duration_s))
        return seen

    def text(self, text: str) -> dict[str, Features]:
        """Fingerprint -> features of a text."""
        return {fingerprint: encoder.features(text) for fingerprint, encoder in self._texts.items()}


def head_rows(
    inputs: Sequence[ModelInput], found: Mapping[Role, Seen], texts: Mapping[str, Features], video: str
) -> tuple[dict[str, NDArray[np.float32]], tuple[str, ...]]:
    """What the head is given, input -> (1, ...), and the inputs that are absent: NaN.

    Raises:
        ModelError: a feature is NaN or infinite.
    """
    rows, missing = {}, []
    for item in inputs:
        source = texts if item.modality == "text" else found[role_of(item)].features
        if item.fingerprint in source:
            row = source[item.fingerprint][item.output][None]
            if not np.isfinite(row).all():
                raise ModelError(f"{video!r}: NaN or infinity in feature {item.name!r}", reason=Reason.NON_FINITE)
        else:
            missing.append(item.name)
            row = np.full((1, *item.dims), np.nan, dtype=np.float32)
        rows[item.name] = row
    return rows, tuple(missing)


def bundled(folder: Path) -> Path | None:
    """Where a bundle has backbones by hash: `onnx` beside the registry of the model in `folder`; None without one."""
    for root in folder.absolute().parents[:2]:
        if (root / REGISTRY_FILE).is_file():
            return root / "onnx"
    return None
