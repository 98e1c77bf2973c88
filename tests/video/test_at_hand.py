"""A video behind a URL decodes to the frames of the local file, through the spool or in ranges."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vqa_train.core import remote, spool
from vqa_train.core.errors import Reason
from vqa_train.core.hashing import sha256_bytes
from vqa_train.core.locations import location
from vqa_train.core.types import Sampling
from vqa_train.video.at_hand import RangedFile
from vqa_train.video.job import DecodeJob, DecodeLimits
from vqa_train.video.workers import decode_many

SAMPLINGS = [Sampling(mode="uniform", n=4)]


@pytest.fixture(params=["clip.mp4", "clip.mkv", "clip.ts"])
def pair(request: pytest.FixtureRequest, tmp_path: Path, write_video: Callable[..., Path]) -> tuple[Path, Any]:
    """A local video and the same in fsspec's memory."""
    local = write_video(tmp_path / request.param, frames=30)
    path = location(f"memory://{tmp_path}/remote/{request.param}")
    remote.write(path, local.read_bytes())
    return local, path


def decode(path: Any, key: str = "", *, verify: bool = False) -> Any:
    """The one outcome, decoded in this process."""
    (outcome,) = decode_many([DecodeJob(key=key, path=path, verify=verify)], SAMPLINGS, workers=0)
    return outcome


@pytest.mark.parametrize("limit", ["1000000", "0"], ids=["spooled", "ranged"])
def test_frames_are_those_of_the_local_file(
    pair: tuple[Path, Any], limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VQA_TRAIN_SPOOL_BYTES", limit)
    monkeypatch.setattr(remote, "CHUNK", 5000)
    local, path = pair
    expected, found = decode(local), decode(path)
    assert found.reason is None, found.message
    assert found.sha256 == sha256_bytes(local.read_bytes())
    (one,), (other,) = expected.clips[0], found.clips[0]
    assert np.array_equal(one.frames, other.frames) and np.array_equal(one.times, other.times)
    assert spool.folder().exists() == (limit != "0")


@pytest.mark.parametrize("limit", ["1000000", "0"], ids=["spooled", "ranged"])
def test_what_is_wrong_names_the_url(tmp_path: Path, limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VQA_TRAIN_SPOOL_BYTES", limit)
    root = location(f"memory://{tmp_path}")
    remote.write(root / "noise.mp4", b"noise" * 100)
    remote.write(root / "empty.mp4", b"")
    for name, key, reason in (
        ("noise.mp4", "", Reason.DECODE_ERROR),
        ("noise.mp4", "0" * 64, Reason.CHECKSUM_MISMATCH),
        ("empty.mp4", "", Reason.EMPTY_FILE),
        ("gone.mp4", "", Reason.MISSING_FILE),
    ):
        outcome = decode(root / name, key, verify=bool(key))
        assert outcome.reason == reason, outcome.message
        assert f"'{root / name}'" in outcome.message


def test_a_ranged_file_reads_and_seeks_like_the_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "CHUNK", 64)
    data = np.random.default_rng(0).bytes(1000)
    path = location(f"memory://{tmp_path}/bytes")
    remote.write(path, data)
    file = RangedFile(path)
    rng = np.random.default_rng(1)
    for start, count in zip(rng.integers(0, 1000, 50), rng.integers(1, 300, 50), strict=True):
        assert file.seek(int(start)) == start
        found = b""
        while len(found) < count and (part := file.read(int(count) - len(found))):
            found += part
        assert found == data[start : start + count]
    assert file.seek(-3, 2) == 997 and file.read() == data[997:] and file.read() == b""


def test_a_slow_network_gets_more_time_than_a_disk() -> None:
    limits = DecodeLimits()
    assert limits.timeout_s(10, 1 << 30, remote=True) >= limits.timeout_s(10, 1 << 30) + 600
