"""Workers against the same jobs in this process, and against videos that crash, hang, hoard and exit."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event

import numpy as np
import psutil
import pytest

from vqa_train.core.errors import DependencyError, Reason, UsageError, VqaError
from vqa_train.core.hashing import sha256_file
from vqa_train.core.types import Sampling
from vqa_train.video import handover
from vqa_train.video import pool as pool_module
from vqa_train.video.process import cause_of_death
from vqa_train.video.workers import DecodeJob, DecodeLimits, DecodeOutcome, decode_many

SAMPLINGS = [Sampling(mode="uniform", n=4), Sampling(mode="uniform", n=2, burst=2, views=2)]
# Long enough to decode 24 small frames on a busy machine, short enough to wait for.
IMPATIENT = DecodeLimits(timeout_base_s=3.0, timeout_per_s=0.0)


@pytest.fixture(autouse=True)
def own_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder in place of /dev/shm; nothing may be left in it, nor any process."""
    folder = tmp_path / "shm"
    folder.mkdir()
    monkeypatch.setattr(handover, "_SHARED_MEMORY", folder)
    before = set(psutil.Process().children(recursive=True))
    yield folder
    assert list(folder.iterdir()) == []
    assert set(psutil.Process().children(recursive=True)) <= before


@pytest.fixture
def clips(tmp_path: Path, make_video: Callable[..., Path]) -> Callable[..., list[DecodeJob]]:
    """Jobs for copies of one good clip under the given names."""

    def make(*names: str) -> list[DecodeJob]:
        good = make_video(tmp_path / "source.mp4")
        for name in names:
            shutil.copy(good, tmp_path / f"{name}.mp4")
        return [DecodeJob(key=sha256_file(good), path=tmp_path / f"{name}.mp4") for name in names]

    return make


def by_name(outcomes: Iterator[DecodeOutcome]) -> dict[str, DecodeOutcome]:
    return {outcome.job.path.stem: outcome for outcome in outcomes}


def test_workers_give_what_this_process_gives(
    tmp_path: Path, make_video: Callable[..., Path], clips: Callable[..., list[DecodeJob]]
) -> None:
    jobs = clips("a", "b")
    jobs.append(DecodeJob(key="", path=make_video(tmp_path / "vfr.mp4", frames=4, milliseconds=[0, 50, 60, 400])))
    jobs.append(DecodeJob(key="0" * 64, path=tmp_path / "missing.mp4"))
    (tmp_path / "text.mp4").write_text("not a video")
    jobs.append(DecodeJob(key="0" * 64, path=tmp_path / "text.mp4"))
    here = by_name(decode_many(jobs, SAMPLINGS, workers=0))
    for count in (1, 2):
        there = by_name(decode_many(jobs, SAMPLINGS, workers=count))
        assert there.keys() == here.keys()
        for name, outcome in there.items():
            other = here[name]
            assert (outcome.sha256, outcome.reason, outcome.message) == (other.sha256, other.reason, other.message)
            assert len(outcome.clips) == (0 if outcome.reason else 2)
            for views, other_views in zip(outcome.clips, other.clips, strict=True):
                for clip, other_clip in zip(views, other_views, strict=True):
                    np.testing.assert_array_equal(clip.frames, other_clip.frames)
                    np.testing.assert_array_equal(clip.times, other_clip.times)
                    np.testing.assert_array_equal(clip.indices, other_clip.indices)
                    assert clip.facts() == other_clip.facts()
    assert here["vfr"].sha256 == sha256_file(tmp_path / "vfr.mp4")
    assert here["missing"].reason is Reason.MISSING_FILE
    assert here["text"].reason is Reason.DECODE_ERROR


def test_frames_stay_valid_after_the_workers_are_gone(clips: Callable[..., list[DecodeJob]]) -> None:
    [outcome] = decode_many(clips("a"), SAMPLINGS)
    [here] = decode_many(clips("a"), SAMPLINGS, workers=0)
    frames = outcome.clips[0][0].frames
    with outcome:
        pass
    assert outcome.clips == []
    np.testing.assert_array_equal(frames, here.clips[0][0].frames)


@pytest.mark.parametrize("workers", [0, 1])
def test_bytes_are_verified_where_asked(clips: Callable[..., list[DecodeJob]], workers: int) -> None:
    [job] = clips("a")
    wrong = DecodeJob(key="f" * 64, path=job.path, verify=True)
    right = DecodeJob(key=job.key, path=job.path, verify=True)
    unverified = DecodeJob(key="f" * 64, path=job.path)
    outcomes = list(decode_many([wrong, right, unverified], SAMPLINGS, workers=workers))
    assert [o.reason for o in outcomes] == [Reason.CHECKSUM_MISMATCH, None, None]
    assert [o.sha256[:4] for o in outcomes] == ["ffff", job.key[:4], "ffff"]
    assert "a.mp4" in outcomes[0].message


def test_a_video_that_ends_its_worker_fails_alone(clips: Callable[..., list[DecodeJob]], hostile_decoder: str) -> None:
    jobs = clips("good1", "segv", "good2", "exit", "killed", "bug", "garble", "interrupted", "good3")
    outcomes = by_name(decode_many(jobs, SAMPLINGS, decoder=hostile_decoder, workers=2))
    assert len(outcomes) == len(jobs)
    assert {name: outcome.reason for name, outcome in outcomes.items()} == {
        "good1": None,
        "good2": None,
        "good3": None,
        "interrupted": None,
        "segv": Reason.CRASH,
        "exit": Reason.CRASH,
        "bug": Reason.CRASH,
        "garble": Reason.CRASH,
        "killed": Reason.OUT_OF_MEMORY,
    }
    assert "SIGSEGV" in outcomes["segv"].message
    assert "status 7" in outcomes["exit"].message
    assert outcomes["bug"].message.endswith("IndexError: list index out of range (tried twice)")
    for name, outcome in outcomes.items():
        assert outcome.attempts == (2 if outcome.reason else 1)
        if outcome.reason is not None:
            assert f"{name}.mp4" in outcome.message
            assert "\n" not in outcome.message


@pytest.mark.parametrize("deed", ["segv", "killed", "exit", "hang", "garble", "hoard"])
def test_a_video_that_takes_its_worker_down_once_is_decoded_the_second_time(
    clips: Callable[..., list[DecodeJob]], hostile_decoder: str, deed: str
) -> None:
    limits = DecodeLimits(timeout_base_s=3.0, timeout_per_s=0.0, memory_bytes=256 << 20)
    jobs = clips(f"once_{deed}", "say1", "say2")
    outcomes = list(decode_many(jobs, SAMPLINGS, decoder=hostile_decoder, workers=2, limits=limits))
    assert [(o.job.path.stem, o.reason, o.attempts) for o in outcomes[2:]] == [(f"once_{deed}", None, 2)]
    assert [(o.reason, o.attempts) for o in outcomes[:2]] == [(None, 1), (None, 1)]
    # Alone: in a process of its own, begun after all others were done.
    tries = [line.split() for line in jobs[0].path.with_suffix(".seen").read_text().splitlines()]
    others = [job.path.with_suffix(".said").read_text().split() for job in jobs[1:]]
    assert len(tries) == 2
    assert tries[1][0] not in {tries[0][0], *(process for process, _ in others)}
    assert all(float(tries[1][1]) > float(moment) for _, moment in others)


def test_a_worker_that_lies_costs_its_video_and_touches_no_file(
    clips: Callable[..., list[DecodeJob]], hostile_decoder: str, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(bytes(100))
    done = {"event": "done", "union": [0], "views": [], "times": [0.0], "sha256": "a", "yuv": None, "facts": {}}
    lies = [
        {"event": "done"},
        {**done, "name": str(victim), "shape": [1, 1], "seconds": 1},
        {**done, "name": f"../{victim.name}", "shape": [1, 1], "seconds": 1},
        {**done, "union": [10**400], "name": "x", "shape": [1], "seconds": 1},
        {"event": "failed", "reason": "bored", "message": "m"},
        {"event": "start", "at": "now"},
        {"event": "probed", "at": 0, "duration_s": "long"},
    ]
    jobs = clips(*(f"lie{number}" for number in range(len(lies))), "good")
    for job, lie in zip(jobs, lies, strict=False):
        job.path.with_suffix(".lie").write_text(json.dumps(lie))
    outcomes = by_name(decode_many(jobs, SAMPLINGS, decoder=hostile_decoder, workers=2))
    assert outcomes.pop("good").reason is None
    assert {outcome.reason for outcome in outcomes.values()} == {Reason.CRASH}
    assert all("sent garbage" in outcome.message for outcome in outcomes.values())
    assert len(outcomes) == len(lies)
    assert victim.exists()


def test_a_video_that_hangs_is_stopped(clips: Callable[..., list[DecodeJob]], hostile_decoder: str) -> None:
    jobs = clips("hang", "good1", "good2")
    outcomes = by_name(decode_many(jobs, SAMPLINGS, decoder=hostile_decoder, limits=IMPATIENT))
    assert {n: o.reason for n, o in outcomes.items()} == {"hang": Reason.TIMEOUT, "good1": None, "good2": None}
    assert "stopped after" in outcomes["hang"].message


def test_a_stream_without_an_end_is_stopped(tmp_path: Path, make_video: Callable[..., Path]) -> None:
    path = make_video(tmp_path / "endless.ts", frames=4)
    # A hole of 2^40 bytes: it takes no room on the disk and hours to read.
    os.truncate(path, 1 << 40)
    limits = DecodeLimits(timeout_base_s=2.0, timeout_per_gib_s=60.0, timeout_max_s=2.0)
    jobs = [DecodeJob(key="f" * 64, path=path), DecodeJob(key="e" * 64, path=path, verify=True)]
    outcomes = list(decode_many(jobs, SAMPLINGS, workers=2, limits=limits))
    assert [(o.reason, o.attempts) for o in outcomes] == [(Reason.TIMEOUT, 2)] * 2


def test_workers_are_replaced_after_so_many_videos(clips: Callable[..., list[DecodeJob]], hostile_decoder: str) -> None:
    jobs = clips(*(f"say{i}" for i in range(7)))
    outcomes = list(decode_many(jobs, SAMPLINGS, decoder=hostile_decoder, recycle=3))
    assert [o.reason for o in outcomes] == [None] * 7
    processes = [job.path.with_suffix(".said").read_text().split()[0] for job in jobs]
    assert sorted(Counter(processes).values()) == [1, 3, 3]
    with pytest.raises(UsageError, match="recycle must be 1 or more"):
        decode_many([], SAMPLINGS, recycle=0)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_stop_finishes_what_is_under_way_and_begins_nothing(
    clips: Callable[..., list[DecodeJob]], workers: int
) -> None:
    stop, done = Event(), []
    for outcome in decode_many(clips(*"abcdefghijkl"), SAMPLINGS, workers=workers, stop=stop):
        done.append(outcome.job.path.stem)
        stop.set()
    # Whoever had been handed to a worker is finished; the rest has no outcome.
    assert 1 <= len(done) <= 2 * workers + 1
    assert sorted(done) == list("abcdefghijkl"[: len(done)])


def test_nothing_is_tried_again_after_a_stop(clips: Callable[..., list[DecodeJob]], hostile_decoder: str) -> None:
    stop, outcomes = Event(), []
    for outcome in decode_many(clips("segv", "good1"), SAMPLINGS, decoder=hostile_decoder, stop=stop):
        outcomes.append((outcome.job.path.stem, outcome.reason))
        stop.set()
    # Not given up either: the next run takes it up.
    assert outcomes == [("good1", None)]


def test_workers_are_what_the_kernel_kills_first(clips: Callable[..., list[DecodeJob]], hostile_decoder: str) -> None:
    outcomes = decode_many(clips("good1", "hang"), SAMPLINGS, decoder=hostile_decoder)
    assert next(outcomes).reason is None
    [worker] = _workers()
    score = int(Path(f"/proc/{worker.pid}/oom_score").read_text())
    assert score > int(Path(f"/proc/{os.getpid()}/oom_score").read_text())
    outcomes.close()


def test_a_video_that_hoards_memory_is_refused_and_its_worker_goes_on(
    clips: Callable[..., list[DecodeJob]], hostile_decoder: str
) -> None:
    limits = DecodeLimits(memory_bytes=256 << 20)
    jobs = clips("hoard", "good1")
    outcomes = by_name(decode_many(jobs, SAMPLINGS, decoder=hostile_decoder, limits=limits))
    assert {n: o.reason for n, o in outcomes.items()} == {"hoard": Reason.OUT_OF_MEMORY, "good1": None}


def test_more_frames_than_memory_allows_are_not_begun(clips: Callable[..., list[DecodeJob]]) -> None:
    limits = DecodeLimits(memory_bytes=4 * 96 * 128 * 3)
    [outcome] = decode_many(clips("a"), [Sampling(mode="uniform", n=5)], workers=0, limits=limits)
    assert outcome.reason is Reason.OUT_OF_MEMORY
    assert "5 frames of 128x96" in outcome.message


@pytest.mark.parametrize("workers", [0, 1])
def test_large_pictures_are_too_large(clips: Callable[..., list[DecodeJob]], workers: int) -> None:
    [outcome] = decode_many(clips("a"), SAMPLINGS, workers=workers, limits=DecodeLimits(max_pixels=1000))
    assert outcome.reason is Reason.TOO_LARGE


def test_jobs_are_taken_as_outcomes_are(clips: Callable[..., list[DecodeJob]]) -> None:
    jobs = clips(*"abcdefghijkl")
    taken = 0

    def counted() -> Iterator[DecodeJob]:
        nonlocal taken
        for job in jobs:
            taken += 1
            yield job

    for done, outcome in enumerate(decode_many(counted(), SAMPLINGS, workers=2), 1):
        assert outcome.reason is None
        assert taken <= done + 2 * 2
    assert taken == len(jobs)


def test_no_jobs_start_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    assert list(decode_many([], SAMPLINGS, workers=2)) == []


def test_leaving_early_stops_the_workers(clips: Callable[..., list[DecodeJob]], hostile_decoder: str) -> None:
    outcomes = decode_many(clips("good1", "hang", "good2"), SAMPLINGS, decoder=hostile_decoder, workers=2)
    assert next(outcomes).reason is None
    assert _workers()
    outcomes.close()
    # The fixture checks that no process and no file is left.


def test_an_interrupt_stops_the_workers(clips: Callable[..., list[DecodeJob]], hostile_decoder: str) -> None:
    def interrupted() -> Iterator[DecodeJob]:
        yield from clips("hang")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(decode_many(interrupted(), SAMPLINGS, decoder=hostile_decoder, workers=2))


@pytest.mark.parametrize("deed", ["hang", "hang_holding_the_lock"])
def test_workers_die_with_a_killed_parent(
    tmp_path: Path, clips: Callable[..., list[DecodeJob]], hostile_decoder: str, own_memory: Path, deed: str
) -> None:
    [job] = clips(deed)
    script = (
        "import os, sys, threading, time\n"
        "from pathlib import Path\n"
        "from vqa_train.core.types import Sampling\n"
        "from vqa_train.video import handover, workers\n"
        "handover._SHARED_MEMORY = Path(sys.argv[2])\n"
        "job = workers.DecodeJob(key='', path=Path(sys.argv[1]))\n"
        "list(workers.decode_many([job], [Sampling(mode='uniform', n=1)], decoder='hostile'))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    parent = subprocess.Popen([sys.executable, "-c", script, str(job.path), str(own_memory)], env=environment)
    try:
        worker = _child_at_work(parent, own_memory)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    gone, alive = psutil.wait_procs([worker], timeout=30)
    assert gone
    assert not alive
    handover.Exchange().close()  # sweeps what the killed parent left


def _workers() -> list[psutil.Process]:
    """Decoding processes of this one; a test before may have left children of another kind."""
    return [child for child in psutil.Process().children() if "vqa_train.video.worker_main" in child.cmdline()]


def _child_at_work(parent: subprocess.Popen[bytes], memory: Path) -> psutil.Process:
    """The parent's worker, once it has made the file for its frames and so begun to decode."""
    while parent.poll() is None:
        children = psutil.Process(parent.pid).children()
        if children and list(memory.glob("*/*")):
            return children[0]
    pytest.fail(f"the parent ended with {parent.returncode} before its worker was at work")


def test_workers_of_a_real_time_parent_are_ordinary_processes(
    clips: Callable[..., list[DecodeJob]], hostile_decoder: str
) -> None:
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        pytest.skip("only root may make a process a real-time one")
    outcomes = decode_many(clips("good1", "hang"), SAMPLINGS, decoder=hostile_decoder)
    assert next(outcomes).reason is None
    [worker] = _workers()
    assert os.sched_getscheduler(worker.pid) == os.SCHED_OTHER
    outcomes.close()


def test_an_unknown_decoder_is_told_at_once() -> None:
    with pytest.raises(UsageError, match="unknown decoder 'decrod'"):
        decode_many([], SAMPLINGS, decoder="decrod")
    with pytest.raises(UsageError, match="got -1"):
        decode_many([], SAMPLINGS, workers=-1)


def test_workers_that_cannot_start_are_an_error(
    clips: Callable[..., list[DecodeJob]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(VqaError, match="do not start.*status 1"):
        list(decode_many(clips("a"), SAMPLINGS))


def test_workers_that_never_answer_are_an_error(
    clips: Callable[..., list[DecodeJob]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    silent = tmp_path / "silent"
    silent.write_text("#!/bin/sh\nexec tail -f /dev/null\n")
    silent.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(silent))
    monkeypatch.setattr(pool_module, "_STARTUP_S", 0.1)
    with pytest.raises(VqaError, match="do not start: no answer"):
        list(decode_many(clips("a"), SAMPLINGS))


def test_a_missing_package_is_no_failure_of_the_video(
    clips: Callable[..., list[DecodeJob]], hostile_decoder: str, tmp_path: Path
) -> None:
    module = tmp_path / "site" / "hostile.py"
    module.write_text(
        "from vqa_train.core.errors import DependencyError\n"
        "from vqa_train.video.pyav import PyavDecoder\n"
        "class Hostile(PyavDecoder):\n"
        "    def read(self, *args):\n"
        "        raise DependencyError('codec pack is not installed', hint='install it')\n"
    )
    for count in (0, 1):
        with pytest.raises(DependencyError, match="codec pack is not installed - install it"):
            list(decode_many(clips("a"), SAMPLINGS, decoder=hostile_decoder, workers=count))


def test_timeouts_grow_with_duration_and_size() -> None:
    limits = DecodeLimits(timeout_base_s=10, timeout_per_s=2, timeout_per_gib_s=5)
    assert limits.timeout_s(None, 0) == 10
    assert limits.timeout_s(30, 2 << 30) == 10 + 60 + 10
    # A file of two frames may claim that they are a thousand years apart.
    assert limits.timeout_s(3e10, 0) == 3600
    assert DecodeLimits(timeout_base_s=7200).timeout_s(1, 0) == 7200


def test_causes_of_death() -> None:
    assert cause_of_death(-signal.SIGKILL)[0] is Reason.OUT_OF_MEMORY
    assert cause_of_death(-signal.SIGBUS) == (Reason.CRASH, "the decoding process crashed (SIGBUS)")
    assert cause_of_death(-signal.SIGRTMIN - 3)[1] == f"the decoding process crashed (signal {signal.SIGRTMIN + 3})"
    assert cause_of_death(1) == (Reason.CRASH, "the decoding process exited with status 1")
