"""Frame choice: hand-computed cases for every mode, and properties over arbitrary videos."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vqa_train.core.errors import ConfigError, MediaError, Reason, UsageError
from vqa_train.core.hashing import sha256_file
from vqa_train.core.types import FeatureSpec, OutputSpec, Sampling
from vqa_train.video.decode import read_clips
from vqa_train.video.sampling import decode_cost, segment_frames, select_frames
from vqa_train.video.workers import DecodeJob, decode_many

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "dover_views.npz"
DOVER = ((3, 32, 2), (32, 1, 2))


def steady(count: int, fps: float = 25.0) -> np.ndarray:
    return np.arange(count) / fps


def chosen(times: np.ndarray, keyframes: list[int] | None = None, **sampling: Any) -> list[list[int]]:
    return [view.tolist() for view in select_frames(Sampling(**sampling), times, keyframes or [0])]


class TestUniform:
    def test_as_many_positions_as_frames_takes_every_frame(self) -> None:
        assert chosen(steady(7), mode="uniform", n=7) == [list(range(7))]

    def test_positions_are_the_centres_of_equal_strata(self) -> None:
        # 3 strata of 5 frames: centres at frames 2, 7, 12.
        assert chosen(steady(15), mode="uniform", n=3) == [[2, 7, 12]]

    def test_a_tie_goes_to_the_earlier_frame_at_every_position(self) -> None:
        # 10 strata of 10 frames: each centre lies half way between two frames.
        expected = [list(range(4, 100, 10))]
        for fps in (25.0, 30000 / 1001, 10.009, 24.0):
            assert chosen(steady(100, fps), mode="uniform", n=10) == expected

    def test_bursts_are_centred(self) -> None:
        assert chosen(steady(15), mode="uniform", n=3, burst=3) == [[1, 2, 3, 6, 7, 8, 11, 12, 13]]
        assert chosen(steady(15), mode="uniform", n=3, burst=2) == [[2, 3, 7, 8, 12, 13]]

    def test_views_take_different_phases_of_the_strata(self) -> None:
        assert chosen(steady(16), mode="uniform", n=2, views=4) == [[0, 8], [2, 10], [4, 12], [6, 14]]

    def test_time_decides_not_the_frame_number(self) -> None:
        # 10 frames in the first second, then one frame a second: 3 of 4 quarters fall behind frame 9.
        times = np.concatenate([np.arange(10) / 10, np.arange(1, 11)])
        [[first, *others]] = chosen(times, mode="uniform", n=4)
        assert first == 10
        assert others == [13, 15, 18]

    def test_positions_on_one_frame_spread_to_its_neighbours(self) -> None:
        # Centres at 7.6, 37.9, 68.1 and 98.4 s; nearest are frames 3, 3, 4, 4.
        assert chosen(np.array([0, 1, 2, 3, 103, 104, 105, 106]), mode="uniform", n=4) == [[3, 4, 5, 6]]

    def test_they_spread_back_where_the_video_ends(self) -> None:
        assert chosen(np.array([0.0, 1, 100, 101]), mode="uniform", n=3) == [[1, 2, 3]]


class TestFps:
    def test_half_the_rate_takes_every_second_frame(self) -> None:
        assert chosen(steady(50), mode="fps", rate=12.5, n=5) == [[0, 2, 4, 6, 8]]

    def test_twice_the_rate_takes_every_frame_twice(self) -> None:
        assert chosen(steady(50), mode="fps", rate=50, n=6) == [[0, 0, 1, 1, 2, 2]]

    def test_bursts_begin_at_the_position(self) -> None:
        assert chosen(steady(50), mode="fps", rate=5, n=3, burst=2) == [[0, 1, 5, 6, 10, 11]]

    def test_views_go_from_the_start_to_the_end(self) -> None:
        assert chosen(steady(50), mode="fps", rate=5, n=4, views=3) == [
            [0, 5, 10, 15],
            [15, 20, 25, 30],
            [30, 35, 40, 45],
        ]

    def test_a_short_video_holds_its_last_frame(self) -> None:
        assert chosen(steady(10), mode="fps", rate=5, n=4, short="hold") == [[0, 5, 9, 9]]

    def test_a_short_video_starts_over(self) -> None:
        assert chosen(steady(10), mode="fps", rate=5, n=5, short="circulant") == [[0, 5, 0, 5, 0]]


class TestDuration:
    def test_the_whole_length_is_uniform(self) -> None:
        assert chosen(steady(50), mode="duration", seconds=2, n=5) == chosen(steady(50), mode="uniform", n=5)

    def test_only_the_first_seconds_count(self) -> None:
        assert chosen(steady(500), mode="duration", seconds=1, n=5) == [[2, 7, 12, 17, 22]]

    def test_a_short_video_starts_over(self) -> None:
        assert chosen(steady(25), mode="duration", seconds=2, n=4, short="circulant") == [[6, 18, 6, 18]]


class TestFrameStep:
    def test_every_second_frame(self) -> None:
        assert chosen(steady(20), mode="frame_step", step=2, n=4) == [[0, 2, 4, 6]]

    def test_views_share_the_room(self) -> None:
        assert chosen(steady(20), mode="frame_step", step=2, n=4, views=3) == [
            [0, 2, 4, 6],
            [6, 8, 10, 12],
            [13, 15, 17, 19],
        ]

    def test_a_short_video_starts_over(self) -> None:
        assert chosen(steady(5), mode="frame_step", step=2, n=5, short="circulant") == [[0, 2, 4, 1, 3]]

    def test_a_short_video_holds_its_last_frame(self) -> None:
        assert chosen(steady(5), mode="frame_step", step=2, n=5) == [[0, 2, 4, 4, 4]]


def dover(jitter: str = "content", **more: Any) -> Sampling:
    return Sampling(mode="segments", n=128, segments=DOVER, jitter=jitter, short="circulant", **more)


class TestSegments:
    """DOVER's two samplers in one: 3 runs of 32 frames, then 32 single frames, every second frame."""

    def official(self, kind: str) -> list[tuple[int, list[int]]]:
        golden = np.load(GOLDEN)
        counts = sorted({int(key.split("/")[1]) for key in golden.files if key.startswith(f"{kind}/")})
        assert len(counts) >= 10
        return [
            (count, [*golden[f"{kind}/{count}/technical"].tolist(), *golden[f"{kind}/{count}/aesthetic"].tolist()])
            for count in counts
        ]

    def rooms(self, count: int) -> list[int]:
        return [count // 3 - 64] * 3 + [count // 32 - 2] * 32

    def test_the_smallest_offsets_give_the_official_frames(self) -> None:
        for count, expected in self.official("temporal_low"):
            assert (segment_frames(DOVER, count, [0] * 35) % count).tolist() == expected

    def test_the_largest_offsets_give_the_official_frames(self) -> None:
        for count, expected in self.official("temporal_high"):
            offsets = [max(room - 1, 0) for room in self.rooms(count)]
            assert (segment_frames(DOVER, count, offsets) % count).tolist() == expected

    def test_the_official_draws_give_the_official_frames(self) -> None:
        for count, expected in self.official("temporal"):
            stream, offsets = np.random.RandomState(42), []
            for parts, room in ((3, count // 3 - 64), (32, count // 32 - 2)):
                offsets += stream.randint(0, room, size=parts).tolist() if room > 0 else [0] * parts
            assert (segment_frames(DOVER, count, offsets) % count).tolist() == expected

    def test_the_content_draws_one_offset_for_each_part(self) -> None:
        # (draw * room) >> 32 with the 32-bit words of SHA-256 over what is drawn, the key, the view and a counter.
        words = b"".join(hashlib.sha256(f"segments\x1f{'ab' * 32}\x1f0\x1f{i}".encode()).digest() for i in range(5))
        for count in (50, 150, 250, 1000):
            offsets = [
                int.from_bytes(words[4 * i : 4 * i + 4], "big") * max(room, 0) >> 32
                for i, room in enumerate(self.rooms(count))
            ]
            [found] = select_frames(dover(), steady(count), [0], "ab" * 32)
            assert found.tolist() == (segment_frames(DOVER, count, offsets) % count).tolist()

    def test_another_content_takes_other_frames(self) -> None:
        first, again, other = (select_frames(dover(), steady(1000), [0], key)[0].tolist() for key in ("a", "a", "b"))
        assert first == again
        assert first != other
        assert set(np.diff(np.array(first[:96]).reshape(3, 32)).ravel()) == {2}

    def test_content_without_a_key_is_an_error(self) -> None:
        with pytest.raises(UsageError, match=r"sha256.*centre"):
            select_frames(dover(), steady(1000), [0])

    def test_the_centre_leaves_as_much_before_as_behind(self) -> None:
        # Parts of 5 frames, runs of 2: 3 to spare. One part of 10, 3 frames 2 apart need 6: 4 to spare.
        segments = ((2, 2, 1), (1, 3, 2))
        assert chosen(steady(10), mode="segments", n=7, segments=segments, jitter="centre") == [[1, 2, 6, 7, 2, 4, 6]]

    def test_a_short_video_starts_over_or_holds_or_is_an_error(self) -> None:
        # Parts of 2 frames, runs of 0, 2, 4 from 0 and from 2.
        asked = {"mode": "segments", "n": 6, "segments": ((2, 3, 2),), "jitter": "centre"}
        assert chosen(steady(4), short="circulant", **asked) == [[0, 2, 0, 2, 0, 2]]
        assert chosen(steady(4), short="hold", **asked) == [[0, 2, 3, 2, 3, 3]]
        with pytest.raises(MediaError, match=r"4 frames.*segments\(n=6") as caught:
            chosen(steady(4), short="error", **asked)
        assert caught.value.reason is Reason.TOO_SHORT
        assert chosen(steady(12), short="error", **asked)

    def test_one_frame_is_repeated(self) -> None:
        assert select_frames(dover(), np.zeros(1), [0], "key")[0].tolist() == [0] * 128

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"n": 127}, "needs n=128"),
            ({"views": 2}, "views=1"),
            ({"burst": 2}, "burst=1"),
            ({"decode_budget": 300}, "no budget"),
            ({"segments": ((3, 32), (32, 1, 2))}, "triples of positive numbers"),
            ({"segments": ((3, 32, 0), (32, 1, 2))}, "triples of positive numbers"),
            ({"segments": ()}, "triples of positive numbers"),
            ({"segments": None}, "needs segments"),
            ({"jitter": None}, "needs jitter"),
            ({"jitter": "random"}, "one of content, centre, got 'random'"),
            ({"mode": "uniform"}, "'uniform' does not take segments"),
        ],
    )
    def test_what_means_nothing_is_refused(self, change: dict[str, Any], message: str) -> None:
        fields: dict[str, Any] = {"mode": "segments", "n": 128, "segments": DOVER, "jitter": "content"}
        with pytest.raises(ConfigError, match=message):
            Sampling(**{**fields, **change})

    def test_json_gives_the_same_sampling_and_fingerprint(self) -> None:
        spec = FeatureSpec(
            backbone="x", definition=1, modality="video", outputs=(OutputSpec(name="y", shape=(1,)),), sampling=dover()
        )
        text = json.dumps(spec.to_json())
        assert json.loads(text) == spec.to_json()
        again = FeatureSpec.from_json(json.loads(text))
        assert again == spec
        assert hash(again.sampling) == hash(spec.sampling)
        assert again.fingerprint == spec.fingerprint

    def test_clips_carry_what_decided_them(self, tmp_path: Path, write_video: Callable[..., Path]) -> None:
        path = write_video(tmp_path / "clip.mp4", frames=200, size=(32, 32))
        key = sha256_file(path)
        several = Sampling(mode="uniform", n=2, views=3)
        [[clip], views] = read_clips(path, [dover(), several], key=key)
        assert clip.key == key
        assert [(view.key, view.view) for view in views] == [(key, 0), (key, 1), (key, 2)]
        [expected] = select_frames(dover(), steady(200), [0], key)
        assert clip.indices.tolist() == expected.tolist()
        [[unknown]] = read_clips(path, [dover("centre")])
        assert unknown.key == ""
        with pytest.raises(UsageError, match="sha256"):
            read_clips(path, [dover()])
        for workers in (0, 1):
            for known in (key, ""):
                [outcome] = decode_many([DecodeJob(key=known, path=path)], [dover(), several], workers=workers)
                assert outcome.clips[0][0].indices.tolist() == expected.tolist()
                assert [(view.key, view.view) for view in outcome.clips[1]] == [(key, 0), (key, 1), (key, 2)]


@pytest.mark.parametrize(
    "sampling",
    [
        {"mode": "uniform", "n": 6},
        {"mode": "uniform", "n": 3, "burst": 2},
        {"mode": "fps", "rate": 25, "n": 6},
        {"mode": "duration", "seconds": 0.4, "n": 2},
        {"mode": "frame_step", "step": 3, "n": 3},
    ],
)
def test_a_short_video_is_an_error_where_that_is_asked_for(sampling: dict[str, Any]) -> None:
    with pytest.raises(MediaError, match=rf"5 frames.*{sampling['mode']}\(n=") as caught:
        chosen(steady(5), short="error", **sampling)
    assert caught.value.reason is Reason.TOO_SHORT
    assert chosen(steady(20), short="error", **sampling)


@pytest.mark.parametrize("short", ["hold", "circulant"])
def test_one_frame_serves_every_mode(short: str) -> None:
    for mode in ({"mode": "uniform"}, {"mode": "fps", "rate": 3}, {"mode": "duration", "seconds": 4}):
        assert chosen(np.zeros(1), n=3, burst=2, short=short, **mode) == [[0] * 6]
    assert chosen(np.zeros(1), mode="frame_step", step=2, n=3, short=short) == [[0] * 3]


def test_no_frames_is_a_callers_error() -> None:
    with pytest.raises(ConfigError):
        chosen(np.zeros(0), mode="uniform", n=1)


class TestBudget:
    def test_short_videos_are_read_as_asked(self) -> None:
        plain = chosen(steady(64), mode="uniform", n=8, burst=2)
        assert chosen(steady(64), mode="uniform", n=8, burst=2, decode_budget=64) == plain

    def test_positions_near_their_key_frames_stay(self) -> None:
        keyframes = list(range(0, 1000, 10))
        plain = chosen(steady(1000), keyframes, mode="uniform", n=8)
        assert chosen(steady(1000), keyframes, mode="uniform", n=8, decode_budget=80) == plain

    def test_a_far_position_moves_back_to_its_share(self) -> None:
        # Key frames at 0 and 500, shares of 20 frames: 249 -> 19 and 749 -> 519.
        assert chosen(steady(1000), [0, 500], mode="uniform", n=2) == [[249, 749]]
        assert chosen(steady(1000), [0, 500], mode="uniform", n=2, decode_budget=40) == [[19, 519]]

    def test_positions_in_one_long_gop_continue_after_one_another(self) -> None:
        assert chosen(steady(1000), mode="uniform", n=4, burst=2, decode_budget=40) == [[8, 9, 18, 19, 28, 29, 38, 39]]
        assert chosen(steady(1000), mode="uniform", n=4, burst=2, decode_budget=8) == [list(range(8))]

    def test_what_one_position_leaves_another_may_use(self) -> None:
        # The first needs 1 of its 20 frames, the second takes 39 beyond key frame 500.
        assert chosen(steady(1000), [0, 249, 500], mode="uniform", n=2, decode_budget=40) == [[249, 538]]


def test_decode_cost_counts_each_frame_once() -> None:
    assert decode_cost([3, 7, 7, 25], [0, 20]) == 8 + 6
    assert decode_cost([0], [0]) == 1
    assert decode_cost([], [0]) == 0


@st.composite
def videos(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """(times, key frames) of a constant or variable frame rate video."""
    steps = draw(st.lists(st.one_of(st.integers(1, 60), st.integers(1, 9000)), min_size=0, max_size=120))
    if draw(st.booleans()):
        steps = [40] * len(steps)
    times = np.concatenate([[0], np.cumsum(steps)]) / 1000
    keys = draw(st.lists(st.integers(0, len(times) - 1), max_size=8))
    return times, np.unique(np.array([0, *keys], np.int64))


@st.composite
def samplings(draw: st.DrawFn) -> Sampling:
    mode = draw(st.sampled_from(["uniform", "fps", "duration", "frame_step"]))
    n, burst = draw(st.integers(1, 12)), draw(st.integers(1, 4))
    extra: dict[str, Any] = {}
    if mode == "fps":
        extra["rate"] = draw(st.floats(0.2, 60))
    if mode == "duration":
        extra["seconds"] = draw(st.floats(0.1, 30))
    if mode == "frame_step":
        extra["step"] = draw(st.integers(1, 20))
    if draw(st.booleans()):
        extra["decode_budget"] = n * burst + draw(st.integers(0, 40))
    return Sampling(
        mode=mode,
        n=n,
        burst=burst,
        short=draw(st.sampled_from(["hold", "circulant"])),
        views=draw(st.integers(1, 3)),
        **extra,
    )


@settings(max_examples=300, deadline=None)
@given(videos(), samplings())
def test_any_sampling_of_any_video_is_in_range_and_complete(
    video: tuple[np.ndarray, np.ndarray], sampling: Sampling
) -> None:
    views = select_frames(sampling, *video)
    assert len(views) == sampling.views
    for view in views:
        assert view.dtype == np.int64
        assert view.shape == (sampling.num_frames,)
        assert view.min() >= 0
        assert view.max() < len(video[0])


@settings(max_examples=300, deadline=None)
@given(videos(), samplings())
def test_no_video_costs_more_than_the_budget(video: tuple[np.ndarray, np.ndarray], sampling: Sampling) -> None:
    times, keys = video
    for view in select_frames(sampling, times, keys):
        assert decode_cost(view, keys) <= min(len(times), sampling.decode_budget or len(times))


@settings(max_examples=300, deadline=None)
@given(videos(), samplings())
def test_uniform_frames_ascend_without_repeats_where_there_are_enough(
    video: tuple[np.ndarray, np.ndarray], sampling: Sampling
) -> None:
    if sampling.mode == "uniform" and len(video[0]) >= sampling.num_frames:
        for view in select_frames(sampling, *video):
            assert (np.diff(view) > 0).all()


@settings(max_examples=200, deadline=None)
@given(videos(), samplings())
def test_frames_never_go_back_in_time_unless_the_video_starts_over(
    video: tuple[np.ndarray, np.ndarray], sampling: Sampling
) -> None:
    if sampling.short == "hold" and sampling.burst == 1:
        for view in select_frames(sampling, *video):
            assert (np.diff(view) >= 0).all()


@settings(max_examples=200, deadline=None)
@given(videos(), st.integers(1, 12))
def test_single_frames_lie_nearest_to_their_strata(video: tuple[np.ndarray, np.ndarray], n: int) -> None:
    """Where positions do not crowd, the mode is the brute-force nearest frame to each centre."""
    times, keys = video
    if len(times) < max(2, n):
        return
    interval = times[-1] / (len(times) - 1)
    centres = (np.arange(n) + 0.5) * (times[-1] + interval) / n - interval / 2
    nearest = np.abs(times[None] - centres[:, None]).min(1)
    [view] = select_frames(Sampling(mode="uniform", n=n), times, keys)
    brute = np.argmin(np.round(np.abs(times[None] - centres[:, None]), 7), 1)
    if len(set(brute.tolist())) == n:
        np.testing.assert_allclose(np.abs(times[view] - centres), nearest, atol=1e-6)
