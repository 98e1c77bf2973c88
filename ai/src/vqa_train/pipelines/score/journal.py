"""Keeps what has been scored on disk while a long list goes on, so that the same command goes on where it stopped."""

from __future__ import annotations

import fcntl
import json
import os
import time
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, Self

from vqa_train.core.errors import UsageError, VqaError
from vqa_train.core.hashing import sha256_json
from vqa_train.pipelines.score.decode import place_of, state_of
from vqa_train.pipelines.score.report import Judged, entry, restored
from vqa_train.pipelines.score.types import Score, ScoreRequest
from vqa_train.registry.sidecar import ModelSidecar

JOURNAL_SCHEMA = "vqa-train/score-journal/1"
_SYNC_S = 2.0


def journal_path(output: Path) -> Path:
    """Where the journal of a result file is: beside it."""
    return output.with_name(f"{output.name}.journal")


class Journal:
    """Scores by video, prompt, reference and the state of the files; a line each, on the disk after two seconds.

    The first line names the model, whole, and whether there are timelines: with another one, everything is scored
    again. Failures are not kept: they are tried again.

    Args:
        output: the result file.
        sidecar: of the model.
        timeline: whether the scores have timelines.

    Attributes:
        known: scores that were there at the start.
        recalled: of those, the ones that still held and were not computed again.
        stale: whether there were some of another model or without timelines, which were dropped.

    Raises:
        UsageError: another process is at the same result file.
        OSError: it cannot be written.
    """

    def __init__(self, output: Path, sidecar: ModelSidecar, *, timeline: bool) -> None:
        self.path = journal_path(output)
        self._sidecar = sidecar
        header = {"schema": JOURNAL_SCHEMA, "model": sha256_json(sidecar.to_json()), "timeline": timeline}
        self._file = self.path.open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise UsageError(
                f"another process writes {str(output)!r}", hint="wait for it, or name another --output"
            ) from error
        self._lock = Lock()
        self._synced = 0.0
        self.recalled = 0
        self._scores, self.stale = self._read(header)
        self.known = len(self._scores)
        if not self.known:
            self._file.truncate(0)
            self._write(header)

    def _read(self, header: dict[str, Any]) -> tuple[dict[str, dict[str, Any]], bool]:
        self._file.seek(0)
        whole = [line for line in self._file if line.endswith(b"\n")]
        if not whole or _parsed(whole[0]) != header:
            return {}, len(whole) > 1
        # A line that was cut by a crash is dropped, so that the next one begins on its own.
        self._file.truncate(sum(map(len, whole)))
        lines = [found for line in whole[1:] if (found := _parsed(line)) is not None]
        return {found["key"]: found["result"] for found in lines if {"key", "result"} <= found.keys()}, False

    def recall(self, request: ScoreRequest) -> tuple[str | None, Score | None]:
        """What a score of `request`, as the files are at this moment, is kept under, and the score if there is one.

        The first is None where the files cannot be seen.
        """
        places = [place for place in (request.video, request.reference) if place is not None]
        try:
            states = [state_of(place_of(place)) for place in places]
        except VqaError:
            return None, None
        if None in states:
            return None, None
        key = sha256_json([[*map(str, places)], request.prompt, states])
        if key not in self._scores:
            return key, None
        try:
            found = restored(self._scores[key], self._sidecar)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError):
            return key, None
        if not isinstance(found, Score):
            return key, None
        with self._lock:
            self.recalled += 1
        return key, found

    def keep(self, key: str | None, score: Score) -> None:
        """Keep a score."""
        if key is not None:
            self._write({"key": key, "result": entry(Judged(score, {}))})

    def _write(self, value: dict[str, Any]) -> None:
        # ASCII alone: a file's name may be no text at all.
        line = json.dumps(value, allow_nan=False).encode("ascii") + b"\n"
        with self._lock:
            self._file.write(line)
            # In the kernel's hands it survives the end of this process; on the disk it survives the machine's.
            self._file.flush()
            if time.monotonic() - self._synced > _SYNC_S:
                os.fsync(self._file.fileno())
                self._synced = time.monotonic()

    def remove(self) -> None:
        """The result file is whole: the journal has done its work."""
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
