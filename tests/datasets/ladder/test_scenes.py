from __future__ import annotations

import numpy as np
import pytest

from vqa_train.datasets.ladder.scenes import PROMPTS, SCENES, render_scene, scene_name, scene_prompt


def frames_of(name: str, count: int = 6) -> np.ndarray:
    return np.stack(list(render_scene(name, width=160, height=90, frames=count, fps=24)))


@pytest.mark.parametrize("kind", list(SCENES))
def test_a_scene_is_a_moving_textured_picture_in_range(kind: str) -> None:
    frames = frames_of(f"{kind}-0").astype(float)
    assert frames.shape == (6, 90, 160, 3)
    assert frames.std(axis=(1, 2, 3)).min() > 8
    assert np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2, 3)).min() > 0.3
    # A letterbox may be black over two fifths of the picture.
    assert np.mean((frames <= 0) | (frames >= 255)) < 0.5


@pytest.mark.parametrize("kind", list(SCENES))
def test_neighbouring_frames_show_the_same_thing(kind: str) -> None:
    first, second = frames_of(f"{kind}-0", count=2).mean(axis=-1)
    assert np.corrcoef(first.ravel(), second.ravel())[0, 1] > 0.55


def test_a_scene_depends_on_its_name_alone() -> None:
    np.testing.assert_array_equal(frames_of("water-0", 2), frames_of("water-0", 2))
    first, other = frames_of("foliage-0", 1), frames_of("foliage-1", 1)
    assert abs(np.corrcoef(first.ravel(), other.ravel())[0, 1]) < 0.6


def test_names_go_round_the_kinds_and_never_repeat() -> None:
    names = [scene_name(index) for index in range(25)]
    assert len(set(names)) == 25
    assert names[0].endswith("-0")
    assert names[len(SCENES)] == names[0].replace("-0", "-1")


def test_scenes_differ_in_brightness_contrast_colour_and_motion() -> None:
    facts = []
    for kind in SCENES:
        frames = frames_of(f"{kind}-0", 2).astype(float)
        colour = (frames.max(axis=-1) - frames.min(axis=-1)).mean()
        facts.append((frames.mean(), frames.std(), colour, np.abs(np.diff(frames, axis=0)).mean()))
    smallest, largest = np.min(facts, axis=0), np.max(facts, axis=0)
    assert (largest > 2 * smallest).all()


def test_every_kind_has_a_prompt_and_a_users_clip_has_none() -> None:
    assert set(PROMPTS) == set(SCENES)
    assert scene_prompt("water-12") == PROMPTS["water"]
    assert scene_prompt("water-0a1b2c3d") is None
    assert scene_prompt("holiday") is None
