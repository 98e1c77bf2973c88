"""Threads that each run whole blocks of work, instead of sharing every small operation of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from threading import Barrier, Lock
from types import TracebackType
from typing import TypeVar

import torch

Item = TypeVar("Item")


class Team:
    """As many threads as torch has in the calling thread, for the length of a `with`; with one, the caller itself.

    An operation of 50 microseconds that two threads share spends much of its time on their meeting, and wherever
    another process takes one of the cores, the other thread spins until it has it back.
    """

    def __init__(self) -> None:
        self._threads = torch.get_num_threads()
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> Team:
        if self._threads > 1:
            started = Barrier(self._threads + 1)

            def start() -> None:
                # A thread takes over the process's setting when it first asks for it, and only then keeps its own.
                torch.get_num_threads()
                torch.set_num_threads(1)
                started.wait()

            self._pool = ThreadPoolExecutor(self._threads, "dover", initializer=start)
            for _ in range(self._threads):
                self._pool.submit(int)
            started.wait()
            # The members' setting is theirs alone, but threads that start later would begin with it.
            torch.set_num_threads(self._threads)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def run(self, work: Callable[[Item], None], items: Iterable[Item]) -> None:
        """Do the work for every item, in no particular order; return when all is done, or raise what a member did."""
        if self._pool is None:
            for item in items:
                work(item)
            return
        inference = torch.is_inference_mode_enabled()
        waiting, lock = iter(items), Lock()

        def member() -> None:
            # Both are settings of a thread.
            with torch.no_grad(), torch.inference_mode(inference):
                while True:
                    with lock:
                        taken = list(islice(waiting, 1))
                    if not taken:
                        return
                    work(taken[0])

        for done in [self._pool.submit(member) for _ in range(self._threads)]:
            done.result()
