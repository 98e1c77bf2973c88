"""The weights folder and weights.lock.json in it: which bytes were seen first, enforced from then on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from vqa_train.core.config import StrictModel, load_json, parse
from vqa_train.core.files import atomic_write_json, locked
from vqa_train.core.hashcache import cache_dir

FOLDER_VARIABLE = "VQA_TRAIN_WEIGHTS"
LOCK_FILE = "weights.lock.json"
_GUARD = ".weights.lock"


class Pin(StrictModel):
    """What a file was when it was first used.

    Attributes:
        sha256, bytes: of the file.
        source: where it came from (URL, hub repository at a commit, or "local file"); no path of the machine.
        when: UTC, ISO 8601, to the second.
    """

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(ge=0)]
    source: str
    when: str


class _LockFile(StrictModel):
    model_config = ConfigDict(populate_by_name=True)

    schema_: Literal["vqa-train/weights-lock/1"] = Field(alias="schema", default="vqa-train/weights-lock/1")
    weights: dict[str, dict[str, Pin]] = Field(default_factory=dict)


def weights_dir() -> Path:
    """The folder of weights: $VQA_TRAIN_WEIGHTS, else <cache folder>/weights."""
    explicit = os.environ.get(FOLDER_VARIABLE)
    return Path(explicit) if explicit else cache_dir() / "weights"


def new_pin(sha256: str, size: int, source: str) -> Pin:
    """A pin made now."""
    return Pin(sha256=sha256, bytes=size, source=source, when=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}")


class Pins:
    """weights.lock.json of one weights folder.

    Args:
        folder: the weights folder; it need not exist.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder if folder is not None else weights_dir()
        self.path = self.folder / LOCK_FILE

    def of(self, name: str) -> Mapping[str, Pin]:
        """File -> pin of one entry; empty when nothing of it was used yet.

        Raises:
            ConfigError: the lock file is not JSON or not of the schema.
        """
        return self._read().get(name, {})

    def record(self, name: str, pins: Mapping[str, Pin], *, replace: bool = False) -> None:
        """Add pins of one entry; a file that has one already keeps it, unless `replace`.

        Raises:
            OSError: the folder cannot be written; the lock file is then unchanged.
            ConfigError: the lock file is not JSON or not of the schema.
        """
        with locked(self.folder / _GUARD):
            everything = self._read()
            mine = everything.get(name, {})
            everything[name] = {**mine, **pins} if replace else {**pins, **mine}
            file = _LockFile(weights={n: dict(sorted(p.items())) for n, p in sorted(everything.items())})
            atomic_write_json(self.path, file.model_dump(mode="json", by_alias=True))

    def _read(self) -> dict[str, dict[str, Pin]]:
        if not self.path.is_file():
            return {}
        value = load_json(self.path, "weights lock file")
        return dict(parse(_LockFile, value, f"weights lock file {str(self.path)!r}").weights)
