"""Differences, motion, freezes, jumps and flicker: formulas by hand, and made clips that have one fault each."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from vqa_train.backbones import nss_temporal
from vqa_train.backbones.nss_names import DIFFERENCE, MOTION, PER_CLIP
from vqa_train.backbones.nss_statistics import Features

BURSTS, BURST, HEIGHT, WIDTH = 4, 6, 48, 64


def panning(speed: float = 2.0, seed: int = 0, count: int = BURSTS * BURST) -> NDArray[np.float32]:
    """A smooth texture that moves `speed` pixels a frame, luma - 128, (count, H, W)."""
    rng = np.random.default_rng(seed)
    texture = ndimage.gaussian_filter(rng.normal(0, 200, (HEIGHT, WIDTH + 80)), 2)
    shifts = [ndimage.shift(texture, (0, -speed * i), order=1, mode="wrap")[:, :WIDTH] for i in range(count)]
    return np.stack(shifts).astype(np.float32)


def motion(luma: NDArray[np.float32]) -> tuple[Features, Features]:
    bursts = torch.from_numpy(luma).reshape(BURSTS, BURST, HEIGHT, WIDTH)
    return nss_temporal.motion_features(
        nss_temporal.split_series(nss_temporal.burst_series(bursts), BURST),
    )


def shown(luma: NDArray[np.float32], indices: list[int]) -> NDArray[np.float32]:
    return luma[np.array(indices)]


def differences(earlier: Tensor, later: Tensor) -> Features:
    return nss_temporal.difference_features(earlier, later).fitted()


def test_every_feature_has_a_name_and_every_name_a_feature() -> None:
    per_burst, per_clip = motion(panning())
    assert set(per_burst) == {feature.name for feature in MOTION}
    assert set(per_clip) == {feature.name for feature in PER_CLIP}
    one = torch.from_numpy(panning()[:1])
    assert set(differences(one, one)) == {feature.name for feature in DIFFERENCE}


def test_ti_is_the_deviation_of_the_difference() -> None:
    luma = panning()
    found = differences(torch.from_numpy(luma[:1]), torch.from_numpy(luma[1:2]))["ti"]
    assert found.item() == pytest.approx(np.log2(0.1 + (luma[1] - luma[0]).std()), rel=1e-5)


def test_noise_makes_differences_rough_and_gaussian() -> None:
    luma = panning()
    noise = np.random.default_rng(1).normal(0, 8, (2, HEIGHT, WIDTH)).astype(np.float32)
    clean = differences(*(torch.from_numpy(luma[i : i + 1]) for i in (0, 1)))
    noisy = differences(*(torch.from_numpy(luma[i : i + 1] + noise[i]) for i in (0, 1)))
    assert noisy["diff_rough"] > clean["diff_rough"] + 0.3
    assert noisy["diff1_hv_mean"] < clean["diff1_hv_mean"]
    assert noisy["diff_flat_4"] < clean["diff_flat_4"]


def test_series_are_split_as_they_were_joined() -> None:
    luma = torch.from_numpy(panning()).reshape(BURSTS, BURST, HEIGHT, WIDTH)
    series = nss_temporal.split_series(nss_temporal.burst_series(luma), BURST)
    steps = (luma[:, 1:] - luma[:, :-1]).double()
    expected = {
        "size": steps.abs().mean((2, 3)),
        "power": steps.square().mean((2, 3)),
        "still": (2 - steps.abs()).clamp(0, 1).mean((2, 3)),
        "bend": (steps[:, 1:] - steps[:, :-1]).abs().mean((2, 3)),
        "level": luma.double().mean((2, 3)),
        "edge": luma.double().diff(dim=3).abs().mean((2, 3)),
        "variance": luma.double().var((2, 3), correction=0),
    }
    assert set(series) == set(expected)
    for name, values in expected.items():
        torch.testing.assert_close(series[name].double(), values, rtol=1e-5, atol=1e-5, msg=name)


def test_smooth_motion_is_neither_frozen_nor_jumping_nor_flickering() -> None:
    per_burst, per_clip = motion(panning())
    assert per_burst["frozen"].max() == 0
    assert per_burst["stutter"].max() == 0
    assert per_burst["jump"].max() < 0.3
    assert per_clip["lost_motion"].item() == pytest.approx(np.log2(0.1))
    assert per_clip["judder_share"] < -1.5


def test_speed_doubles_with_motion_and_does_not_depend_on_contrast() -> None:
    slow, fast, faint = (motion(luma)[0]["speed"].mean() for luma in (panning(0.5), panning(1), panning(0.5) / 3))
    assert (fast - slow).item() == pytest.approx(1, abs=0.15)
    assert faint.item() == pytest.approx(slow.item(), abs=0.1)


def test_a_frozen_burst_is_frozen_and_does_not_stutter() -> None:
    luma = panning()
    luma[BURST : 2 * BURST] = luma[BURST]
    per_burst, per_clip = motion(luma)
    torch.testing.assert_close(per_burst["frozen"], torch.tensor([0.0, 1.0, 0.0, 0.0]))
    assert per_burst["stutter"].max() == 0
    assert per_burst["still"][1] == 1
    assert per_clip["frozen_bursts"].item() == pytest.approx(0.25)


def test_repeated_frames_stutter_and_jump() -> None:
    luma = shown(panning(), [i // 2 * 2 for i in range(BURSTS * BURST)])
    per_burst, per_clip = motion(luma)
    torch.testing.assert_close(per_burst["frozen"], torch.full((BURSTS,), 0.6))
    torch.testing.assert_close(per_burst["stutter"], torch.ones(BURSTS))
    assert per_clip["frozen_bursts"] == 0
    assert per_clip["judder_share"] > -1


def test_a_repeated_frame_with_coding_noise_is_still_frozen() -> None:
    luma = panning()
    luma[BURST : 2 * BURST] = luma[BURST]
    luma += np.random.default_rng(2).normal(0, 0.3, luma.shape).astype(np.float32)
    assert motion(luma)[0]["frozen"][1] > 0.5


def test_a_still_picture_is_not_a_freeze() -> None:
    per_burst, per_clip = motion(np.repeat(panning()[:1], BURSTS * BURST, 0))
    assert per_burst["frozen"].max() == 0
    assert per_burst["still"].min() == 1
    assert per_clip["typical_motion"].item() == pytest.approx(np.log2(0.1))


def test_typical_motion_is_that_of_the_moving_pairs() -> None:
    size = torch.tensor([[4.0, 4.0, 0.0], [4.0, 0.0, 0.1]])
    assert nss_temporal.typical_motion(size).item() == pytest.approx(4, rel=1e-4)
    assert nss_temporal.typical_motion(torch.zeros(2, 3)).item() == 0


def test_lost_frames_show_as_a_jump_of_their_number() -> None:
    per_burst, _ = motion(shown(panning(0.5, count=27), [*range(3), *range(6, 27)]))
    assert per_burst["jump"].argmax() == 0
    assert per_burst["jump"][0].item() == pytest.approx(2, abs=0.4)  # one step of 4 frames


def test_flicker_is_the_bend_of_mean_luma_and_a_fade_is_none() -> None:
    luma = panning(0)
    gain = (10 * (-1.0) ** np.arange(BURSTS * BURST)).astype(np.float32)
    flickering = motion(luma + gain[:, None, None])[0]
    assert flickering["flicker"].mean().item() == pytest.approx(np.log2(0.02 + 40), abs=1e-3)
    assert flickering["luma_step"].mean().item() == pytest.approx(np.log2(0.02 + 20), abs=1e-3)
    assert flickering["flicker_share"].min() > 0.9
    fading = motion(luma + np.arange(BURSTS * BURST, dtype=np.float32)[:, None, None])[0]
    assert fading["flicker"].max().item() == pytest.approx(np.log2(0.02), abs=0.1)
    assert fading["luma_step"].mean().item() == pytest.approx(np.log2(1.02), abs=1e-2)


def test_a_change_of_gain_is_told_from_motion() -> None:
    luma = panning(0)
    gain = (1 + 0.2 * (-1.0) ** np.arange(BURSTS * BURST)).astype(np.float32)
    assert motion(luma * gain[:, None, None])[0]["gain_share"].min() > 0.9
    assert motion(panning())[0]["gain_share"].max() < 0.2
    contrast = motion(luma * gain[:, None, None])[0]["contrast_step"]
    deviation = luma[0].std()
    assert 2 ** contrast.mean().item() - 0.01 == pytest.approx(0.4 * deviation / (2 * deviation + 1), rel=0.02)


def test_pulsing_sharpness_shows_in_sharp_step() -> None:
    luma = panning(0, seed=3)
    soft = np.stack([ndimage.gaussian_filter(p, 2.0 if i % 3 == 0 else 0) for i, p in enumerate(luma)])
    assert motion(soft)[0]["sharp_step"].min() > motion(luma)[0]["sharp_step"].max() + 2


def test_motion_features_are_these_formulas_of_the_series() -> None:
    rng = np.random.default_rng(5)
    luma = panning(seed=4) * rng.uniform(0.7, 1.3, (BURSTS * BURST, 1, 1)).astype(np.float32)
    luma += np.cumsum(rng.normal(0, 3, (BURSTS * BURST, 1, 1)), 0).astype(np.float32)
    bursts = luma.reshape(BURSTS, BURST, HEIGHT, WIDTH).astype(np.float64)
    size = np.abs(np.diff(bursts, axis=1)).mean((2, 3))
    bend = np.abs(np.diff(bursts, 2, axis=1)).mean((2, 3))
    level = bursts.mean((2, 3))
    step, flicker = np.abs(np.diff(level, axis=1)), np.abs(np.diff(level, 2, axis=1))
    edge = np.abs(np.diff(bursts, axis=3)).mean((2, 3))
    sharp_step = np.abs(np.diff(edge, axis=1)) / (edge[:, 1:] + edge[:, :-1] + 1)
    typical = np.mean(np.sqrt(size)) ** 2
    jump = np.maximum(np.log2((size + 0.02) / (typical + 0.02)), -1)
    expected_burst = {
        "motion": np.log2(size.mean(1) + 0.1),
        "motion_range": np.log2((size.max(1) + 0.1) / (size.min(1) + 0.1)),
        "irregular": ((bend + 0.05) / (size[:, 1:] + size[:, :-1] + 0.1)).mean(1),
        "jump": jump.max(1),
        "luma_step": np.log2(step.mean(1) + 0.02),
        "flicker": np.log2(flicker.mean(1) + 0.02),
        "flicker_share": (step / (size + 0.1)).mean(1),
        "sharp_step": np.log2(sharp_step.mean(1) + 0.01),
    }
    expected_clip = {
        "typical_motion": np.log2(typical + 0.1),
        "judder": np.log2(np.abs(size - typical).mean() + 0.1),
        "judder_share": np.log2(np.abs(size - typical).mean() / (typical + 0.2) + 0.05),
        "jump_worst": np.quantile(jump, 0.95),
        "luma_spread": np.log2(level.std() + 0.1),
        "step_worst": np.log2(np.quantile(step, 0.9) + 0.02),
        "flicker_worst": np.log2(np.quantile(flicker, 0.9) + 0.02),
        "sharp_step_worst": np.log2(np.quantile(sharp_step, 0.9) + 0.01),
    }
    per_burst, per_clip = motion(luma)
    for found, expected in ((per_burst, expected_burst), (per_clip, expected_clip)):
        for name, values in expected.items():
            np.testing.assert_allclose(found[name], values, rtol=1e-3, atol=1e-4, err_msg=name)


def test_lost_motion_is_typical_motion_times_the_frozen_share() -> None:
    luma = panning()
    luma[BURST : 2 * BURST] = luma[BURST]
    per_burst, per_clip = motion(luma)
    typical = 2 ** per_clip["typical_motion"] - 0.1
    expected = torch.log2(typical * per_burst["frozen"].mean() + 0.1)
    torch.testing.assert_close(per_clip["lost_motion"], expected, rtol=1e-4, atol=1e-4)
