"""One decoding job, the same in a worker process and in this one: check the file, hash, probe, choose, decode."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqa_train.core import remote
from vqa_train.core.errors import MediaError, Reason, VqaError
from vqa_train.core.hashing import sha256_file
from vqa_train.core.locations import is_remote
from vqa_train.core.types import Sampling, YuvFormat
from vqa_train.video.at_hand import at_hand
from vqa_train.video.container import DEFAULT_MAX_PIXELS, check_file, named
from vqa_train.video.decode import Decoder, Plan, PlaneDecoder, PlanesChangeError, clip_facts, make_plan
from vqa_train.video.probe import probe

DEFAULT_RECYCLE = 500
"""Videos after which a worker is replaced: what codec libraries leak does not add up over days."""


@dataclass(frozen=True, kw_only=True)
class DecodeJob:
    """A file to decode.

    Attributes:
        key: the sha256 that its bytes should have, 64 hex characters; "" when not known, it is then computed.
        path: a local file, or a `UPath` for a URL.
        verify: hash the bytes and refuse the file when they do not match `key`.
    """

    key: str
    path: Path
    verify: bool = False


@dataclass(frozen=True, kw_only=True)
class DecodeLimits:
    """What one video may cost before it is given up.

    Attributes:
        timeout_base_s: seconds that any video gets.
        timeout_per_s: seconds more per second of video.
        timeout_per_gib_s: seconds more per GiB of file, for reading it through slow disks and networks.
        timeout_max_s: seconds after which any video is given up: a file may claim any length.
        timeout_remote_s, timeout_per_remote_gib_s: seconds more for a video behind a URL, and per GiB of it; these are
            for the network, which may be away for a while, and count beyond `timeout_max_s`.
        memory_bytes: address space that a worker may add while decoding, its frames included.
        max_pixels: pixels per picture.
    """

    timeout_base_s: float = 60.0
    timeout_per_s: float = 5.0
    timeout_per_gib_s: float = 60.0
    timeout_max_s: float = 3600.0
    timeout_remote_s: float = 600.0
    timeout_per_remote_gib_s: float = 600.0
    memory_bytes: int = 4 << 30
    max_pixels: int = DEFAULT_MAX_PIXELS

    def timeout_s(self, duration_s: float | None, size_bytes: int, *, remote: bool = False) -> float:
        """Seconds for one video; `duration_s` is None until it has been probed, `remote` of one behind a URL."""
        video = self.timeout_per_s * duration_s if duration_s is not None else 0.0
        scaled = self.timeout_base_s + video + self.timeout_per_gib_s * size_bytes / (1 << 30)
        network = self.timeout_remote_s + self.timeout_per_remote_gib_s * size_bytes / (1 << 30) if remote else 0.0
        return min(scaled, max(self.timeout_max_s, self.timeout_base_s)) + network


@dataclass(frozen=True)
class Decoded:
    """What a job gives: the arguments of `make_clips`, of which `sha256` is the key."""

    sha256: str
    frames: NDArray[np.uint8]
    times: NDArray[np.float64]
    plan: Plan
    facts: dict[str, Any]
    yuv: YuvFormat | None


def run_job(
    job: DecodeJob,
    samplings: Sequence[Sampling],
    decoder: Decoder,
    threads: int,
    limits: DecodeLimits,
    *,
    allocate: Callable[[tuple[int, ...]], NDArray[np.uint8]],
    probed: Callable[[float], None],
    planar: bool = False,
    sized: Callable[[int], None] = lambda _: None,
) -> Decoded:
    """Decode what `samplings` want of one file.

    Args:
        job: the file.
        samplings: which frames.
        decoder: what reads them.
        threads: decoding threads; 0 is one per core.
        limits: `memory_bytes` and `max_pixels` are kept here, the times by the caller.
        allocate: makes the array that the frames go into; a second call replaces the first array.
        probed: told the duration in seconds once it is known.
        planar: stored planes instead of RGB, where the decoder and the video have them.
        sized: told the bytes of a file behind a URL before they are read, and while it waits for room to put them.

    Raises:
        MediaError: with the reason; CHECKSUM_MISMATCH also when the file changes meanwhile.
    """
    with at_hand(job, sized) as here:
        return _run(here, samplings, decoder, threads, limits, allocate, probed, planar)


def _run(
    job: DecodeJob,
    samplings: Sequence[Sampling],
    decoder: Decoder,
    threads: int,
    limits: DecodeLimits,
    allocate: Callable[[tuple[int, ...]], NDArray[np.uint8]],
    probed: Callable[[float], None],
    planar: bool,
) -> Decoded:
    check_file(job.path)
    before = _state(job.path)
    sha256 = job.key
    if job.verify or not job.key:
        sha256 = _sha256(job.path)
        if job.key and sha256 != job.key:
            raise MediaError(
                f"{named(job.path)} has sha256 {sha256[:12]}..., expected {job.key[:12]}...",
                hint="restore the file, or scan the dataset again if the change is meant",
                reason=Reason.CHECKSUM_MISMATCH,
            )
    info = probe(job.path, max_pixels=limits.max_pixels)
    probed(info.duration_s)
    plan = make_plan(job.path, info, samplings, sha256)
    shape = plan.shape(info)
    size = shape[0] * shape[1] * shape[2] * 3
    if size > limits.memory_bytes:
        raise MediaError(
            f"{named(job.path)}: {shape[0]} frames of {info.width}x{info.height} need {size >> 20} MiB, "
            f"over the limit of {limits.memory_bytes >> 20} MiB",
            reason=Reason.OUT_OF_MEMORY,
        )
    frames, yuv = None, None
    if planar and info.yuv is not None and isinstance(decoder, PlaneDecoder):
        with suppress(PlanesChangeError):
            planes = allocate(plan.packed_shape(info))
            decoder.read_planes(job.path, info, plan.union, threads, planes)
            frames, yuv = planes, info.yuv
    if frames is None:
        frames = decoder.read(job.path, info, plan.union, threads, allocate(shape))
    if _state(job.path) != before:
        raise MediaError(f"{named(job.path)} changed while it was read", reason=Reason.CHECKSUM_MISMATCH)
    return Decoded(sha256, frames, info.times[plan.union], plan, clip_facts(info, decoder), yuv)


def _sha256(path: Path) -> str:
    if not is_remote(path):
        return sha256_file(path)
    digest = hashlib.sha256()
    for chunk in remote.chunks(path, remote.size(path)):
        digest.update(chunk)
    return digest.hexdigest()


def _state(path: Path) -> tuple[int, int, int] | str:
    try:
        if is_remote(path):
            return remote.state(path)
        found = path.stat()
    except OSError as error:
        raise MediaError(f"{named(path)} went away while it was read", reason=Reason.MISSING_FILE) from error
    return found.st_size, found.st_mtime_ns, found.st_ino


def failure_of(error: Exception, path: Path) -> tuple[Reason, str]:
    """The failure row for an error in a job.

    Raises:
        VqaError: `error` itself, when it is no fault of the video (a decoder that is not installed, ...).
    """
    if isinstance(error, VqaError):
        if error.reason is None:
            raise error
        return error.reason, str(error)
    if isinstance(error, MemoryError):
        return Reason.OUT_OF_MEMORY, f"{named(path)}: no memory left to decode it"
    if isinstance(error, OSError):
        return Reason.UNREADABLE, f"{named(path)} cannot be read: {error.strerror or error}"
    problem = " ".join(f"{type(error).__name__}: {error}".split())
    return Reason.CRASH, f"{named(path)}: the decoder failed with {problem}"
