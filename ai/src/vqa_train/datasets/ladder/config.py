"""What a ladder is made of."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from vqa_train.core.errors import ConfigError

MAX_LEVELS = 5
SMALLEST = 64
LARGEST = 4096


@dataclass(frozen=True, kw_only=True)
class LadderConfig:
    """Settings of `make_ladder`.

    Attributes:
        scenes: procedural scenes, beside the clips in the sources folder.
        seconds: length of every clip.
        size: (width, height) in pixels of the largest procedural scenes, even; every scene has a format of its own
            within it (`camera.scene_size`). Source clips are scaled down to fit into it, upright ones into
            (height, width).
        fps: frames per second of procedural scenes; source clips keep theirs.
        levels: rungs per kind, 1 to 5, mildest first.
        kinds: kinds of distortion by name; None for all that this FFmpeg can render.
        name: of the dataset.

    Raises:
        ConfigError: a value is out of its range.
    """

    scenes: int = 8
    seconds: float = 2.5
    size: tuple[int, int] = (480, 270)
    fps: int = 24
    levels: int = MAX_LEVELS
    kinds: tuple[str, ...] | None = None
    name: str = "ladder"

    def __post_init__(self) -> None:
        _check("scenes", self.scenes, 0, 10_000)
        _check("fps", self.fps, 1, 120)
        _check("levels", self.levels, 1, MAX_LEVELS)
        _check("width", self.size[0], SMALLEST, LARGEST)
        _check("height", self.size[1], SMALLEST, LARGEST)
        _check("seconds", self.seconds, 0.1, 600)
        if self.size[0] % 2 or self.size[1] % 2:
            raise ConfigError(f"ladder size must be even, got {self.size[0]}x{self.size[1]}")
        if round(self.seconds * self.fps) < 4:
            raise ConfigError(f"ladder clips need at least 4 frames, got {self.seconds:g} s at {self.fps} fps")
        if self.kinds is not None and (not self.kinds or len(set(self.kinds)) < len(self.kinds)):
            raise ConfigError(f"ladder kinds must be distinct names, at least one, got {list(self.kinds)}")

    def to_json(self) -> dict[str, Any]:
        """The settings as JSON values."""
        value = asdict(self)
        return {**value, "size": list(self.size), "kinds": list(self.kinds) if self.kinds is not None else None}


def _check(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ConfigError(f"ladder {name} must be between {low:g} and {high:g}, got {value:g}")
