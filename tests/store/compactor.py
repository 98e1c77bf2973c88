"""Compacting processes for the tests: run as a script, never imported by one.

    compactor.py killed ROOT TRIALS SEED  compact fresh copies of a store in processes that are killed (SIGKILL) at
                                          random moments, and then once more; a reader reads in a loop all the while
    compactor.py together ROOT PROCESSES  compact one store in processes that all begin at once, beside a reader

Prints one line per trial: shards that the killed process left, shards after the next compaction.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
from pathlib import Path

from vqa_train.store import compact as _compact  # noqa: F401  (pyarrow is loaded once, before any fork)
from vqa_train.store import read as _read  # noqa: F401
from vqa_train.store.store import FeatureSet, FeatureStore

TARGET_ROWS = 40


def features_of(root: Path) -> FeatureSet:
    return FeatureStore.open(root).find("nss")


def reader(root: Path) -> tuple[int, int]:
    """Fork a reader; it ends well when its pipe is closed and every table so far was the first one."""
    stop, go_on = os.pipe()
    child = os.fork()
    if child:
        os.close(stop)
        return child, go_on
    os.close(go_on)
    os.set_blocking(stop, False)
    expected, old, reads = features_of(root).read(), features_of(root), 0
    while True:
        # One that keeps what it has listed, one that lists afresh.
        if not old.read().equals(expected) or not features_of(root).read().equals(expected):
            os._exit(1)
        reads += 1
        try:
            os.read(stop, 1)
        except BlockingIOError:
            continue
        os._exit(0 if reads else 2)


def stop(child: int, go_on: int) -> None:
    os.close(go_on)
    if os.waitpid(child, 0)[1] != 0:
        sys.exit("the reader saw another table, or an error")


def compact_and_die(root: Path, limit: int | None) -> int:
    """Compact; SIGKILL itself before line `limit` of those executed in the package and pathlib."""
    taken = 0

    def trace(frame, event, _):
        nonlocal taken
        if "vqa_train" not in frame.f_code.co_filename and "pathlib" not in frame.f_code.co_filename:
            return None
        if event == "line":
            if taken == limit:
                os.kill(os.getpid(), signal.SIGKILL)
            taken += 1
        return trace

    features = features_of(root)
    sys.settrace(trace)
    features.compact(target_rows=TARGET_ROWS)
    sys.settrace(None)
    return taken


def once_more(root: Path) -> None:
    """Compact in a process of its own: this one must start no thread of Arrow's, as it forks."""
    child = os.fork()
    if child == 0:
        features_of(root).compact(target_rows=TARGET_ROWS)
        os._exit(0)
    if os.waitpid(child, 0)[1] != 0:
        sys.exit("the compaction after it failed")


def killed(root: Path, trials: int, seed: int) -> None:
    rng, steps = random.Random(seed), None
    for trial in range(trials):
        copy = root.with_name(f"copy{trial}")
        shutil.copytree(root, copy)
        watching = reader(copy)
        # The first one runs to its end and tells how many steps there are to die at.
        limit = rng.randrange(steps) if steps is not None else None
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(write, str(compact_and_die(copy, limit)).encode())
            os._exit(0)
        os.close(write)
        _, status = os.waitpid(child, 0)
        if steps is None:
            steps = int(os.read(read, 100))
        elif os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
            sys.exit(f"compaction {trial} was not killed: {status}")
        os.close(read)
        left = len(features_of(copy).commits())
        shutil.copytree(copy, root.with_name(f"killed{trial}"))
        once_more(copy)
        stop(*watching)
        print(left, len(features_of(copy).commits()))


def together(root: Path, processes: int) -> None:
    watching, children = reader(root), []
    start, go = os.pipe()  # after the reader: a copy of `go` in it would hold everybody up
    for _ in range(processes):
        child = os.fork()
        if child == 0:
            os.close(go)
            features = features_of(root)
            os.read(start, 1)  # returns when the parent closes its end: all begin at once
            features.compact(target_rows=TARGET_ROWS)
            os._exit(0)
        children.append(child)
    os.close(go)
    for child in children:
        if os.waitpid(child, 0)[1] != 0:
            sys.exit("a compaction failed")
    left = len(features_of(root).commits())
    once_more(root)
    stop(*watching)
    print(left, len(features_of(root).commits()))


if __name__ == "__main__":
    mode, root, *numbers = sys.argv[1:]
    {"killed": killed, "together": together}[mode](Path(root), *map(int, numbers))
