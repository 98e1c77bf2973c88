"""Several at once, in order, reading no further ahead than it must."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import count, islice
from threading import Event

import pytest

from vqa_train.pipelines.score.lanes import in_lanes


@pytest.mark.parametrize("lanes", [1, 2, 5])
def test_results_are_in_the_order_of_the_items_whoever_is_first(lanes: int) -> None:
    done = [Event() for _ in range(20)]

    def work(i: int) -> int:
        if lanes > 1 and i % 2 == 0 and i + 1 < len(done):
            done[i + 1].wait(30)  # each second one is done before the one that precedes it
        done[i].set()
        return i * i

    assert list(in_lanes(work, range(20), lanes)) == [i * i for i in range(20)]


def test_as_many_are_at_work_as_there_are_lanes() -> None:
    together = threading.Barrier(3, timeout=30)
    assert list(in_lanes(lambda _: together.wait() >= 0, range(9), 3)) == [True] * 9


def test_an_endless_source_is_read_only_a_little_ahead() -> None:
    read: list[int] = []

    def source() -> Iterator[int]:
        for i in count():
            read.append(i)
            yield i

    results = in_lanes(lambda i: i, source(), 2)
    assert list(islice(results, 10)) == list(range(10))
    results.close()  # type: ignore[attr-defined]
    assert len(read) <= 10 + 2 * 2 + 1


def test_a_result_does_not_wait_for_an_item_that_is_yet_to_come() -> None:
    later = Event()

    def source() -> Iterator[int]:
        yield 1
        assert later.wait(30)
        yield 2

    results = in_lanes(lambda i: i, source(), 2)
    assert next(results) == 1
    later.set()
    assert list(results) == [2]


def test_errors_of_the_work_and_of_the_source_arrive_in_their_place() -> None:
    def work(i: int) -> int:
        if i == 2:
            raise ValueError("two")
        return i

    results = in_lanes(work, range(9), 3)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="two"):
        next(results)

    def source() -> Iterator[int]:
        yield 0
        raise OSError("no more")

    results = in_lanes(work, source(), 3)
    assert next(results) == 0
    with pytest.raises(OSError, match="no more"):
        next(results)


def test_no_thread_is_left_behind() -> None:
    before = set(threading.enumerate())
    list(in_lanes(lambda i: i, range(50), 4))
    results = in_lanes(lambda i: i, count(), 4)
    next(results)
    results.close()  # type: ignore[attr-defined]
    left = [thread for thread in set(threading.enumerate()) - before if thread.name.startswith("lane")]
    for thread in left:
        thread.join(30)
    assert not any(thread.is_alive() for thread in left)
