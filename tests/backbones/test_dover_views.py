"""Views against the official sampler's goldens, torch and numpy; frames of every size; the same code as a graph."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from vqa_train.backbones.dover_views import (
    ALIGNED,
    CLIPS,
    DRAWS,
    GRID,
    PATCH,
    SIDE,
    fragment_corners,
    fragments,
    resized,
)
from vqa_train.core.errors import ModelError
from vqa_train.core.hashing import content_draws
from vqa_train.onnx.export import export_module
from vqa_train.onnx.runtime import OnnxModel

PATH = Path(__file__).resolve().parents[1] / "golden" / "dover_views.npz"
GOLDEN: dict[str, NDArray[np.generic]] = dict(np.load(PATH))
FRAGMENTS = sorted({key.split("/")[1] for key in GOLDEN if key.startswith("fragments/")})
RESIZES = sorted({key.split("/")[1] for key in GOLDEN if key.startswith("resize/")})


def frames(seed: int, count: int, height: int, width: int) -> NDArray[np.uint8]:
    """The goldens' made video: noise on ramps, uint8 (T, H, W, 3)."""
    noise = np.random.RandomState(seed).randint(0, 128, size=(count, height, width, 3), dtype=np.uint8)
    i, j = np.arange(height)[:, None], np.arange(width)[None, :]
    ramps = (i * 127 // (height - 1) + 0 * j, j * 127 // (width - 1) + 0 * i, (i + j) * 127 // (height + width - 2))
    return noise + np.stack(ramps, -1).astype(np.uint8)[None]


def noise(height: int, width: int, count: int = CLIPS * ALIGNED) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8))


def some_draws(name: str = "video") -> Tensor:
    return torch.from_numpy(content_draws(DRAWS, "draws", name, 0))


def published(key: str) -> str:
    """The golden sha256, under torch 2.13 where it differs from the official run under 2.15."""
    return str(GOLDEN.get(f"{key}_torch213", GOLDEN[key]))


def sha256(values: NDArray[np.generic]) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()


class TestGoldens:
    @pytest.mark.parametrize("name", FRAGMENTS)
    def test_fragments_are_the_official_ones(self, name: str) -> None:
        count, height, width = (int(part) for part in name.split("x"))
        video = frames(7, 1 if height == 1080 else count, height, width)
        video = np.broadcast_to(video, (count, *video.shape[1:])).copy()
        tops, lefts = (
            torch.from_numpy(GOLDEN[f"fragments/{name}/{side}"].astype(np.int64)) for side in ("tops", "lefts")
        )
        found = fragments(torch.from_numpy(video), tops, lefts)
        assert found.shape == (count // ALIGNED, 3, ALIGNED, SIDE, SIDE)
        whole = found.permute(1, 0, 2, 3, 4).reshape(3, count, SIDE, SIDE).numpy()
        assert sha256(whole) == published(f"fragments/{name}/sha256_u8")
        row = GOLDEN[f"fragments/{name}/row"].astype(int)
        assert np.abs(whole[:, :: max(1, count // 4), 100] - row).max() <= 1

    @pytest.mark.parametrize("antialias", [False, True])
    @pytest.mark.parametrize("name", RESIZES)
    def test_resizes_are_the_official_ones(self, name: str, antialias: bool) -> None:
        height, width = (int(part) for part in name.split("x"))
        found = resized(torch.from_numpy(frames(9, 2, height, width)), SIDE, antialias=antialias).numpy()
        key = f"resize/{name}/{'aa' if antialias else 'noaa'}"
        assert sha256(found) == published(f"{key}/sha256")
        assert np.abs(found[:, 0, (0, 111, 223)] - GOLDEN[f"{key}/rows"].astype(int)).max() <= 1

    def test_the_copies_are_the_originals(self, shared: Path) -> None:
        for part in ("temporal", "fragments", "resize", "end_to_end"):
            prefix = f"{part}/" if part == "end_to_end" else ""
            original = np.load(shared / "backbones" / "golden" / f"dover_{part}.npz")
            for key in original.files:
                if prefix + key in GOLDEN:
                    np.testing.assert_array_equal(GOLDEN[prefix + key], original[key])
                else:
                    assert "upsampled" in key or key.rsplit("/")[-1] in ("mean", "out_dtype", "sha256_f32"), key

    def test_official_corners_come_from_official_draws(self) -> None:
        # torch.randint(room) for the rows of each cell and clip, then for the columns; 240 / 7 leaves room for 2.
        generator = torch.Generator().manual_seed(42)
        video = noise(240, 320)
        draws = [torch.randint(cell - PATCH, (GRID, GRID, CLIPS), generator=generator) for cell in (34, 45)]
        # A draw in the middle of the k-th of `room` equal parts of [0, 2**32) is mapped to k.
        scaled = [(2 * draw + 1) * (1 << 31) // (cell - PATCH) for draw, cell in zip(draws, (34, 45), strict=True)]
        tops, lefts = fragment_corners(video, torch.stack(scaled).flatten())
        np.testing.assert_array_equal(tops, GOLDEN["fragments/96x240x320/tops"])
        np.testing.assert_array_equal(lefts, GOLDEN["fragments/96x240x320/lefts"])


class TestCorners:
    def test_every_offset_is_reached_and_none_beyond(self) -> None:
        # Cells of 45 rows and 34 columns: 13 and 2 offsets.
        video = noise(315, 238, 1)
        low, high = (fragment_corners(video, torch.full((DRAWS,), draw)) for draw in (0, (1 << 32) - 1))
        for corners, cell, last in ((low, (45, 34), (0, 0)), (high, (45, 34), (12, 1))):
            for axis in (0, 1):
                expected = np.arange(GRID) * cell[axis] + last[axis]
                shape = (GRID, 1, 1) if axis == 0 else (1, GRID, 1)
                np.testing.assert_array_equal(corners[axis], np.broadcast_to(expected.reshape(shape), (7, 7, 3)))

    def test_without_draws_fragments_lie_in_the_middle_of_their_cells(self) -> None:
        tops, lefts = fragment_corners(noise(315, 238, 1), None)
        np.testing.assert_array_equal(tops[:, 0, 0], np.arange(7) * 45 + 6)
        np.testing.assert_array_equal(lefts[0, :, 2], np.arange(7) * 34 + 1)

    def test_small_cells_overlap_and_have_no_offsets(self) -> None:
        # 100 // 7 = 14: cells begin every 14 pixels, as far as a patch fits.
        for draws in (None, some_draws()):
            tops, lefts = fragment_corners(noise(100, 32, 1), draws)
            np.testing.assert_array_equal(tops[:, 3, 1], [0, 14, 28, 42, 56, 68, 68])
            np.testing.assert_array_equal(lefts, np.zeros((7, 7, 3)))

    def test_rows_and_columns_and_clips_have_draws_of_their_own(self) -> None:
        draws = some_draws()
        tops, lefts = fragment_corners(noise(700, 1400, 1), draws)
        table = draws.reshape(2, GRID, GRID, CLIPS)
        assert tops[2, 5, 1] == 200 + (int(table[0, 2, 5, 1]) * 68 >> 32)
        assert lefts[2, 5, 1] == 1000 + (int(table[1, 2, 5, 1]) * 168 >> 32)


class TestSizes:
    @pytest.mark.parametrize("size", [(224, 224), (225, 300), (480, 640)])
    def test_patches_are_cut_from_frames_of_full_size(self, size: tuple[int, int]) -> None:
        video = noise(*size)
        tops, lefts = fragment_corners(video, some_draws())
        found = fragments(video, tops, lefts).numpy()
        for clip, row, column in ((0, 0, 0), (1, 6, 2), (2, 3, 6)):
            top, left = int(tops[row, column, clip]), int(lefts[row, column, clip])
            expected = video[clip * ALIGNED : (clip + 1) * ALIGNED, top : top + PATCH, left : left + PATCH].numpy()
            place = np.s_[row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH]
            np.testing.assert_array_equal(found[clip][:, :, *place].transpose(1, 2, 3, 0), expected)

    @pytest.mark.parametrize("size", [(32, 32), (33, 500), (223, 223), (100, 400), (1000, 64)])
    def test_smaller_frames_are_enlarged_as_torch_does(self, size: tuple[int, int]) -> None:
        """Against torch's own kernel on whole frames: within a level, which is all that its versions agree on."""
        video = noise(*size)
        tops, lefts = fragment_corners(video, some_draws())
        found = fragments(video, tops, lefts).numpy().astype(int)
        planes = video[::ALIGNED].permute(0, 3, 1, 2) / 255
        factor = 1 / min(size[0] / SIDE, size[1] / SIDE)
        large = functional.interpolate(planes, scale_factor=factor, mode="bilinear", align_corners=False)
        levels = (large * 255).to(torch.uint8).numpy().astype(int)
        assert min(levels.shape[2:]) in (SIDE - 1, SIDE)
        for clip in range(CLIPS):
            for row in range(GRID):
                for column in range(GRID):
                    top, left = int(tops[row, column, clip]), int(lefts[row, column, clip])
                    expected = levels[clip][:, top : top + PATCH, left : left + PATCH]
                    place = np.s_[row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH]
                    difference = np.abs(found[clip, :, 0][:, *place] - expected)
                    assert difference.max() <= 1
                    assert (difference > 0).mean() < 0.01

    def test_a_resize_of_one_colour_is_that_colour(self) -> None:
        for antialias in (False, True):
            for value in (0, 1, 127, 255):
                video = torch.full((2, 37, 501, 3), value, dtype=torch.uint8)
                assert (resized(video, 64, antialias=antialias) == value).all()

    def test_halves_are_rounded_to_even(self) -> None:
        # 2 x 2 pixels to 1 x 1: the mean of four.
        for values, expected in (((0, 1, 0, 1), 0), ((1, 2, 1, 2), 2), ((2, 3, 2, 3), 2), ((254, 255, 254, 255), 254)):
            video = torch.tensor(values, dtype=torch.uint8).reshape(1, 2, 2, 1).expand(1, 2, 2, 3)
            assert resized(video, 1).flatten().tolist() == [expected] * 3

    def test_one_pixel_can_be_resized(self) -> None:
        assert (resized(torch.full((1, 1, 1, 3), 7, dtype=torch.uint8), 5) == 7).all()

    def test_frames_too_small_for_a_patch_do_not_give_pixels_of_elsewhere(self) -> None:
        for size in ((31, 300), (300, 31), (8, 8)):
            video = noise(*size)
            with pytest.raises(IndexError):
                fragments(video, *fragment_corners(video, some_draws()))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("size", [(480, 640), (100, 400)])
def test_a_gpu_gives_the_same_bits(size: tuple[int, int]) -> None:
    video, draws = noise(*size), some_draws()
    expected = fragments(video, *fragment_corners(video, draws)), resized(video[:ALIGNED], SIDE)
    video, draws = video.cuda(), draws.cuda()
    found = fragments(video, *fragment_corners(video, draws)), resized(video[:ALIGNED], SIDE)
    for mine, theirs in zip(found, expected, strict=True):
        assert torch.equal(mine.cpu(), theirs)


class _Views(nn.Module):
    def __init__(self, antialias: bool) -> None:
        super().__init__()
        self.antialias = antialias

    def forward(self, video: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        tops, lefts = fragment_corners(video, draws)
        return fragments(video, tops, lefts), resized(video[:ALIGNED], 96, antialias=self.antialias)


@pytest.fixture(scope="module", params=[False, True])
def graph(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[_Views, OnnxModel]:
    module, path = _Views(request.param), tmp_path_factory.mktemp("views") / "views.onnx"
    export_module(
        module,
        (noise(230, 240), some_draws()),
        path,
        input_names=["frames", "draws"],
        output_names=["technical", "aesthetic"],
        dynamic_axes={"frames": {1: "height", 2: "width"}},
    )
    return module, OnnxModel(path)


@pytest.mark.parametrize("size", [(230, 240), (224, 500), (720, 405), (100, 400), (32, 32), (33, 500), (223, 90)])
def test_one_graph_gives_the_views_of_every_size(graph: tuple[_Views, OnnxModel], size: tuple[int, int]) -> None:
    module, model = graph
    video, draws = noise(*size), some_draws(str(size))
    expected = [view.numpy() for view in module(video, draws)]
    found = model.run({"frames": video.numpy(), "draws": draws.numpy()})
    np.testing.assert_array_equal(found["technical"], expected[0])
    if module.antialias:
        difference = np.abs(found["aesthetic"].astype(int) - expected[1])
        assert difference.max() <= 1
        assert (difference > 0).mean() < 1e-3
    else:
        np.testing.assert_array_equal(found["aesthetic"], expected[1])


def test_the_graph_refuses_frames_too_small_for_a_patch(graph: tuple[_Views, OnnxModel]) -> None:
    _, model = graph
    with pytest.raises(ModelError, match="out of data bounds"):
        model.run({"frames": noise(31, 300).numpy(), "draws": some_draws().numpy()})
