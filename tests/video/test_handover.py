"""Frames handed over in shared memory: same bytes, no file left, swept after a kill, refused when there is no room."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vqa_train.core.errors import MediaError, Reason, VqaError
from vqa_train.video import handover
from vqa_train.video.handover import Exchange, share


@pytest.fixture(autouse=True)
def own_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in place of /dev/shm, so that tests see only their own files."""
    folder = tmp_path / "shm"
    folder.mkdir()
    monkeypatch.setattr(handover, "_SHARED_MEMORY", folder)
    return folder


def test_frames_arrive_and_their_file_is_gone() -> None:
    exchange = Exchange()
    sent = share(exchange.folders, "w-1", (2, 4, 6, 3))
    sent[:] = np.arange(sent.size, dtype=np.uint8).reshape(sent.shape)
    got = exchange.take("w-1", (2, 4, 6, 3))
    np.testing.assert_array_equal(got, sent)
    assert not any(list(folder.iterdir()) for folder in exchange.folders)
    exchange.close()


def test_frames_outlive_the_exchange() -> None:
    exchange = Exchange()
    share(exchange.folders, "w-1", (1, 2, 2, 3))[:] = 7
    got = exchange.take("w-1", (1, 2, 2, 3))
    exchange.close()
    assert (got == 7).all()


def test_no_frames_are_handed_over_too() -> None:
    exchange = Exchange()
    share(exchange.folders, "w-1", (0, 2, 2, 3))
    assert exchange.take("w-1", (0, 2, 2, 3)).shape == (0, 2, 2, 3)
    exchange.close()


def test_missing_frames_are_an_error() -> None:
    exchange = Exchange()
    with pytest.raises(VqaError, match="'w-1' are gone"):
        exchange.take("w-1", (1, 2, 2, 3))
    exchange.close()


def test_what_a_dead_worker_left_is_discarded_and_others_files_are_not() -> None:
    exchange = Exchange()
    share(exchange.folders, "dead-1", (1, 2, 2, 3))
    share(exchange.folders, "live-1", (1, 2, 2, 3))
    exchange.discard("dead-")
    assert [path.name for path in exchange.folders[0].iterdir()] == ["live-1"]
    exchange.close()


def test_closing_leaves_nothing(own_memory: Path) -> None:
    exchange = Exchange()
    share(exchange.folders, "w-1", (1, 2, 2, 3))
    exchange.close()
    assert list(own_memory.iterdir()) == []


def test_a_full_memory_falls_back_to_the_next_folder(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    gone = tmp_path / "gone"
    share([gone, other], "w-1", (1, 2, 2, 3))
    assert (other / "w-1").stat().st_size == 12
    with pytest.raises(MediaError) as caught:
        share([gone], "w-1", (1, 2, 2, 3))
    assert caught.value.reason is Reason.OUT_OF_MEMORY


def test_more_than_the_disk_holds_is_out_of_memory_and_leaves_no_file(own_memory: Path) -> None:
    with pytest.raises(MediaError) as caught:
        share([own_memory], "w-1", (1 << 20, 1 << 20, 1 << 20, 3))
    assert caught.value.reason is Reason.OUT_OF_MEMORY
    assert list(own_memory.iterdir()) == []


def test_folders_of_killed_processes_are_swept_and_those_in_use_are_not(own_memory: Path) -> None:
    script = (
        "import os, pathlib, sys\n"
        "from vqa_train.video import handover\n"
        "handover._SHARED_MEMORY = pathlib.Path(sys.argv[1])\n"
        "exchange = handover.Exchange()\n"
        "handover.share(exchange.folders, 'w-1', (1, 2, 2, 3))\n"
        "print(exchange.folders[0], flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(own_memory)], capture_output=True, text=True, check=False)
    stale = Path(done.stdout.strip())
    assert done.returncode == -9
    assert (stale / "w-1").exists()
    (own_memory / "unrelated").mkdir()
    first = Exchange()
    second = Exchange()
    assert not stale.exists()
    assert first.folders[0].exists()
    assert (own_memory / "unrelated").exists()
    assert f"-{os.getpid()}-" in first.folders[0].name
    second.close()
    first.close()
