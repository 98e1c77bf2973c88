"""What is here and whether it is what it was, with and without reading it."""

from __future__ import annotations

import os
import time

from vqa_train.core.hashcache import HashCache
from vqa_train.core.hashing import sha256_bytes
from vqa_train.weights.find import find_weights
from vqa_train.weights.status import status

DATA = b"the weights"


def put(path, data=DATA):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.utime(path, (time.time() - 60,) * 2)
    return path


def test_every_state_is_told_apart(make_entry, weights_folder) -> None:
    entry = make_entry("f.pth", "c.json")
    found = status(entry, None)
    assert (found.state, found.location, found.bytes, found.pinned, found.error) == ("missing", None, None, {}, None)
    put(weights_folder / "one" / "f.pth")
    found = status(entry, None)
    assert (found.state, found.bytes) == ("incomplete", len(DATA))
    assert "has no c.json" in (found.error or "")
    put(weights_folder / "one" / "c.json", b"{}")
    find_weights(entry)
    found = status(entry, None)
    assert (found.state, found.bytes, found.error) == ("present", len(DATA) + 2, None)
    assert found.sha256 == found.pinned == {"f.pth": sha256_bytes(DATA), "c.json": sha256_bytes(b"{}")}
    put(weights_folder / "one" / "c.json", b"[]")
    found = status(entry, None)
    assert found.state == "changed"
    assert "at first use" in (found.error or "")


def test_bytes_that_rotted_under_an_unchanged_stat_are_found_by_reading_only(make_entry, weights_folder) -> None:
    path = put(weights_folder / "one" / "f.pth")
    entry = make_entry("f.pth")
    find_weights(entry)
    cache = HashCache()
    assert status(entry, cache).state == "present"
    # The cache is told that the rotten file was hashed as it was before.
    put(path, DATA.upper())
    cache.remember(path, sha256_bytes(DATA))
    assert status(entry, cache).state == "present"
    assert status(entry, None).state == "changed"
