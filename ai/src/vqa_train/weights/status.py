"""What of the manifest is on this machine, and whether it still is what it was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from vqa_train.core.errors import WeightsError
from vqa_train.core.hashcache import HashCache
from vqa_train.weights.find import Location, present, refuse_incomplete, verify_files
from vqa_train.weights.manifest import WeightsEntry
from vqa_train.weights.pins import Pins

State = Literal["present", "missing", "incomplete", "changed"]


@dataclass(frozen=True, kw_only=True)
class Status:
    """One entry on this machine.

    Attributes:
        entry: what the manifest says.
        state: `present` and what it should be, `missing`, `incomplete` (a file is missing), or `changed`.
        location: where it is; None when missing.
        bytes: of all its files; None when missing.
        sha256: of each file that was hashed.
        pinned: file -> its pinned sha256, by the manifest or at first use.
        error: why it is incomplete or changed.
    """

    entry: WeightsEntry
    state: State
    location: Location | None
    bytes: int | None
    sha256: Mapping[str, str]
    pinned: Mapping[str, str]
    error: str | None


def status(entry: WeightsEntry, cache: HashCache | None) -> Status:
    """Look for `entry` and compare what is there; `cache` None reads every byte, else only what is not remembered.

    Raises:
        ConfigError: the lock file is damaged.
    """
    pins = Pins().of(entry.name)
    pinned = {file.path: file.sha256 or (pins[file.path].sha256 if file.path in pins else "") for file in entry.files}
    pinned = {path: sha256 for path, sha256 in pinned.items() if sha256}
    location = present(entry)
    state: State = "missing"
    error: str | None = None
    hashes: dict[str, str] = {}
    size = None
    if location is not None:
        size = sum(path.stat().st_size for path in location.files.values() if path.is_file())
        try:
            refuse_incomplete(entry, location)
            state = "changed"
            hashes = verify_files(entry, location, pins, cache)
            state = "present"
        except WeightsError as problem:
            state = "changed" if state == "changed" else "incomplete"
            error = str(problem)
    return Status(entry=entry, state=state, location=location, bytes=size, sha256=hashes, pinned=pinned, error=error)
