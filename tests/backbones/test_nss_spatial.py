"""Formulas against SciPy and direct NumPy, and each family against the distortion that it is for."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from vqa_train.backbones import nss_banding, nss_spatial
from vqa_train.backbones.nss_names import SPATIAL
from vqa_train.backbones.nss_statistics import Features, halve, mean_hw

HEIGHT, WIDTH = 144, 192


def picture(seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.float64]:
    """A 1/f texture with soft edges, 16 to 235, float64 (H, W)."""
    rng = np.random.default_rng(seed)
    spectrum = np.fft.rfft2(rng.standard_normal((height, width)))
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    texture = np.fft.irfft2(spectrum / np.maximum(radius, 1 / height) ** 1.2, s=(height, width))
    discs = ndimage.gaussian_filter(
        (rng.random((height // 16, width // 16)) > 0.5).repeat(16, 0).repeat(16, 1) * 1.0, 1
    )
    return np.clip(125 + 30 * texture / texture.std() + 50 * (discs - 0.5), 16, 235)


def frame(*planes: NDArray[np.float64]) -> Tensor:
    """uint8 RGB (1, H, W, 3) of one grey or three colour planes."""
    stacked = np.stack(planes if len(planes) == 3 else [planes[0]] * 3, -1)
    return torch.from_numpy(np.clip(np.rint(stacked), 0, 255).astype(np.uint8))[None]


def features(rgb: Tensor) -> Features:
    fitted = nss_spatial.spatial_features(*nss_spatial.planes_of(rgb)).fitted()
    return {name: value[0] for name, value in fitted.items()}


def of(plane: NDArray[np.float64]) -> Features:
    return features(frame(plane))


def test_every_feature_has_a_name_and_every_name_a_feature() -> None:
    assert set(of(picture())) - {feature.name for feature in SPATIAL} == set()
    assert {feature.name for feature in SPATIAL} - set(of(picture())) == set()


def test_luma_and_chroma_are_bt601() -> None:
    rgb = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 10, 12, 3), dtype=np.uint8))
    matrix = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
    y, cb, cr = np.moveaxis(rgb.numpy() @ matrix.T, -1, 0)
    luma, blue, red = nss_spatial.planes_of(rgb)
    assert torch.equal(luma, nss_spatial.luma_of(rgb))
    np.testing.assert_allclose(luma, y - 128, atol=1e-4)
    for found, full in ((blue, cb), (red, cr)):
        np.testing.assert_allclose(found, full.reshape(2, 5, 2, 6, 2).mean((2, 4)), atol=1e-3)


def test_gradients_are_sobels_per_pixel() -> None:
    plane = picture()
    gx, gy = nss_spatial.gradients(torch.from_numpy(plane)[None])
    np.testing.assert_allclose(gx[0], ndimage.sobel(plane, 1)[1:-1, 1:-1] / 8, atol=1e-9)
    np.testing.assert_allclose(gy[0], ndimage.sobel(plane, 0)[1:-1, 1:-1] / 8, atol=1e-9)


def test_si_is_the_deviation_of_the_sobel_magnitude() -> None:
    luma = nss_spatial.luma_of(frame(picture()))[0].numpy().astype(np.float64)
    magnitude = np.hypot(ndimage.sobel(luma, 0), ndimage.sobel(luma, 1))[1:-1, 1:-1]
    assert of(picture())["y1_si"] == pytest.approx(np.log2(1 + magnitude.std()), rel=1e-4)


def test_the_laplacian_is_scipys() -> None:
    plane = picture()
    laplacian = ndimage.laplace(plane)[1:-1, 1:-1]
    moments = nss_spatial.laplacian_moments(torch.from_numpy(plane)[None])
    np.testing.assert_allclose(moments[0], [np.abs(laplacian).mean(), (laplacian**2).mean()], rtol=1e-9)


@pytest.mark.parametrize("sigma", [4.0, 10.0, 25.0])
def test_noise_is_estimated_within_5_percent_on_a_smooth_picture(sigma: float) -> None:
    ramp = np.linspace(90, 160, WIDTH)[None].repeat(HEIGHT, 0)
    noisy = ramp + np.random.default_rng(1).normal(0, sigma, ramp.shape)
    found = features(frame(noisy))
    assert 2 ** found["noise"].item() - 0.1 == pytest.approx(sigma, rel=0.05)
    assert found["noise_alpha"].item() == pytest.approx(1.0, abs=0.15)  # log2 of 2: Gaussian


def test_colourfulness_is_hasler_and_suesstrunks_on_the_halved_picture() -> None:
    planes = [picture(seed) for seed in (1, 2, 3)]
    rgb = frame(*planes)
    red, green, blue = (halve(rgb[..., i].double())[0].numpy() for i in range(3))
    rg, yb = red - green, (red + green) / 2 - blue
    expected = np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean())
    assert features(rgb)["colourfulness"].item() == pytest.approx(np.log2(1 + expected), rel=1e-4)


def test_brightness_and_contrast_are_mean_and_deviation() -> None:
    plane = np.rint(picture())
    found = of(plane)
    assert found["brightness"].item() == pytest.approx(plane.mean() / 255, abs=5e-3)
    assert found["contrast"].item() == pytest.approx(plane.std() / 255, abs=5e-3)


def test_blur_moves_every_sharpness_feature_step_by_step() -> None:
    ladder = [of(ndimage.gaussian_filter(picture(), sigma)) for sigma in (0, 0.7, 1.2, 2, 3)]
    for name in ("blur_h", "blur_v", "y1_reblur", "y1_reblur_ratio", "y2_reblur", "grad_slope_1"):
        values = [step[name].item() for step in ladder]
        assert values == sorted(values), name
    for name in ("y1_grad", "y1_lap", "y1_si"):
        values = [step[name].item() for step in ladder]
        assert values == sorted(values, reverse=True), name


def test_blur_along_one_axis_shows_on_that_axis() -> None:
    sharp, soft = of(picture()), of(ndimage.gaussian_filter1d(picture(), 2, axis=1))
    assert soft["blur_h"] - sharp["blur_h"] > 2 * (soft["blur_v"] - sharp["blur_v"])


def test_noise_makes_mscn_gaussian() -> None:
    rng = np.random.default_rng(2)
    clean, noisy = of(picture()), of(picture() + rng.normal(0, 15, (HEIGHT, WIDTH)))
    assert noisy["y1_alpha"] > clean["y1_alpha"]
    assert noisy["y1_alpha"].item() == pytest.approx(1.5, abs=0.3)
    assert noisy["noise"] > clean["noise"] + 1


def test_chroma_noise_shows_in_chroma_and_not_in_luma() -> None:
    grey = picture()
    noise = np.random.default_rng(3).normal(0, 10, grey.shape)
    # Opposite amounts that leave luma as it is.
    coloured = features(frame(grey + noise, grey - noise * (0.299 / 0.587), grey))
    plain = of(grey)
    assert coloured["c2_std"] > plain["c2_std"] + 0.3
    assert coloured["y1_std"].item() == pytest.approx(plain["y1_std"].item(), abs=0.02)


def blocky(plane: NDArray[np.float64], size: int, amount: float = 0.7) -> NDArray[np.float64]:
    height, width = (side // size * size for side in plane.shape)
    cut = plane[:height, :width]
    flat = cut.reshape(height // size, size, width // size, size).mean((1, 3)).repeat(size, 0).repeat(size, 1)
    return (1 - amount) * cut + amount * flat


@pytest.mark.parametrize("offset", [0, 3])
def test_an_8_pixel_grid_is_found_at_any_phase(offset: int) -> None:
    clean = of(picture()[offset:, offset:])["block_8"]
    grid = of(blocky(picture(), 8)[offset:, offset:])["block_8"]
    assert grid > clean + 1


def test_an_enlarged_grid_is_found_by_its_period() -> None:
    coded = ndimage.zoom(blocky(picture(), 8), 1.5, order=1, grid_mode=True, mode="nearest")
    clean = ndimage.zoom(picture(), 1.5, order=1, grid_mode=True, mode="nearest")
    assert of(coded)["block_up"] > of(clean)["block_up"] + 0.1


def test_low_quality_jpeg_shows_as_blocks() -> None:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mjpeg") as container:
        stream = container.add_stream("mjpeg", rate=1, options={"qmin": "31", "qmax": "31"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuvj444p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(frame(picture())[0].numpy(), format="rgb24")))
        container.mux(stream.encode())
    buffer.seek(0)
    with av.open(buffer, format="mjpeg") as container:
        coded = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert features(torch.from_numpy(coded)[None])["block_8"] > of(picture())["block_8"] + 0.5


@pytest.mark.parametrize(("step", "band"), [(8, "fine"), (20, "mid"), (40, "coarse")])
def test_rounding_luma_puts_it_on_a_lattice_of_that_step(step: int, band: str) -> None:
    smooth = ndimage.gaussian_filter(picture(), 4) * 1.0
    strengths = {
        name: of(np.rint(smooth / step) * step)[f"lattice_{name}"].item() for name in ("fine", "mid", "coarse")
    }
    assert strengths[band] > 0.6
    assert of(smooth)[f"lattice_{band}"] < 0.2


def test_steps_between_flat_stretches_are_counted_by_height() -> None:
    columns = np.arange(WIDTH) // 16 * 9.0 + 20  # 11 steps of 9 levels in 192 columns
    found = of(columns[None].repeat(HEIGHT, 0))
    # A step of height h counts by weights that ramp from one limit to twice it: 9 lies between 4 and 12.
    assert found["band1_mid"].item() == pytest.approx(11 / (WIDTH - 5) / 2, rel=1e-3)
    assert found["band1_low"].item() == pytest.approx(0, abs=1e-6)
    assert found["band1_high"].item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("neighbour", [-2, -1, 1, 2])
def test_a_step_beside_another_step_is_an_edge_and_not_a_band(neighbour: int) -> None:
    heights = np.zeros(WIDTH)
    heights[60], heights[60 + neighbour] = 9, 30
    plane = torch.from_numpy(np.cumsum(heights))[None, None].expand(1, HEIGHT, WIDTH)
    assert max(share.item() for share in nss_banding.step_shares(plane)) == 0


def test_texture_and_ramps_are_not_banding() -> None:
    rng = np.random.default_rng(4)
    for plane in (rng.uniform(0, 255, (HEIGHT, WIDTH)), np.linspace(20, 230, WIDTH)[None].repeat(HEIGHT, 0)):
        found = of(plane)
        assert all(found[f"band1_{size}"] < 0.002 for size in ("mid", "high"))


def test_the_histogram_counts_every_fourth_pixel_once() -> None:
    luma = torch.full((1, 40, 40), 20.0)
    luma[:, :, 20:] = -80.0
    strengths = nss_banding.lattice_strengths(luma)
    # Two levels 100 apart are a lattice of any step that divides 100.
    assert max(strengths).item() > 0.9


def test_constant_planes_have_no_noise_no_bands_and_no_blocks() -> None:
    found = of(np.full((HEIGHT, WIDTH), 77.0))
    for name in ("y1_std", "y1_hv_mean", "y1_hv_left", "block_8", "band1_low", "band1_mid", "contrast"):
        assert found[name].item() == pytest.approx(0, abs=1e-4), name
    assert found["flat_1"] == 1
    assert found["y1_alpha"].item() == pytest.approx(np.log2(0.2))
    assert found["noise"].item() == pytest.approx(np.log2(0.1), abs=1e-3)


def test_frames_of_a_batch_are_measured_apart() -> None:
    rgb = torch.cat([frame(picture(seed)) for seed in (5, 6)])
    together = nss_spatial.spatial_features(*nss_spatial.planes_of(rgb)).fitted()
    for i in range(2):
        for name, value in features(rgb[i : i + 1]).items():
            assert together[name][i].item() == pytest.approx(value.item(), rel=1e-4, abs=1e-4), name


def test_similarity_to_its_own_blur_is_xues_formula() -> None:
    luma = torch.from_numpy(picture())[None]
    blurred = torch.from_numpy(ndimage.gaussian_filter(picture(), 7 / 6, radius=3)[3:-3, 3:-3])[None]
    magnitude, squared = nss_spatial.magnitude_of(luma)
    found = nss_spatial.reblur_features(magnitude, squared, blurred)
    sharp = np.hypot(ndimage.sobel(picture(), 0), ndimage.sobel(picture(), 1))[4:-4, 4:-4] / 8
    soft_plane = blurred[0].numpy()
    soft = np.hypot(ndimage.sobel(soft_plane, 0), ndimage.sobel(soft_plane, 1))[1:-1, 1:-1] / 8
    similar = (2 * sharp * soft + 42.5) / (sharp**2 + soft**2 + 42.5)
    assert found["reblur"].item() == pytest.approx(similar.mean(), rel=1e-9)
    assert found["reblur_ratio"].item() == pytest.approx((soft.mean() + 0.1) / (sharp.mean() + 0.1), rel=1e-9)
    assert mean_hw(magnitude).item() > 0
