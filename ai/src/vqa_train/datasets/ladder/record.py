"""ladder.json: what a ladder's folder was made from, so that a second run knows whether it may go on there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import av

from vqa_train.core.config import load_json
from vqa_train.core.errors import RunError
from vqa_train.core.files import atomic_write_json
from vqa_train.core.hashing import sha256_json
from vqa_train.datasets.ladder.config import LadderConfig
from vqa_train.datasets.ladder.distortions import KINDS
from vqa_train.datasets.ladder.sources import Source

SCHEMA = "vqa-train/ladder-record/1"
RECORD = "ladder.json"
# Raised when scenes, distortions or pseudo_mos change: old folders are then not continued with new numbers.
DEFINITION = 1


def make_record(config: LadderConfig, sources: Sequence[Source], kinds: Sequence[str]) -> dict[str, Any]:
    """The record of a ladder; its "identity" is the hash of all that decides the clips."""
    what = {
        "definition": DEFINITION,
        "config": config.to_json(),
        "kinds": list(kinds),
        "sources": [{"id": source.id, "sha256": source.sha256} for source in sources],
    }
    return {
        "schema": SCHEMA,
        "identity": sha256_json(what),
        **what,
        "absent_kinds": [name for name in KINDS if name not in kinds],
        "refused_sources": {},
        "libraries": {name: ".".join(map(str, version)) for name, version in av.library_versions.items()},
    }


def claim(output: Path, record: Mapping[str, Any]) -> None:
    """Take `output` for the ladder of `record`: it is empty, or holds the same ladder, finished or not.

    Raises:
        RunError: it holds something else.
    """
    if output.exists() and not output.is_dir():
        raise RunError(f"ladder output {str(output)!r} is not a folder")
    path = output / RECORD
    if path.exists():
        old = load_json(path, "ladder record")
        found = old.get("identity") if isinstance(old, dict) else None
        if found != record["identity"]:
            raise RunError(
                f"{str(output)!r} holds a ladder of other settings or sources ({_differences(old, record)})",
                hint="choose another --output, or delete the folder to make it anew",
            )
        return
    if output.exists() and any(not entry.name.startswith(".") for entry in output.iterdir()):
        raise RunError(f"{str(output)!r} is not empty and holds no ladder", hint="choose an empty or a new folder")
    atomic_write_json(path, dict(record))


def add_refused(output: Path, refused: Mapping[str, str]) -> dict[str, Any]:
    """The record in `output` with the source files that were refused (name -> why), written where that is new."""
    record: dict[str, Any] = load_json(output / RECORD, "ladder record")
    if record.get("refused_sources") != refused:
        record["refused_sources"] = dict(refused)
        atomic_write_json(output / RECORD, record)
    return record


def _differences(old: Any, new: Mapping[str, Any]) -> str:
    if not isinstance(old, dict):
        return "its ladder.json is damaged"
    config = old.get("config")
    settings = config if isinstance(config, dict) else {}
    changed = [name for name, value in new["config"].items() if settings.get(name) != value]
    changed += [name for name in ("definition", "kinds", "sources") if old.get(name) != new[name]]
    return ", ".join(changed) or "its ladder.json is damaged"
