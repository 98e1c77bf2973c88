"""Ctrl-C and SIGTERM on a long command: once lets it finish what is under way, twice stops it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event
from types import FrameType

from vqa_train.cli.common import EXIT_INTERRUPTED

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Schedulers may deliver one SIGTERM by two ways (to the job's script, which passes it on, and to every process).
_SAME_SIGTERM_S = 1.0


@contextmanager
def stop_on_signals() -> Iterator[Event]:
    """An event that the first Ctrl-C or SIGTERM sets; the second raises KeyboardInterrupt, the third ends the process.

    A SIGTERM that follows another signal within a second is taken for the same request. Only in the main thread.
    """
    stop = Event()
    requests: list[float] = []

    def ask(number: int, _frame: FrameType | None) -> None:
        instant = time.monotonic()
        if number == signal.SIGTERM and requests and instant - requests[-1] < _SAME_SIGTERM_S:
            return
        requests.append(instant)
        if len(requests) == 1:
            stop.set()
            _say("stopping: what is under way is finished and committed; a second time stops now")
        elif len(requests) == 2:
            _say("stopping now: committing what is ready")
            raise KeyboardInterrupt
        else:
            os._exit(EXIT_INTERRUPTED)

    before = {number: signal.signal(number, ask) for number in _SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(text: str) -> None:
    """A line on stderr past its buffer, which the signal may have found half written."""
    with suppress(OSError):
        os.write(2, f"{text}\n".encode())
