from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import scipy.ndimage

from vqa_train.datasets.ladder import distortions
from vqa_train.datasets.ladder.distortions import KINDS, LEVELS
from vqa_train.datasets.ladder.frames import Frames, read_frames


@pytest.fixture
def pristine(clips: dict[str, Frames]) -> Frames:
    clip = clips["clouds-0"]
    return Frames(clip.luma[:24], clip.chroma[:24], clip.fps)


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def test_there_are_at_least_eight_kinds_of_five_rising_levels() -> None:
    assert len(KINDS) >= 8
    for kind in KINDS.values():
        assert len(kind.values) == LEVELS == 5
        assert list(kind.values) == sorted(set(kind.values))


@pytest.mark.parametrize("name", distortions.available_kinds())
def test_a_rung_keeps_length_size_and_rate_and_its_bytes_are_the_same_again(name: str, pristine: Frames) -> None:
    file = KINDS[name].render(pristine, 3, rng())
    clip = read_frames(file)
    assert clip.luma.shape == pristine.luma.shape
    assert clip.chroma.shape == pristine.chroma.shape
    assert float(clip.fps) == pytest.approx(24, rel=1e-3)
    assert KINDS[name].render(pristine, 3, rng()) == file


@pytest.mark.parametrize("name", ["x264", "x265", "vp9"])
def test_a_codec_spends_fewer_bytes_at_each_level(name: str, pristine: Frames) -> None:
    sizes = [len(KINDS[name].render(pristine, level, rng())) for level in range(1, LEVELS + 1)]
    assert sizes == sorted(set(sizes), reverse=True)


def nearest_sigma(plane: np.ndarray, original: np.ndarray) -> float:
    """The standard deviation of the Gaussian (SciPy's) that takes `original` nearest to `plane`."""
    sigmas = np.arange(0.6, 3.0, 0.05)
    inner = np.s_[8:-8, 8:-8]
    blurred = [scipy.ndimage.gaussian_filter(original.astype(float), sigma)[inner] for sigma in sigmas]
    return float(sigmas[np.argmin([np.abs(picture - plane[inner]).mean() for picture in blurred])])


def test_blur_is_a_gaussian(pristine: Frames) -> None:
    # sigma is for a height of 270: 6 is 2 pixels here, and 1 in the chroma planes.
    blurred = distortions.blur(pristine, 6.0, rng())
    assert nearest_sigma(blurred.luma[3], pristine.luma[3]) == pytest.approx(2, abs=0.15)
    assert nearest_sigma(blurred.chroma[3, 1], pristine.chroma[3, 1]) == pytest.approx(1, abs=0.15)
    expected = scipy.ndimage.gaussian_filter(pristine.luma[3].astype(float), 2.0)
    np.testing.assert_allclose(blurred.luma[3, 8:-8, 8:-8], expected[8:-8, 8:-8], atol=3)


def test_noise_has_its_standard_deviation_and_is_new_in_every_frame() -> None:
    flat = Frames(np.full((4, 90, 160), 120, np.uint8), np.full((4, 2, 45, 80), 128, np.uint8), Fraction(24))
    noisy = distortions.noise(flat, 8.0, rng())
    assert noisy.luma.std() == pytest.approx(8, rel=0.02)
    assert noisy.chroma.std() == pytest.approx(4, rel=0.03)
    assert abs(np.corrcoef(noisy.luma[0].ravel(), noisy.luma[1].ravel())[0, 1]) < 0.05


def test_banding_leaves_only_multiples_of_its_step(pristine: Frames) -> None:
    banded = distortions.banding(pristine, 20.0, rng())
    assert set(np.unique(banded.luma)) <= {16 + 20 * i for i in range(11)}
    assert set(np.unique(banded.chroma)) <= {128 + 10 * i for i in range(-12, 12)}
    assert np.abs(banded.luma.astype(int) - pristine.luma).max() <= 10 + 1


def test_rescaling_takes_away_fine_detail_and_keeps_the_rest(pristine: Frames) -> None:
    small = distortions.rescale(pristine, 3.0, rng())
    before, after = (np.abs(np.diff(clip.luma.astype(float), axis=2)).mean() for clip in (pristine, small))
    assert after < 0.8 * before
    coarse = [clip.luma[:, :90, :160].reshape(24, 5, 18, 8, 20).mean((2, 4)) for clip in (pristine, small)]
    np.testing.assert_allclose(coarse[1], coarse[0], atol=2)


def shown(clip: Frames, original: Frames) -> list[int]:
    """Which frame of the original each frame of a rearranged clip is."""
    return [int(np.flatnonzero((original.luma == frame).all(axis=(1, 2)))[0]) for frame in clip.luma]


def test_a_freeze_holds_one_frame_and_then_catches_up(pristine: Frames) -> None:
    frames = shown(distortions.freeze(pristine, 0.5, rng()), pristine)
    repeats = [t for t in range(1, 24) if frames[t] == frames[t - 1]]
    assert len(repeats) == 12
    assert all(frames[t] == t for t in range(24) if t not in repeats)


def test_dropped_frames_show_the_last_good_one(pristine: Frames) -> None:
    frames = shown(distortions.drop(pristine, 0.5, rng()), pristine)
    lost = [t for t in range(24) if frames[t] != t]
    assert len(lost) == round(0.5 * 23)
    assert all(frames[t] == frames[t - 1] for t in lost)


@pytest.mark.parametrize("apply", [distortions.freeze, distortions.drop])
def test_what_a_level_repeats_the_next_one_repeats_too(apply: distortions.Apply, pristine: Frames) -> None:
    mild, severe = (shown(apply(pristine, share, rng()), pristine) for share in (0.3, 0.6))
    assert {t for t in range(24) if mild[t] != t} < {t for t in range(24) if severe[t] != t}


def test_flicker_scales_the_luma_of_whole_frames(pristine: Frames) -> None:
    flickering = distortions.flicker(pristine, 0.2, rng())
    light = flickering.luma.astype(float) - 16
    gain = light.sum(axis=(1, 2)) / (pristine.luma.astype(float) - 16).sum(axis=(1, 2))
    assert gain.min() == pytest.approx(0.8, abs=0.01)
    assert 1.05 < gain.max() < 1.21
    np.testing.assert_array_equal(flickering.chroma, pristine.chroma)
