"""A decoding worker process: takes jobs from its parent one by one, dies with it, and is told apart when it crashes.

Messages are JSON over a socket: nothing that a broken worker sends can become code in the parent.
"""

from __future__ import annotations

import fcntl
import json
import os
import resource
import signal
import sys
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.errors import VqaError
from vqa_train.core.locations import location
from vqa_train.core.types import Sampling
from vqa_train.video.decode import Decoder, make_decoder
from vqa_train.video.handover import share
from vqa_train.video.job import DecodeJob, DecodeLimits, failure_of, run_job


def main(channel: int, lifeline: int) -> None:
    """Serve jobs until the parent closes the channel.

    Args:
        channel: file descriptor of the socket to the parent.
        lifeline: read end of a pipe whose write end only the parent holds.
    """
    _die_with_parent(lifeline)
    _give_up_real_time()
    _be_killed_first()
    # They are the parent's to handle: schedulers send SIGTERM to every process of a job at once.
    for ignored in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    connection = Connection(channel)
    setup = json.loads(connection.recv_bytes())
    limits = DecodeLimits(**setup["limits"])
    worker = _Worker(connection, setup, limits)
    _limit_memory(limits.memory_bytes)
    while True:
        try:
            message = json.loads(connection.recv_bytes())
        except EOFError:
            return
        connection.send_bytes(json.dumps(worker.serve(message)).encode())


class _Worker:
    def __init__(self, connection: Connection, setup: dict[str, Any], limits: DecodeLimits) -> None:
        self.connection = connection
        self.samplings = [Sampling(**sampling) for sampling in setup["samplings"]]
        self.decoder: Decoder = make_decoder(setup["decoder"])
        self.threads = int(setup["threads"])
        self.planar = bool(setup["planar"])
        self.folders = [Path(folder) for folder in setup["folders"]]
        self.name = str(setup["name"])
        self.limits = limits
        self.made = 0

    def serve(self, message: dict[str, Any]) -> dict[str, Any]:
        job = DecodeJob(key=message["key"], path=location(message["path"]), verify=message["verify"])
        self._tell(event="start")
        started = time.monotonic()
        self.made += 1
        name = f"{self.name}{self.made}"

        def allocate(shape: tuple[int, ...]) -> NDArray[np.uint8]:
            self._forget(name)
            return share(self.folders, name, shape)

        size: dict[str, int] = {}

        def sized(count: int) -> None:
            size["bytes"] = count
            # The clock starts again: waiting for room in the spool is no fault of the video.
            self._tell(event="start", **size)

        try:
            done = run_job(
                job,
                self.samplings,
                self.decoder,
                self.threads,
                self.limits,
                allocate=allocate,
                probed=lambda duration: self._tell(event="probed", duration_s=duration, **size),
                planar=self.planar,
                sized=sized,
            )
        except Exception as error:
            self._forget(name)
            try:
                reason, text = failure_of(error, job.path)
            except VqaError as fatal:
                return {"event": "fatal", "type": type(fatal).__name__, "message": fatal.message, "hint": fatal.hint}
            return {"event": "failed", "reason": reason, "message": text}
        return {
            "event": "done",
            "seconds": time.monotonic() - started,
            "name": name,
            "shape": list(done.frames.shape),
            "sha256": done.sha256,
            "times": done.times.tolist(),
            "union": done.plan.union.tolist(),
            "views": [[view.tolist() for view in views] for views in done.plan.views],
            "facts": done.facts,
            "yuv": None if done.yuv is None else vars(done.yuv),
        }

    def _forget(self, name: str) -> None:
        for folder in self.folders:
            (folder / name).unlink(missing_ok=True)

    def _tell(self, **message: Any) -> None:
        # CLOCK_MONOTONIC is one clock for all processes, so the parent may read this late.
        self.connection.send_bytes(json.dumps({"at": time.monotonic(), **message}).encode())


def _die_with_parent(lifeline: int) -> None:
    """Have the kernel end this process (SIGIO's default action) when the parent's end of the pipe closes.

    It works while C code holds the interpreter lock, and whichever of the parent's threads started us, which
    PR_SET_PDEATHSIG would take for the parent.
    """
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC | os.O_NONBLOCK)
    try:
        parent_gone = os.read(lifeline, 1) == b""
    except BlockingIOError:
        return
    if parent_gone:
        sys.exit(0)


def _give_up_real_time() -> None:
    """Be scheduled like everybody else, whatever the parent is: a decoder that hangs at real-time priority would keep
    the cores to itself and the parent from stopping it. Some codec libraries raise their process to it when root
    runs them."""
    if hasattr(os, "sched_setscheduler") and os.sched_getscheduler(0) in (os.SCHED_FIFO, os.SCHED_RR):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def _be_killed_first() -> None:
    """Have the kernel, when memory runs out, choose this process rather than the parent, which is often larger."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def _limit_memory(more: int) -> None:
    """Let the address space grow by `more` bytes from here; libraries loaded so far may have reserved plenty."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    limit = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
