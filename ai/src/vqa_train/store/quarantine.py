"""Moves damaged files of a feature set aside, with a log of what and why: copy first, then log, then remove."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vqa_train.core.errors import StoreError
from vqa_train.store import filesystem
from vqa_train.store.append import now
from vqa_train.store.layout import QUARANTINE, QUARANTINE_SCHEMA
from vqa_train.store.records import QuarantineRecord
from vqa_train.store.seal import parse_sealed, sealed


@dataclass(frozen=True)
class Moved:
    """What was moved aside (or would be).

    Attributes:
        folder: of the feature set.
        places: the files, relative to it.
        why: the problem, one line.
        keys: keys that lose a row with it, sorted; empty where nobody can tell.
    """

    folder: Path
    places: Sequence[str]
    why: str
    keys: Sequence[str] = ()


def quarantine(moved: Moved) -> None:
    """Copy the files into quarantine/, write why, then remove them from their places, in the order given.

    A file that cannot be read has no copy; one that is not there is left out. A crash in between leaves the files where
    they were, so that the next repair finds them again.

    Raises:
        StoreError: a failing disk.
    """
    label = str(uuid.uuid4())
    copies: dict[str, str] = {}
    unreadable = []
    for place in moved.places:
        path = _at(moved.folder, place)
        try:
            data = filesystem.read(path, "file")
        except StoreError:
            if filesystem.exists(path):
                unreadable.append(place)
            continue
        name = f"{label}.{path.name}"
        filesystem.write(moved.folder / QUARANTINE / name, data)
        copies[name] = place
    record = {
        "schema": QUARANTINE_SCHEMA,
        "files": copies,
        "unreadable": unreadable,
        "why": moved.why,
        "keys": list(moved.keys),
        "created": now(),
    }
    # Its name ends in .log, so that it is no copy of a file of the store.
    filesystem.write(moved.folder / QUARANTINE / f"{label}.log", sealed(record))
    for place in moved.places:
        filesystem.remove(_at(moved.folder, place))


def quarantined(folder: Path) -> Iterable[QuarantineRecord]:
    """The log of a feature set's quarantine, by time.

    Raises:
        StoreError: a damaged log.
    """
    found = []
    for name in filesystem.names(folder / QUARANTINE, ".log"):
        source = f"log {str(folder / QUARANTINE / name)!r}"
        found.append(parse_sealed(QuarantineRecord, filesystem.read(folder / QUARANTINE / name, "log"), source))
    return sorted(found, key=lambda record: record.created)


def _at(folder: Path, place: str) -> Path:
    for part in place.split("/"):
        folder = folder / part
    return folder
