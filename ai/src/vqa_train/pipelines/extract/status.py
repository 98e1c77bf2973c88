"""status: what the extractions that write to a store are at, read from what they say of themselves."""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vqa_train.core.errors import StoreError
from vqa_train.pipelines.extract.heartbeat import RunStatus
from vqa_train.store import filesystem
from vqa_train.store.layout import STATUS
from vqa_train.store.seal import parse_sealed
from vqa_train.store.store import check_store

SCHEMA = "vqa-train/status/1"
SHOWN_S = 86_400.0
"""Runs that ended longer ago are left out unless asked for."""
_MISSED_BEATS = 6
_PATIENCE_S = 30.0
"""A disk or network may hold up a beat for as long."""


@dataclass(frozen=True)
class RunView:
    """One run and how to take what it says.

    Attributes:
        status: what it last said.
        age_s: seconds since.
        state: as it says; or "silent" where it should have said something since, or "dead" where its process is gone.
    """

    status: RunStatus
    age_s: float
    state: str

    @property
    def left(self) -> int | None:
        """Videos that it has still to finish; None before that is known."""
        videos = self.status.videos
        return None if videos is None else max(0, videos - self.status.finished)

    @property
    def eta_s(self) -> float | None:
        """Seconds until it is done at its rate, for a run under way."""
        rate = self.status.rate
        if self.state != "running" or self.left is None or not rate:
            return None
        return self.left / rate

    def to_json(self) -> dict[str, Any]:
        """The run as JSON values."""
        said = self.status.model_dump(by_alias=True, exclude={"seal", "schema_", "state"})
        return {**said, "state": self.state, "age_s": round(self.age_s, 1), "left": self.left, "eta_s": self.eta_s}


def status(root: Path, *, everything: bool = False) -> dict[str, Any]:
    """Every run that is under way on the store at `root`, or was within a day, and their sum.

    Args:
        root: of the store, a folder or a URL.
        everything: runs that ended longer ago too.

    Returns:
        JSON values under the schema `vqa-train/status/1`: `runs`, `total`, and `unreadable` files.

    Raises:
        StoreError: there is no store, or it cannot be read.
    """
    check_store(root)
    runs: list[RunView] = []
    unreadable: list[str] = []
    for name in filesystem.names(root / STATUS, ".json"):
        try:
            view = _view(root / STATUS / name)
        except FileNotFoundError:
            continue  # gc came between
        except StoreError as error:
            unreadable.append(error.message)
            continue
        if everything or view.state == "running" or view.age_s <= SHOWN_S:
            runs.append(view)
    runs.sort(key=lambda view: (view.status.started, view.status.run_id))
    return {
        "schema": SCHEMA,
        "store": str(root),
        "runs": [view.to_json() for view in runs],
        "total": _total(runs),
        "unreadable": unreadable,
    }


def _view(path: Path) -> RunView:
    found = parse_sealed(RunStatus, filesystem.read(path, "status of a run"), f"status of a run {str(path)!r}")
    age_s = max(0.0, filesystem.age_s(path))
    return RunView(found, age_s, _state(found, age_s))


def _state(found: RunStatus, age_s: float) -> str:
    if found.state != "running":
        return found.state
    if found.host == socket.gethostname() and not _is_alive(found.pid):
        return "dead"
    return "silent" if age_s > max(_PATIENCE_S, _MISSED_BEATS * found.interval_s) else "running"


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _total(runs: Sequence[RunView]) -> dict[str, Any]:
    """Sums; the time left is that of the slowest run under way."""
    running = [view for view in runs if view.state == "running"]
    known = [view.left for view in running if view.left is not None]
    times = [view.eta_s for view in running]
    complete = [seconds for seconds in times if seconds is not None]
    sets: dict[str, Counter[str]] = {}
    failures: Counter[str] = Counter()
    for view in runs:
        for report in view.status.sets:
            counts = sets.setdefault(report["name"], Counter())
            counts["done"] += report["done"]
            counts["failed"] += sum(report["failed"].values())
            failures.update(report["failed"])
    return {
        "running": len(running),
        "finished": sum(view.status.finished for view in runs),
        "left": sum(known) if len(known) == len(running) else None,
        "rate": round(sum(view.status.rate or 0.0 for view in running), 4),
        "eta_s": max(complete, default=0.0) if running and len(complete) == len(times) else None,
        "failures": dict(sorted(failures.items())),
        "sets": {name: {"done": c["done"], "failed": c["failed"]} for name, c in sorted(sets.items())},
    }
