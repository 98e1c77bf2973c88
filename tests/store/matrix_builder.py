"""Fills a store, maps its features and reads them, and prints how much anonymous memory that took; run by a test."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

import numpy as np

from vqa_train.core.hashing import sha256_bytes
from vqa_train.core.types import FeatureSpec, OutputSpec
from vqa_train.store.store import FeatureStore

ROWS, DIMS, SHARD = 200_000, 256, 10_000


def anonymous_kib() -> int:
    """This process's anonymous memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def values(start: int) -> np.ndarray:
    """The features of a shard, decided by its place."""
    return np.random.default_rng(start).normal(size=(SHARD, DIMS)).astype(np.float32)


def main(root: Path) -> None:
    spec = FeatureSpec(
        backbone="made",
        definition=1,
        modality="video",
        outputs=(OutputSpec(name="pooled", shape=(DIMS,)),),
        preprocessing={"imported": {}},
    )
    keys = [sha256_bytes(str(number).encode()) for number in range(ROWS)]
    features = FeatureStore(root).create_set(spec, license="MIT")
    for start in range(0, ROWS, SHARD):
        features.append_arrays(keys[start : start + SHARD], {"pooled": values(start)}, profile={}, run_id="r")
    before, peak, done = anonymous_kib(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.002):
            peak = max(peak, anonymous_kib())

    watcher = threading.Thread(target=watch)
    watcher.start()
    order = np.random.default_rng(0).permutation(ROWS)
    mapped = FeatureStore.open(root).find("made").mapped("pooled", [keys[row] for row in order])
    for start in range(0, ROWS, 4096):
        mapped.read(start, min(start + 4096, ROWS))
    done.set()
    watcher.join()
    checked = 0
    for position in range(0, ROWS, 10_000):
        row = int(order[position])
        expected = values(row - row % SHARD)[row % SHARD]
        checked += bool((mapped.rows([position])[0] == expected).all())
    result = {"bytes": mapped.path.stat().st_size, "grown_mib": (peak - before) / 1024, "checked": checked}
    sys.stdout.write(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
