"""One decoding process for many calls: it stays, is replaced when a video takes it down, and ends when told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psutil

from vqa_train.core.errors import Reason
from vqa_train.core.types import Sampling
from vqa_train.video.decode import read_clips
from vqa_train.video.job import DecodeJob, DecodeLimits
from vqa_train.video.steady import SteadyDecoder

SAMPLINGS = [Sampling(mode="uniform", n=3)]


def workers() -> set[int]:
    found = psutil.Process().children()
    return {child.pid for child in found if "vqa_train.video.worker_main" in child.cmdline()}


def test_one_process_decodes_all_and_ends_when_told(tmp_path: Path, write_video: Callable[..., Path]) -> None:
    paths = [write_video(tmp_path / f"{i}.mp4", frames=8, size=(64, 96), seed=i) for i in range(3)]
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    before = workers()
    decoder = SteadyDecoder(SAMPLINGS, decoder="pyav", limits=DecodeLimits(), recycle=100)
    seen = set()
    for path in (paths[0], tmp_path / "bad.mp4", *paths[1:]):
        outcome = decoder.decode(DecodeJob(key="", path=path))
        seen |= workers() - before
        if path.name == "bad.mp4":
            assert outcome.reason is Reason.DECODE_ERROR
            continue
        ((clip,),), ((expected,),) = outcome.clips, read_clips(path, SAMPLINGS)
        assert clip.frames.tobytes() == expected.frames.tobytes()
    assert len(seen) == 1
    decoder.close()
    assert workers() == before


def test_a_video_that_takes_its_process_down_is_tried_twice_and_the_next_goes_on(
    tmp_path: Path, write_video: Callable[..., Path]
) -> None:
    long = write_video(tmp_path / "long.mp4", frames=2000, size=(64, 96))
    short = write_video(tmp_path / "short.mp4", frames=4, size=(64, 96))
    limits = DecodeLimits(timeout_base_s=0.001, timeout_per_s=0, timeout_per_gib_s=0, timeout_max_s=0.001)
    decoder = SteadyDecoder(SAMPLINGS, decoder="pyav", limits=limits, recycle=100)
    outcome = decoder.decode(DecodeJob(key="", path=long))
    assert (outcome.reason, outcome.attempts) == (Reason.TIMEOUT, 2)
    assert outcome.message.endswith("(tried twice)")
    decoder.close()
    calm = SteadyDecoder(SAMPLINGS, decoder="pyav", limits=DecodeLimits(), recycle=100)
    assert calm.decode(DecodeJob(key="", path=short)).reason is None
    calm.close()
