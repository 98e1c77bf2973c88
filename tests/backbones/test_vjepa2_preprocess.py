"""V-JEPA 2's preprocessing against the official processor's results (tests/golden/README.md), in torch and in ONNX."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vqa_train.backbones import vjepa2_preprocess
from vqa_train.backbones.vjepa2_preprocess import (
    MEAN,
    STD,
    centre_views,
    float_views,
    graph_views,
    grey_levels,
    normalise,
    resized,
)
from vqa_train.onnx.export import export_module
from vqa_train.onnx.runtime import OnnxModel

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "vjepa2_preprocess.npz")
CASES = [case.decode() for case in GOLDEN["cases"]]
QUICK = ["256/360x640", "256/427x241", "256/200x300", "384/241x427", "384/480x480", "384/540x960"]
CROPS = (256, 384)
# Landscape, portrait, square, smaller than the crop, odd, only one side resized, tiny, and large enough for 18 bits.
SIZES = [(360, 640), (640, 360), (256, 256), (90, 160), (241, 427), (292, 520), (31, 17), (1, 1), (4400, 2600)]


def golden(case: str, kind: str) -> str:
    return GOLDEN[f"{kind}_sha256"][CASES.index(case)].decode()


@cache
def official_frames(case: str) -> tuple[Tensor, int]:
    """The recipe's video frames(21, 2, H, W), and the crop."""
    crop, size = case.split("/")
    height, width = map(int, size.split("x"))
    noise = np.random.RandomState(21).randint(0, 128, size=(2, height, width, 3), dtype=np.uint8)
    i, j = np.arange(height)[:, None], np.arange(width)[None, :]
    ramps = [i * 127 // (height - 1) + 0 * j, j * 127 // (width - 1) + 0 * i, (i + j) * 127 // (height + width - 2)]
    return torch.from_numpy(noise + np.stack(ramps, -1).astype(np.uint8)[None]), int(crop)


def noise_frames(height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(height * 10000 + width)
    return torch.randint(0, 256, (2, height, width, 3), dtype=torch.uint8, generator=generator)


def sha256(array: Tensor) -> str:
    return hashlib.sha256(np.ascontiguousarray(array.numpy()).tobytes()).hexdigest()


def finished(views: Tensor) -> Tensor:
    return normalise(views, grey_levels(MEAN), grey_levels(STD))


@pytest.mark.parametrize("case", CASES)
def test_views_and_normalised_views_are_the_official_ones(case: str) -> None:
    frames, crop = official_frames(case)
    views = centre_views(frames, crop)
    assert views.dtype == torch.uint8
    assert views.shape == (2, 3, crop, crop)
    assert views.is_contiguous()
    assert sha256(views) == golden(case, "u8")
    assert sha256(finished(views)) == golden(case, "f32")


@pytest.mark.parametrize("case", [key.removesuffix("/rows_u8") for key in GOLDEN if key.endswith("rows_u8")])
def test_rows_are_the_official_ones(case: str) -> None:
    frames, crop = official_frames(case)
    rows = centre_views(frames, crop)[0][:, [0, crop // 2, crop - 1]]
    np.testing.assert_array_equal(rows.numpy(), GOLDEN[f"{case}/rows_u8"])


def test_the_copied_goldens_are_those_of_the_shared_folder(shared: Path) -> None:
    official = np.load(shared / "backbones" / "golden" / "vjepa2_preprocess.npz")
    assert sorted({key.rsplit("/", 1)[0] for key in official}) == CASES
    for case in CASES:
        assert [golden(case, kind) for kind in ("u8", "f32")] == [
            str(official[f"{case}/{kind}_sha256"]) for kind in ("u8", "f32")
        ]


@pytest.mark.parametrize("case", CASES)
def test_the_exact_products_give_the_same_bits(case: str) -> None:
    frames, crop = official_frames(case)
    assert sha256(graph_views(frames, crop)) == golden(case, "u8")


@pytest.mark.parametrize("case", CASES)
def test_the_float_path_is_within_one_grey_level(case: str) -> None:
    frames, crop = official_frames(case)
    views = float_views(frames, crop)
    difference = (views.int() - centre_views(frames, crop).int()).abs()
    assert views.dtype == torch.uint8
    assert difference.max() <= 1
    # Were it always equal, this would not be the path that it is meant to be.
    assert 0 < (difference > 0).double().mean() < 0.3 or case == "256/292x520"


def test_the_float_path_takes_clips_in_parts() -> None:
    frames = torch.cat([noise_frames(120, 90)] * 9)
    assert torch.equal(float_views(frames, 256), torch.cat([float_views(frames[:2], 256)] * 9))


class Views(nn.Module):
    def __init__(self, crop: int) -> None:
        super().__init__()
        self.crop = crop

    def forward(self, frames: Tensor) -> Tensor:
        return centre_views(frames, self.crop)


@pytest.fixture(scope="module", params=CROPS)
def graph(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, OnnxModel]:
    path = tmp_path_factory.mktemp("onnx") / "views.onnx"
    export_module(
        Views(request.param),
        noise_frames(48, 64),
        path,
        input_names=["frames"],
        output_names=["views"],
        dynamic_axes={"frames": {1: "height", 2: "width"}},
    )
    return request.param, OnnxModel(path)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_graph_gives_the_bits_of_torch(graph: tuple[int, OnnxModel], size: tuple[int, int]) -> None:
    crop, model = graph
    frames = noise_frames(*size)
    np.testing.assert_array_equal(model.run({"frames": frames.numpy()})["views"], centre_views(frames, crop).numpy())


@pytest.mark.parametrize("case", CASES)
def test_the_graph_gives_the_official_bits(graph: tuple[int, OnnxModel], case: str) -> None:
    crop, model = graph
    frames, wanted = official_frames(case)
    if wanted == crop:
        assert sha256(torch.from_numpy(model.run({"frames": frames.numpy()})["views"])) == golden(case, "u8")


@pytest.mark.parametrize(
    ("size", "crop", "expected"),
    [
        ((720, 1280), 256, (292, 519)),
        ((1280, 720), 256, (519, 292)),
        ((720, 1280), 384, (438, 778)),
        ((256, 256), 256, (292, 292)),
        ((256, 256), 384, (438, 438)),
        ((292, 520), 256, (292, 520)),
        ((1, 3), 256, (292, 876)),
    ],
)
def test_the_shorter_side_becomes_crop_256_224ths(size: tuple[int, int], crop: int, expected: tuple[int, int]) -> None:
    assert resized(*size, crop) == expected
    assert tuple(map(int, resized(*map(torch.tensor, size), crop))) == expected


@pytest.mark.parametrize("name", ["MEAN", "STD"])
@pytest.mark.parametrize("channel", [0, 1, 2])
def test_the_goldens_see_a_constant_that_is_off(name: str, channel: int) -> None:
    case = QUICK[0]
    frames, crop = official_frames(case)
    values = list(MEAN if name == "MEAN" else STD)
    values[channel] += 0.001
    mean, std = (values, STD) if name == "MEAN" else (MEAN, values)
    found = normalise(centre_views(frames, crop), grey_levels(tuple(mean)), grey_levels(tuple(std)))
    assert sha256(found) != golden(case, "f32")


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("by", [-1, 1, 2])
def test_the_goldens_see_a_size_or_an_offset_that_is_off(monkeypatch: pytest.MonkeyPatch, axis: int, by: int) -> None:
    def wrong(height: int, width: int, crop: int) -> tuple[int, int]:
        size = list(resized(height, width, crop))
        size[axis] += by
        return size[0], size[1]

    monkeypatch.setattr(vjepa2_preprocess, "resized", wrong)
    for case in QUICK:
        frames, crop = official_frames(case)
        assert sha256(centre_views(frames, crop)) != golden(case, "u8")
