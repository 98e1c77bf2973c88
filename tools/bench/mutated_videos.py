"""Damaged videos by the thousand: small clips of seven codecs, encoded here, and what is done to their bytes."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from made_video import texture

# SVT-AV1 tells its settings on stderr otherwise.
os.environ.setdefault("SVT_LOG", "1")
SIZE = (64, 48)
FRAMES = 12
# Codec -> (encoder, pixel format, encoder options, containers).
CODECS: dict[str, tuple[str, str, dict[str, str], tuple[str, ...]]] = {
    "h264": ("libx264", "yuv420p", {"g": "6", "preset": "veryfast"}, ("mp4", "mkv", "ts")),
    "hevc": ("libx265", "yuv420p", {"g": "6", "preset": "ultrafast", "x265-params": "log-level=none"}, ("mp4", "mkv")),
    "vp9": ("libvpx-vp9", "yuv420p", {"g": "6", "deadline": "realtime", "cpu-used": "8"}, ("webm", "mp4")),
    "av1": ("libsvtav1", "yuv420p", {"g": "6", "preset": "12"}, ("mp4", "webm")),
    "mpeg4": ("mpeg4", "yuv420p", {"g": "6"}, ("avi", "mp4")),
    "mjpeg": ("mjpeg", "yuvj420p", {}, ("avi", "mkv")),
    "gif": ("gif", "rgb8", {}, ("gif",)),
}
# What numbers a header may be made to claim: none, all, the largest, the most negative, a large size.
_CLAIMS = tuple(
    bytes.fromhex(text) for text in ("00000000", "ffffffff", "7fffffff", "80000000", "00010000", "ffff0000")
)


@dataclass(frozen=True)
class Mutated:
    """A damaged video: its bytes, and what was done to a clip of which codec and container."""

    codec: str
    container: str
    mutation: str
    data: bytes


def encode_clips(folder: Path) -> dict[tuple[str, str], bytes]:
    """(codec, container) -> the bytes of a clip of 12 frames of 64 x 48 that pan over a texture."""
    clips = {}
    for seed, (codec, (encoder, pix_fmt, options, containers)) in enumerate(CODECS.items()):
        canvas = texture(SIZE[1], SIZE[0] + 2 * FRAMES, seed)
        for container in containers:
            path = folder / f"{codec}.{container}"
            with av.open(str(path), "w") as file:
                stream = file.add_stream(encoder, rate=Fraction(12), options=options)
                stream.width, stream.height, stream.pix_fmt = *SIZE, pix_fmt
                for i in range(FRAMES):
                    frame = av.VideoFrame.from_ndarray(canvas[:, 2 * i : 2 * i + SIZE[0]].copy(), format="rgb24")
                    file.mux(stream.encode(frame.reformat(format=pix_fmt)))
                file.mux(stream.encode())
            clips[codec, container] = path.read_bytes()
    if hasattr(os, "sched_setscheduler") and os.sched_getscheduler(0) != os.SCHED_OTHER:
        # SVT-AV1 makes the process of a privileged user a real-time one.
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    return clips


def _bit_flips(data: bytes, _other: bytes, rng: random.Random) -> bytes:
    """1 to 64 bits anywhere."""
    return _flip(data, rng, len(data))


def _header_bit_flips(data: bytes, _other: bytes, rng: random.Random) -> bytes:
    """1 to 64 bits of the first 1024 bytes."""
    return _flip(data, rng, min(1024, len(data)))


def _flip(data: bytes, rng: random.Random, within: int) -> bytes:
    damaged = bytearray(data)
    for _ in range(2 ** rng.randrange(7)):
        damaged[rng.randrange(within)] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def _truncated(data: bytes, _other: bytes, rng: random.Random) -> bytes:
    """Cut off at any byte."""
    return data[: rng.randrange(1, len(data))]


def _head_lost(data: bytes, _other: bytes, rng: random.Random) -> bytes:
    """Begins at any byte."""
    return data[rng.randrange(1, len(data)) :]


def _spliced_header(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """Another clip's first bytes over its own."""
    count = rng.randrange(8, min(2048, len(data), len(other)))
    return other[:count] + data[count:]


def _spliced_tail(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """Goes over into another clip."""
    return data[: rng.randrange(1, len(data))] + other[rng.randrange(len(other)) :]


def _lying_field(data: bytes, _other: bytes, rng: random.Random) -> bytes:
    """1 to 4 fields of four bytes that claim nothing, or far too much."""
    damaged = bytearray(data)
    for _ in range(rng.randrange(1, 5)):
        at = rng.randrange(max(1, min(2048, len(data) - 4)))
        damaged[at : at + 4] = rng.choice(_CLAIMS)
    return bytes(damaged)


def _garbage_block(data: bytes, _other: bytes, rng: random.Random) -> bytes:
    """Random bytes over a block in the middle."""
    at = rng.randrange(len(data))
    count = rng.randrange(1, max(2, len(data) // 4))
    return data[:at] + rng.randbytes(min(count, len(data) - at)) + data[at + count :]


MUTATIONS: Mapping[str, Callable[[bytes, bytes, random.Random], bytes]] = {
    "bit flips": _bit_flips,
    "bit flips in the header": _header_bit_flips,
    "truncated": _truncated,
    "head lost": _head_lost,
    "spliced header": _spliced_header,
    "spliced tail": _spliced_tail,
    "lying field": _lying_field,
    "garbage block": _garbage_block,
}


def mutated_videos(clips: Mapping[tuple[str, str], bytes], count: int, seed: int) -> list[Mutated]:
    """`count` damaged clips, no two alike: codecs, their containers and mutations take turns."""
    made: list[Mutated] = []
    seen = set(clips.values())
    codecs, mutations, sources = list(CODECS), list(MUTATIONS), list(clips)
    for i in range(count):
        codec, turn = codecs[i % len(codecs)], i // len(codecs)
        mutation, turn = mutations[turn % len(mutations)], turn // len(mutations)
        containers = CODECS[codec][3]
        container = containers[turn % len(containers)]
        rng = random.Random(f"{seed}/{i}")
        data = clips[codec, container]
        while data in seen:
            other = clips[rng.choice([source for source in sources if source != (codec, container)])]
            data = MUTATIONS[mutation](clips[codec, container], other, rng)
        seen.add(data)
        made.append(Mutated(codec, container, mutation, data))
    return made
