"""Does one thing to many items in a few threads at a time, and gives the results in the order of the items."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Event, Semaphore, Thread
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

# A thread that is in the middle of a graph cannot be stopped; whoever interrupts does not wait for it longer.
_PATIENCE_S = 5.0


def in_lanes(work: Callable[[T], R], items: Iterable[T], lanes: int) -> Iterator[R]:
    """`work(item)` for each of `items`, in their order, `lanes` at once.

    Items are read in a thread of their own, at most two per lane ahead of what has been taken: a result does not wait
    for an item that is yet to come (from a pipe), and an endless iterable is fine.

    Raises:
        Exception: what `work` or `items` raised, in its place.
    """
    if lanes == 1:
        # Nothing is read ahead, so nothing can wait for what comes.
        yield from map(work, items)
        return
    yield from _Lanes(work, lanes).run(items)


class _Lanes(Generic[T, R]):
    def __init__(self, work: Callable[[T], R], lanes: int) -> None:
        self._work = work
        self._jobs: SimpleQueue[tuple[T, Future[R]] | None] = SimpleQueue()
        self._order: SimpleQueue[Future[R] | None] = SimpleQueue()
        self._room = Semaphore(2 * lanes)
        self._stop = Event()
        self._threads = [Thread(target=self._lane, name=f"lane-{i}", daemon=True) for i in range(lanes)]

    def run(self, items: Iterable[T]) -> Iterator[R]:
        reader = Thread(target=self._read, args=(items,), name="lane-reader", daemon=True)
        for thread in (*self._threads, reader):
            thread.start()
        whole = False
        try:
            while (future := self._order.get()) is not None:
                yield future.result()
                self._room.release()
            whole = True
        finally:
            self._stop.set()
            self._room.release()
            for _ in self._threads:
                self._jobs.put(None)
            for thread in self._threads:
                thread.join(None if whole else _PATIENCE_S)

    def _read(self, items: Iterable[T]) -> None:
        try:
            for item in items:
                self._room.acquire()
                if self._stop.is_set():
                    break
                future: Future[R] = Future()
                self._order.put(future)
                self._jobs.put((item, future))
        except BaseException as error:
            failed: Future[R] = Future()
            failed.set_exception(error)
            self._order.put(failed)
        finally:
            self._order.put(None)

    def _lane(self) -> None:
        while (job := self._jobs.get()) is not None and not self._stop.is_set():
            item, future = job
            try:
                future.set_result(self._work(item))
            except BaseException as error:
                future.set_exception(error)
