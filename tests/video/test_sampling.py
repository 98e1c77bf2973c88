"""Frame choice: hand-computed cases for every mode, and properties over arbitrary videos."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vqa_train.core.errors import ConfigError, MediaError, Reason
from vqa_train.core.types import Sampling
from vqa_train.video.sampling import decode_cost, select_frames


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
