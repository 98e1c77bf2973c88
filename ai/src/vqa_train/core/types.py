"""The nouns that cross layers: Video, Reference, Clip, Sampling, OutputSpec, FeatureSpec."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, get_args

from vqa_train.core.errors import ConfigError
from vqa_train.core.hashing import sha256_json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SamplingMode = Literal["uniform", "fps", "duration", "frame_step", "segments"]
ShortPolicy = Literal["circulant", "hold", "error"]
Jitter = Literal["content", "centre"]
Modality = Literal["video", "text"]

SPEC_SCHEMA = "vqa-train/feature-spec/1"


_NEEDS = {
    "fps": ("rate",),
    "duration": ("seconds",),
    "frame_step": ("step",),
    "segments": ("segments", "jitter"),
}


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The pristine video that a record is judged against.

    Attributes:
        id: as the label table names it: another record's id, or a path below the data root.
        path: relative to the data root, POSIX separators.
        sha256: hex digest of the file's bytes (64 characters).
        bytes: file size.
    """

    id: str
    path: str
    sha256: str
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Video:
    """One record of a dataset.

    Attributes:
        id: unique within the dataset.
        path: relative to the data root, POSIX separators.
        sha256: hex digest of the file's bytes (64 characters).
        bytes: file size.
        prompt: the text that the video was made from, or None.
        labels: target -> opinion score on the dataset's scale; a missing score is absent.
        label_std: target -> standard deviation of the opinions, where published.
        split: "train", "val", "test" or None (decided later by hash of `group`).
        group: content that must not straddle a split (source clip, scene); None means the video is its own.
        reference: the pristine video, for full-reference models; None where the table names none, or no file.
        attributes: further columns of the label table, as text (distortion kind, level, ...).
    """

    id: str
    path: str
    sha256: str
    bytes: int
    prompt: str | None = None
    labels: Mapping[str, float] = field(default_factory=dict)
    label_std: Mapping[str, float] = field(default_factory=dict)
    split: str | None = None
    group: str | None = None
    reference: Reference | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Which frames of a video a backbone sees. Times decide, never frame indices, so variable frame rate is right.

    Attributes:
        mode: `uniform` n positions over the whole video; `fps` n positions `rate` per second from the start;
            `duration` n positions over the first `seconds`; `frame_step` n positions every `step` frames;
            `segments` the frames of each of `segments`, one after the other.
        n: positions (bursts) per view.
        burst: consecutive frames taken at each position; the clip has n * burst frames.
        rate: positions per second, for `fps`.
        seconds: length, for `duration`.
        step: frames, for `frame_step`.
        segments: for `segments`: (count, length, step) triples; each cuts the video into `count` equal parts and
            takes `length` frames, `step` apart, of every part. n is the sum of count * length.
        jitter: for `segments`: where in its part a run of frames begins: `content` decides by the video's sha256,
            `centre` takes the middle.
        short: what a video with too few frames gets: `circulant` starts over, `hold` repeats the last, `error`.
        views: clips per video, spread evenly where the mode leaves room.
        decode_budget: None reads exactly the positions asked for, however much must be decoded. A number
            bounds the frames decoded per view, so that cost does not grow with length: the first i of n positions
            may cost i / n of it, and one that would cost more moves back towards its key frame (docs/decoding.md).
    """

    mode: SamplingMode
    n: int
    burst: int = 1
    rate: float | None = None
    seconds: float | None = None
    step: int | None = None
    segments: tuple[tuple[int, int, int], ...] | None = None
    jitter: Jitter | None = None
    short: ShortPolicy = "hold"
    views: int = 1
    decode_budget: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("n", self.n), ("burst", self.burst), ("views", self.views)):
            if value < 1:
                raise ConfigError(f"sampling {name} must be at least 1, got {value}")
        needs = _NEEDS.get(self.mode, ())
        for name in ("rate", "seconds", "step", "segments", "jitter"):
            value = getattr(self, name)
            if (name in needs) != (value is not None):
                verb = "needs" if name in needs else "does not take"
                raise ConfigError(f"sampling mode {self.mode!r} {verb} {name}")
            if isinstance(value, (int, float)) and not value > 0:
                raise ConfigError(f"sampling {name} must be positive, got {value}")
        if self.segments is not None:
            # JSON gives lists; equality and hashing must not depend on which.
            segments = tuple(tuple(part) for part in self.segments)
            object.__setattr__(self, "segments", segments)
            self._check_segments(segments)
        if self.decode_budget is not None and self.decode_budget < self.n * self.burst:
            raise ConfigError(
                f"sampling decode_budget must be at least n * burst = {self.n * self.burst}, got {self.decode_budget}"
            )

    def _check_segments(self, segments: tuple[tuple[int, ...], ...]) -> None:
        if not segments or any(len(part) != 3 or min(part) < 1 for part in segments):
            raise ConfigError(f"sampling segments must be triples of positive numbers, got {segments}")
        if self.jitter not in get_args(Jitter):
            raise ConfigError(f"sampling jitter must be one of {', '.join(get_args(Jitter))}, got {self.jitter!r}")
        total = sum(count * length for count, length, _ in segments)
        if (self.n, self.burst, self.views, self.decode_budget) != (total, 1, 1, None):
            raise ConfigError(f"sampling mode 'segments' of {segments} needs n={total}, burst=1, views=1, no budget")

    @property
    def num_frames(self) -> int:
        """Frames per view: n * burst."""
        return self.n * self.burst

    def to_json(self) -> dict[str, Any]:
        """Only what is set, so that a later optional field does not change today's fingerprints."""
        value = {k: v for k, v in asdict(self).items() if v is not None}
        if self.segments is not None:
            value["segments"] = [list(part) for part in self.segments]
        return value


@dataclass(frozen=True, kw_only=True)
class YuvFormat:
    """How 8-bit YUV 4:2:0 planes are meant: matrix ("bt601", "bt709", "bt2020", "fcc"), full or limited range."""

    matrix: str
    full_range: bool


@dataclass(frozen=True, kw_only=True)
class Clip:
    """Decoded frames of one view of a video, upright and with square pixels.

    Attributes:
        frames: uint8, (T, H, W, 3), RGB, full range 0-255; with `yuv` the packed planes (T, 3 * H / 2, W) instead,
            which are half as many bytes on their way to a GPU.
        times: float64, (T,), presentation times in seconds from the first frame of the video.
        indices: int64, (T,), frame numbers in presentation order.
        fps: average frames per second of the source.
        num_frames: frames in the source.
        duration_s: seconds.
        width, height: pixels as displayed (after rotation and pixel aspect).
        codec: FFmpeg's name, e.g. "h264".
        decoder: name and version of what decoded it.
        key: sha256 of the video's bytes, which decides everything random about its views; "" when not known.
        view: which view of its sampling this is.
        yuv: what the planes mean, where `frames` are planes.
    """

    frames: NDArray[np.uint8]
    times: NDArray[np.float64]
    indices: NDArray[np.int64]
    fps: float
    num_frames: int
    duration_s: float
    width: int
    height: int
    codec: str
    decoder: str
    key: str = ""
    view: int = 0
    yuv: YuvFormat | None = None

    def __repr__(self) -> str:
        return (
            f"Clip(frames={self.frames.shape} {self.frames.dtype}, fps={self.fps:g}, "
            f"duration_s={self.duration_s:g}, codec={self.codec!r}, decoder={self.decoder!r})"
        )

    def facts(self) -> dict[str, Any]:
        """The columns about the clip that a feature row carries."""
        names = ("num_frames", "fps", "width", "height", "duration_s", "codec", "decoder")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, kw_only=True)
class OutputSpec:
    """One array that a backbone gives per view: float32 of `shape`; `names` label the last axis where it has names."""

    name: str
    shape: tuple[int, ...]
    names: tuple[str, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON form; `names` only where given."""
        value: dict[str, Any] = {"name": self.name, "shape": list(self.shape)}
        if self.names is not None:
            value["names"] = list(self.names)
        return value


@dataclass(frozen=True, kw_only=True)
class FeatureSpec:
    """What a feature means. Two features with one fingerprint are interchangeable within the backbone's tolerance.

    Attributes:
        backbone: registry name.
        definition: version of the feature's definition; bumped when the numbers change beyond the tolerance.
        modality: "video" (keyed by the video's sha256) or "text" (keyed by the sha256 of the prompt's UTF-8).
        outputs: what is stored per view.
        weights_sha256: hash of the weights, or None for a backbone without any.
        random_seed: set when the weights are random; `register` refuses what descends from those.
        sampling: which frames; None for text.
        preprocessing: everything done between the decoded frames (or the text) and the network, as JSON values.
    """

    backbone: str
    definition: int
    modality: Modality
    outputs: tuple[OutputSpec, ...]
    weights_sha256: str | None = None
    random_seed: int | None = None
    sampling: Sampling | None = None
    preprocessing: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The canonical JSON value whose hash is the fingerprint."""
        return {
            "schema": SPEC_SCHEMA,
            "backbone": self.backbone,
            "definition": self.definition,
            "modality": self.modality,
            "outputs": [output.to_json() for output in self.outputs],
            "weights": {"sha256": self.weights_sha256, "random_seed": self.random_seed},
            "sampling": self.sampling.to_json() if self.sampling else None,
            "preprocessing": dict(self.preprocessing),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> FeatureSpec:
        """Inverse of `to_json`.

        Raises:
            ConfigError: another schema version or a missing or unknown field.
        """
        if value.get("schema") != SPEC_SCHEMA:
            raise ConfigError(
                f"feature spec has schema {value.get('schema')!r}, expected {SPEC_SCHEMA!r}",
                hint="install the version of vqa-train that wrote it",
            )
        try:
            spec = cls(
                backbone=value["backbone"],
                definition=value["definition"],
                modality=value["modality"],
                outputs=tuple(
                    OutputSpec(
                        name=o["name"],
                        shape=tuple(o["shape"]),
                        names=tuple(o["names"]) if "names" in o else None,
                    )
                    for o in value["outputs"]
                ),
                weights_sha256=value["weights"]["sha256"],
                random_seed=value["weights"]["random_seed"],
                sampling=Sampling(**value["sampling"]) if value["sampling"] else None,
                preprocessing=value["preprocessing"],
            )
            spec._check_types()
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise ConfigError(f"feature spec is malformed: {error!r:.200}") from error
        return spec

    def _check_types(self) -> None:
        """Refuse what a file may hold and code never makes.

        Raises:
            TypeError, ValueError: a field of another type, or a number that JSON does not have.
        """
        texts = [self.backbone, *(output.name for output in self.outputs)]
        texts += [name for output in self.outputs for name in output.names or ()]
        numbers = [self.definition, *(size for output in self.outputs for size in output.shape)]
        if not all(type(text) is str for text in texts) or self.modality not in get_args(Modality):
            raise TypeError("names must be text and modality one of video, text")
        if not all(type(number) is int for number in numbers):
            raise TypeError("definition and shapes must be whole numbers")
        if not hasattr(self.preprocessing, "keys"):
            raise TypeError("preprocessing must be a mapping")
        # Only what has a fingerprint is a spec; a lone surrogate or NaN has none.
        self.fingerprint.encode()

    @cached_property
    def fingerprint(self) -> str:
        """Hex SHA-256 of the canonical JSON."""
        return sha256_json(self.to_json())

    @property
    def set_name(self) -> str:
        """Folder name of the feature set: `<backbone>@<first 12 of fingerprint>`."""
        return f"{self.backbone}@{self.fingerprint[:12]}"

    @property
    def imported(self) -> bool:
        """Whether the features came from a file that another tool wrote: no clip facts, and NaN and infinity stay."""
        return "imported" in self.preprocessing

    def output(self, name: str) -> OutputSpec:
        """The output called `name`.

        Raises:
            ConfigError: there is none.
        """
        for output in self.outputs:
            if output.name == name:
                return output
        raise ConfigError(
            f"feature set {self.set_name} has no output {name!r}",
            hint=f"it has: {', '.join(o.name for o in self.outputs)}",
        )
