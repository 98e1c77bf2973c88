"""What a running extraction tells others about itself: a small file under the store, replaced every few seconds."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal

from pydantic import Field

from vqa_train.core.config import StrictModel
from vqa_train.core.errors import VqaError
from vqa_train.engines.base import TaskResult
from vqa_train.pipelines.extract.config import ExtractConfig, SetReport
from vqa_train.store import filesystem
from vqa_train.store.layout import STATUS, STATUS_SCHEMA, STORE_FILE
from vqa_train.store.seal import sealed

INTERVAL_S = 5.0
REMOTE_INTERVAL_S = 15.0
"""Behind a URL each beat is an upload that somebody pays for."""
_RECENT_S = 120.0

State = Literal["running", "ended", "interrupted", "failed"]


class RunStatus(StrictModel):
    """status/<run id>.json: one run, as it was when it last said something.

    Attributes:
        run_id: of the run.
        state: what it was at.
        host, pid: the process that leads it.
        engine, dataset, shard: what it was asked for; shard is "index/count".
        started, updated: UTC, ISO 8601.
        interval_s: seconds until the next beat.
        videos: to decode in this run; null before that is known.
        finished: of these, with rows or a failure for every set.
        rate: videos finished per second over the last two minutes; null before the first.
        sets: counts per feature set, as in the report of the run; `done` is committed.
        workers: by host:pid, videos done and failed, where other processes compute.
    """

    schema_: Literal["vqa-train/run-status/1"] = Field(alias="schema")
    run_id: str
    state: State
    host: str
    pid: int
    engine: str
    dataset: str
    shard: str
    started: str
    updated: str
    interval_s: float
    videos: int | None
    finished: int
    rate: float | None
    sets: tuple[dict[str, Any], ...]
    workers: dict[str, dict[str, int]]
    seal: str


class Heartbeat:
    """Writes the status of a run until it ends; a context manager around the run.

    Args:
        config: of the run.
        run_id: names the file.
        log: told, once, when the file cannot be written; the run goes on.
        interval_s: seconds between beats; None for what suits the store.
    """

    def __init__(
        self, config: ExtractConfig, run_id: str, log: Callable[[str], None], interval_s: float | None = None
    ) -> None:
        from vqa_train.core.locations import is_remote

        self._config = config
        self._run_id = run_id
        self._log = log
        self._interval_s = interval_s or (REMOTE_INTERVAL_S if is_remote(config.output) else INTERVAL_S)
        self._path = config.output / STATUS / f"{run_id}.json"
        self._started = datetime.now(UTC)
        self._reports: Sequence[SetReport] = ()
        self._videos: int | None = None
        self._planned = time.monotonic()
        self._finished = 0
        self._times: deque[float] = deque(maxlen=10_000)
        self._workers: dict[str, Counter[str]] = {}
        self._state: State = "running"
        self._warned = False
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="heartbeat")

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            self._state = "interrupted" if issubclass(kind, KeyboardInterrupt) else "failed"
        self._over.set()
        self._thread.join(self._interval_s)
        self.write()

    def plan(self, reports: Sequence[SetReport], videos: int | None = None) -> None:
        """The feature sets' reports, which are read while the run goes on, and the videos to decode."""
        self._reports = list(reports)
        self._videos = videos
        self._planned = time.monotonic()
        self.write()

    def result(self, result: TaskResult) -> None:
        """One video is finished."""
        self._finished += 1
        self._times.append(time.monotonic())
        if result.worker:
            counts = self._workers.setdefault(result.worker, Counter())
            counts["failed" if result.failures else "done"] += 1

    def end(self, *, interrupted: bool) -> None:
        """The run has come to its end."""
        self._state = "interrupted" if interrupted else "ended"

    def write(self) -> None:
        """Write the file now, where there is a store."""
        with self._lock:
            try:
                if filesystem.exists(self._config.output / STORE_FILE):
                    filesystem.write(self._path, sealed(self._record()))
            except VqaError as error:
                if not self._warned:
                    self._log(f"warning: `vqa-train status` will not see this run: {error}")
                self._warned = True

    def _beat(self) -> None:
        while not self._over.wait(self._interval_s):
            self.write()

    def _record(self) -> dict[str, Any]:
        return {
            "schema": STATUS_SCHEMA,
            "run_id": self._run_id,
            "state": self._state,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "engine": self._config.engine,
            "dataset": self._config.dataset,
            "shard": str(self._config.shard),
            "started": self._started.isoformat(timespec="microseconds"),
            "updated": datetime.now(UTC).isoformat(timespec="seconds"),
            "interval_s": self._interval_s,
            "videos": self._videos,
            "finished": self._finished,
            "rate": self._rate(),
            "sets": [report.to_json() for report in self._reports],
            "workers": {name: dict(counts) for name, counts in list(self._workers.items())},
        }

    def _rate(self) -> float | None:
        """Videos finished per second over the last two minutes, or over the last ten thousand of them."""
        times = list(self._times)
        if not times:
            return None
        now = time.monotonic()
        known_since = times[0] if len(times) == self._times.maxlen else self._planned
        begun = max(now - _RECENT_S, known_since)
        return round(sum(instant > begun for instant in times) / max(now - begun, 1e-9), 4)
