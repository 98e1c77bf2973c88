"""The parent's handle on one worker process: start it, talk to it, end it, say what it died of."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections import deque
from contextlib import suppress
from multiprocessing.connection import Pipe
from typing import Any

from vqa_train.core.errors import Reason
from vqa_train.video.job import DecodeJob

_END_S = 10.0


class WorkerProcess:
    """A fresh Python interpreter running `vqa_train.video.worker_main`; nothing is forked or inherited.

    Attributes:
        name: begins the names of the files it makes.
        connection: to talk to it.
        jobs: the one it runs or will run next, then those behind.
        taken: jobs it was given in all.
        started: time.monotonic() at which it took up jobs[0], or None.
        deadline: time.monotonic() after which it is to be given up.
    """

    def __init__(self, setup: dict[str, Any]) -> None:
        self.name = f"{uuid.uuid4().hex[:8]}-"
        self.jobs: deque[DecodeJob] = deque()
        self.taken = 0
        self.started: float | None = None
        self.deadline = float("inf")
        self.connection, theirs = Pipe()
        lifeline, self._lifeline = os.pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "vqa_train.video.worker_main", str(theirs.fileno()), str(lifeline)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), lifeline),
                # Out of the terminal's process group: Ctrl-C is for the parent to handle.
                process_group=0,
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
                    # Memory that idle threads reserve would count against the worker's limit.
                    "MALLOC_ARENA_MAX": "2",
                    "OPENBLAS_NUM_THREADS": "1",
                },
            )
        finally:
            theirs.close()
            os.close(lifeline)
        self._send({**setup, "name": self.name})

    def send(self, job: DecodeJob) -> None:
        """Queue a job."""
        self.jobs.append(job)
        self.taken += 1
        self._send({"key": job.key, "path": str(job.path), "verify": job.verify})

    def _send(self, message: dict[str, Any]) -> None:
        # A worker that is gone is noticed when its answer is read.
        with suppress(OSError):
            self.connection.send_bytes(json.dumps(message).encode())

    def kill(self) -> int:
        """Stop it now; the exit status as `subprocess` gives it."""
        self._process.kill()
        return self.end()

    def end(self) -> int:
        """Wait for a worker that closed its connection, stop it if it stays; the exit status."""
        self.connection.close()
        try:
            status = self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1
        return status


def cause_of_death(status: int) -> tuple[Reason, str]:
    """Reason and words for an exit status of a worker that we did not end."""
    if status == -signal.SIGKILL:
        return Reason.OUT_OF_MEMORY, "the system killed the decoding process, most likely for want of memory"
    if status < 0:
        try:
            name = signal.Signals(-status).name
        except ValueError:
            name = f"signal {-status}"
        return Reason.CRASH, f"the decoding process crashed ({name})"
    return Reason.CRASH, f"the decoding process exited with status {status}"
