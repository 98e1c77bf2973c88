"""The spool holds no more than its limit, and nothing of a process that was killed."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from vqa_train.core import remote, spool
from vqa_train.core.hashing import sha256_bytes
from vqa_train.core.locations import location

HOLD = (
    "import fcntl, os, sys, time; f = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR); os.truncate(f, 100);"
    "fcntl.flock(f, fcntl.LOCK_EX); print('held', flush=True); time.sleep(600)"
)


@pytest.fixture
def video(tmp_path: Path) -> Any:
    """100 bytes in fsspec's memory."""
    path = location(f"memory://{tmp_path}/v.mp4")
    remote.write(path, b"v" * 100)
    return path


def spooled_files() -> list[Path]:
    return [path for path in spool.folder().iterdir() if path.name != ".lock"]


def test_a_spooled_file_is_the_object_and_is_gone_at_the_end(video: Any) -> None:
    with spool.spooled(video, 100) as (local, sha256):
        assert local.read_bytes() == b"v" * 100 and local.suffix == ".mp4"
        assert sha256 == sha256_bytes(b"v" * 100)
    assert spooled_files() == []


def test_it_is_gone_after_an_error_too(video: Any) -> None:
    remote.remove(video)
    with pytest.raises(FileNotFoundError), spool.spooled(video, 100):
        raise AssertionError("not reached")
    assert spooled_files() == []


def test_a_large_object_arrives_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "CHUNK", 7)
    data = bytes(range(250))
    path = location(f"memory://{tmp_path}/large")
    remote.write(path, data)
    with spool.spooled(path, len(data)) as (local, sha256):
        assert local.read_bytes() == data and sha256 == sha256_bytes(data)


def test_a_second_file_waits_for_room(video: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VQA_TRAIN_SPOOL_BYTES", "150")
    order: list[str] = []
    waiting = threading.Event()

    def second() -> None:
        with spool.spooled(video, 100, waited=waiting.set):
            order.append("second")

    with spool.spooled(video, 100):
        thread = threading.Thread(target=second)
        thread.start()
        assert waiting.wait(30)
        order.append("first")
    thread.join(30)
    assert order == ["first", "second"]


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_holds_is_not(video: Any) -> None:
    spool.folder().mkdir(parents=True)
    held = spool.folder() / "held.mp4"
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(held)], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None and process.stdout.readline() == b"held\n"
        spool.sweep()
        assert held.exists()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    with spool.spooled(video, 100) as (local, _):
        assert spooled_files() == [local]
