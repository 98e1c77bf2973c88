"""Writer processes for the crash and concurrency tests: run as a script, never imported by one.

    writer.py limited ROOT             append growing batches under a file size limit until one fails
    writer.py killed ROOT TRIALS SEED  fork writers that are killed (SIGKILL) at random moments
    writer.py together ROOT WRITERS    fork writers that append, fail and snapshot all at once

Every key is printed once its append has returned. Rows are decided by their number alone, as are keys.
"""

from __future__ import annotations

import hashlib
import os
import random
import resource
import signal
import sys
from pathlib import Path

import numpy as np

from vqa_train.core.errors import Reason, StoreError
from vqa_train.core.types import FeatureSpec, OutputSpec
from vqa_train.store import append as _append  # noqa: F401  (pyarrow is loaded once, before any fork)
from vqa_train.store.rows import Failure, FeatureRow
from vqa_train.store.store import FeatureSet, FeatureStore

SPEC = FeatureSpec(
    backbone="nss",
    definition=1,
    modality="video",
    outputs=(OutputSpec(name="pooled", shape=(4,)), OutputSpec(name="tokens", shape=(3, 2))),
)


def make_row(number: int) -> FeatureRow:
    return FeatureRow(
        key=hashlib.sha256(str(number).encode()).hexdigest(),
        outputs={
            "pooled": np.arange(4, dtype=np.float32) + number,
            "tokens": np.full((3, 2), number, dtype=np.float32),
        },
        facts={
            "num_frames": number,
            "fps": 24.0,
            "width": 128,
            "height": 96,
            "duration_s": 1.0,
            "codec": "h264",
            "decoder": "none",
        },
    )


def append(features: FeatureSet, numbers: range) -> None:
    rows = [make_row(number) for number in numbers]
    features.append(rows, profile={"device": "cpu"}, run_id="r")
    os.write(1, "".join(f"{row.key}\n" for row in rows).encode())


def limited(root: Path) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    features = FeatureStore(root).create_set(SPEC, license="MIT")
    resource.setrlimit(resource.RLIMIT_FSIZE, (16_384, 16_384))
    try:
        for size in range(1, 500, 20):
            append(features, range(size * 1000, size * 1000 + size))
    except StoreError as error:
        print(error)


def killed(root: Path, trials: int, seed: int) -> None:
    rng = random.Random(seed)
    steps = None
    for trial in range(trials):
        # The first writer runs to its end and tells how many steps there are to die at.
        limit = rng.randrange(steps) if steps is not None else None
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            taken = _work(root, trial, limit)
            os.write(write, str(taken).encode())
            os._exit(0)
        os.close(write)
        _, status = os.waitpid(child, 0)
        if steps is None:
            steps = int(os.read(read, 100))
        elif os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
            sys.exit(f"writer {trial} was not killed: {status}")
        os.close(read)


def _work(root: Path, trial: int, limit: int | None) -> int:
    """Append three batches; SIGKILL itself before line `limit` of those executed in the package and pathlib."""
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

    sys.settrace(trace)
    features = FeatureStore(root).create_set(SPEC, license="MIT")
    for batch in range(3):
        start = trial * 100 + batch * 10
        append(features, range(start, start + 4))
        features.add_failures(
            [Failure(key=None, id="x", path=f"{start}.mp4", reason=Reason.UNREADABLE, message="m")], "r"
        )
    features.snapshot()
    sys.settrace(None)
    return taken


def together(root: Path, writers: int) -> None:
    """Each writer has 20 keys of its own and 20 that all of them write."""
    start, go = os.pipe()
    children = []
    for writer in range(writers):
        child = os.fork()
        if child == 0:
            os.close(go)
            os.read(start, 1)  # returns when the parent closes its end: all begin at once
            features = FeatureStore(root).create_set(SPEC, license="MIT")
            for batch in range(4):
                first = 10_000 + writer * 100 + batch * 5
                append(features, range(first, first + 5))
                append(features, range(batch * 5, batch * 5 + 5))
            failure = Failure(key=None, id=str(writer), path=f"{writer}.mp4", reason=Reason.UNREADABLE, message="m")
            features.add_failures([failure], "r")
            features.snapshot()
            os._exit(0)
        children.append(child)
    os.close(go)
    for child in children:
        if os.waitpid(child, 0)[1] != 0:
            sys.exit("a writer failed")


if __name__ == "__main__":
    mode, root, *numbers = sys.argv[1:]
    {"limited": limited, "killed": killed, "together": together}[mode](Path(root), *map(int, numbers))
