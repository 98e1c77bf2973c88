"""The DOVER family end to end against the official code's scores, its settings, its randomness, and its graph."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqa_train.backbones.base import BackboneOptions
from vqa_train.backbones.dover import DoverBackbone, dover, dover_mobile, dover_plus_plus, fuse
from vqa_train.backbones.dover_network import DoverNetwork
from vqa_train.backbones.dover_views import ALIGNED, CLIPS, DRAWS, SIDE, fragment_corners, fragments, resized
from vqa_train.core.errors import MediaError, Reason, UsageError, WeightsError
from vqa_train.core.hashing import sha256_file
from vqa_train.core.types import Clip, FeatureSpec
from vqa_train.onnx.export import export_module
from vqa_train.onnx.runtime import OnnxModel
from vqa_train.video.decode import read_clips

PATH = Path(__file__).resolve().parents[1] / "golden" / "dover_views.npz"
GOLDEN: dict[str, NDArray[np.generic]] = {
    key.removeprefix("end_to_end/"): values for key, values in np.load(PATH).items() if key.startswith("end_to_end/")
}
COUNT = (CLIPS + 1) * ALIGNED


def build(make: Callable[[BackboneOptions], DoverBackbone] = dover_mobile, **settings: str) -> DoverBackbone:
    return make(BackboneOptions(random_weights=0, settings=settings)).eval()


@pytest.fixture(scope="module")
def mobile() -> DoverBackbone:
    return build()


def made_video() -> NDArray[np.uint8]:
    """The goldens' made video, uint8 (250, 270, 480, 3)."""
    seed, count, height, width = (int(number) for number in GOLDEN["video_spec"])
    noise = np.random.RandomState(seed).randint(0, 128, size=(count, height, width, 3), dtype=np.uint8)
    i, j = np.arange(height)[:, None], np.arange(width)[None, :]
    ramps = (i * 127 // (height - 1) + 0 * j, j * 127 // (width - 1) + 0 * i, (i + j) * 127 // (height + width - 2))
    return noise + np.stack(ramps, -1).astype(np.uint8)[None]


def fill(backbone: DoverBackbone) -> None:
    """Weights by the goldens' recipe."""
    for key, entry in backbone.network.state_dict().items():
        if not entry.is_floating_point():
            continue
        shape, leaf = tuple(entry.shape), key.rsplit(".", 1)[-1]
        stream = np.random.RandomState(zlib.crc32(key.encode("ascii")))
        u = (stream.random_sample(shape) * 2 - 1) * math.sqrt(3)
        if leaf.endswith("_bias_table"):
            values = u
        elif leaf in ("gamma", "beta"):
            values = 0.5 * u if len(shape) == 4 else 0.5 + 0.1 * u
        elif leaf == "bias":
            values = 0.1 * u
        elif len(shape) == 1:
            values = 1 + 0.1 * u
        else:
            values = u / math.sqrt(np.prod(shape[1:]))
        entry.copy_(torch.from_numpy(values.astype(np.float32)))


def clip_of(frames: NDArray[np.uint8], key: str = "a" * 64, view: int = 0) -> Clip:
    count, height, width, _ = frames.shape
    return Clip(
        frames=frames, times=np.arange(count) / 25, indices=np.arange(count), fps=25.0, num_frames=count,
        duration_s=count / 25, width=width, height=height, codec="none", decoder="none", key=key, view=view,
    )  # fmt: skip


def noise(height: int, width: int, seed: int = 0, count: int = COUNT) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def views_of(backbone: DoverBackbone, clip: Clip) -> tuple[Tensor, ...]:
    return backbone.views(*backbone.prepare(clip))


class TestGoldens:
    """Official weights recipe, official offsets: raw and fused scores of one made video."""

    @staticmethod
    def views(video: NDArray[np.uint8], antialias: str) -> tuple[Tensor, Tensor]:
        corners = (torch.from_numpy(GOLDEN[side].astype(np.int64)) for side in ("tops", "lefts"))
        technical = fragments(torch.from_numpy(video[GOLDEN["frames/technical"]]), *corners)
        aesthetic = torch.from_numpy(video[GOLDEN["frames/aesthetic"]])
        return technical[None], resized(aesthetic, SIDE, antialias=antialias == "aa")[None]

    @torch.inference_mode()
    def check(self, backbone: DoverBackbone, views: tuple[Tensor, Tensor], key: str) -> None:
        *_, technical, aesthetic, fused = backbone.encode(*views)
        np.testing.assert_allclose([technical.item(), aesthetic.item()], GOLDEN[f"{key}/raw"], atol=1e-5, rtol=0)
        np.testing.assert_allclose(fused.item(), GOLDEN[f"{key}/fused"], atol=1e-5, rtol=0)
        # The official score of so odd a network is near 0; at the same relative error it says more.
        np.testing.assert_allclose(fused.item(), GOLDEN[f"{key}/fused"], rtol=1e-3)

    def test_dover_mobile_scores_as_the_official_one(self) -> None:
        backbone, video = build(), made_video()
        fill(backbone)
        for antialias in ("noaa", "aa"):
            views = self.views(video, antialias)
            self.check(backbone, views, f"dover-mobile/{antialias}")
            for branch, view in zip(("technical", "aesthetic"), views, strict=True):
                values = ((view.float() - backbone.mean) / backbone.std).double()
                expected = GOLDEN[f"normalised_stats_{antialias}/{branch}"]
                np.testing.assert_allclose([values.mean(), values.std()], expected, atol=1e-5, rtol=0)

    def test_dover_scores_as_the_official_one(self) -> None:
        backbone, video = build(dover), made_video()
        fill(backbone)
        self.check(backbone, self.views(video, "noaa"), "dover/noaa")
        _, aesthetic = self.views(video, "aa")
        with torch.inference_mode():
            _, scores = backbone.network.aesthetic((aesthetic.float() - backbone.mean) / backbone.std)
        np.testing.assert_allclose(scores.mean().item(), GOLDEN["dover/aa/raw"][1], atol=1e-5, rtol=0)


class TestFusion:
    def test_official_constants_stand_with_the_branches_that_the_official_code_gives_them_to(self) -> None:
        """A score at the mean of its branch counts nothing, one a deviation above counts its weight."""
        for technical, aesthetic, logit in (
            (0.1107, -0.08285, 0.0),
            (0.1107 + 0.07355, -0.08285, 0.6104),
            (0.1107, -0.08285 + 0.03774, 0.3896),
            (0.1107 - 2 * 0.07355, -0.08285 + 3 * 0.03774, -0.052),
        ):
            found = fuse(torch.tensor([technical]), torch.tensor([aesthetic]), "official")
            assert found.item() == pytest.approx(1 / (1 + math.exp(-logit)), abs=1e-6)

    def test_corrected_constants_change_branches_and_weights_stay(self) -> None:
        for technical, aesthetic, logit in (
            (-0.08285, 0.1107, 0.0),
            (-0.08285 + 0.03774, 0.1107, 0.6104),
            (-0.08285, 0.1107 + 0.07355, 0.3896),
        ):
            found = fuse(torch.tensor([technical]), torch.tensor([aesthetic]), "corrected")
            assert found.item() == pytest.approx(1 / (1 + math.exp(-logit)), abs=1e-6)

    def test_a_published_video_has_its_published_score(self) -> None:
        # 17734.mp4: raw scores from the published z-scores; users report 0.691 and 0.670.
        assert fuse(torch.tensor(-0.0788), torch.tensor(0.148), "official").item() == pytest.approx(0.693, abs=1e-3)

    def test_the_setting_decides(self, mobile: DoverBackbone) -> None:
        views = (
            torch.zeros(1, 1, 3, 2, 32, 32, dtype=torch.uint8),
            torch.full((1, 3, 2, 32, 32), 9, dtype=torch.uint8),
        )
        with torch.inference_mode():
            for setting in ("official", "corrected"):
                *_, technical, aesthetic, fused = build(fusion=setting).encode(*views)
                assert fused.tolist() == fuse(technical, aesthetic, setting).tolist()


class TestSpec:
    def test_it_names_what_decides_the_numbers(self, mobile: DoverBackbone) -> None:
        spec = mobile.spec
        assert spec.backbone == "dover-mobile"
        assert {output.name: output.shape for output in spec.outputs} == {
            "technical": (384,), "aesthetic": (384,), "technical_score": (1,), "aesthetic_score": (1,), "fused": (1,),
        }  # fmt: skip
        assert (spec.weights_sha256, spec.random_seed) == (None, 0)
        assert spec.sampling is not None
        assert spec.sampling.to_json() == {
            "mode": "segments", "n": 128, "burst": 1, "segments": [[3, 32, 2], [32, 1, 2]], "jitter": "content",
            "short": "circulant", "views": 1,
        }  # fmt: skip
        assert spec.preprocessing["mean"] == [123.675, 116.28, 103.53]
        assert spec.preprocessing["std"] == [58.395, 57.12, 57.375]
        assert "settings" not in spec.preprocessing
        assert mobile.license.startswith("S-Lab License 1.0")
        assert FeatureSpec.from_json(spec.to_json()) == spec

    def test_every_setting_is_another_feature(self) -> None:
        settings = [{"fragments": "centre"}, {"antialias": "on"}, {"fusion": "corrected"}, {"views": "qualivision"}]
        specs = [build(**setting).spec for setting in settings]
        assert [spec.preprocessing["settings"] for spec in specs] == settings
        assert len({spec.fingerprint for spec in specs} | {build().spec.fingerprint}) == 5

    def test_settings_given_as_the_defaults_change_nothing(self, mobile: DoverBackbone) -> None:
        same = build(fragments="content", antialias="off", fusion="official", views="official")
        assert same.spec == mobile.spec

    def test_unknown_settings_are_refused(self) -> None:
        with pytest.raises(UsageError, match="no setting 'fragment'.*fragments"):
            build(fragment="centre")
        with pytest.raises(UsageError, match="antialias must be one of off, on, got 'yes'"):
            build(antialias="yes")
        with pytest.raises(UsageError, match="qualivision has no fragments"):
            build(views="qualivision", fragments="centre")

    def test_dover_plus_plus_is_dover_under_its_own_name(self) -> None:
        one, other = build(dover), build(dover_plus_plus)
        assert (one.spec.backbone, other.spec.backbone) == ("dover", "dover++")
        assert one.spec.outputs == other.spec.outputs
        assert one.spec.outputs[0].shape == (768,)
        for mine, theirs in zip(one.network.parameters(), other.network.parameters(), strict=True):
            assert torch.equal(mine, theirs)


class TestViews:
    def test_the_views_are_those_of_the_clip(self, mobile: DoverBackbone) -> None:
        clip = clip_of(noise(300, 400))
        frames, draws = mobile.prepare(clip)
        assert (draws.dtype, tuple(draws.shape)) == (torch.int64, (DRAWS,))
        technical, aesthetic = mobile.views(frames, draws)
        assert (technical.dtype, tuple(technical.shape)) == (torch.uint8, (3, 3, 32, 224, 224))
        assert (aesthetic.dtype, tuple(aesthetic.shape)) == (torch.uint8, (3, 32, 224, 224))
        assert torch.equal(technical, fragments(frames[:96], *fragment_corners(frames, draws)))
        assert torch.equal(aesthetic, resized(frames[96:], 224))
        assert torch.equal(build(antialias="on").views(frames, draws)[1], resized(frames[96:], 224, antialias=True))

    def test_the_content_decides_the_fragments(self, mobile: DoverBackbone) -> None:
        frames = noise(500, 500)
        first, again, other, later = (
            views_of(mobile, clip_of(frames, key=key * 64, view=view))
            for key, view in (("a", 0), ("a", 0), ("b", 0), ("a", 1))
        )
        assert torch.equal(first[0], again[0])
        assert not torch.equal(first[0], other[0])
        assert not torch.equal(first[0], later[0])
        assert torch.equal(first[1], other[1])

    def test_centred_fragments_do_not_depend_on_the_content(self) -> None:
        backbone, frames = build(fragments="centre"), noise(500, 500)
        assert backbone.draws == 0
        assert backbone.spec.sampling is not None
        assert backbone.spec.sampling.jitter == "centre"
        first, other = (views_of(backbone, clip_of(frames, key=key * 64)) for key in "ab")
        assert torch.equal(first[0], other[0])
        # Cells of 71 pixels, patches of 32: 19 pixels from the cell's corner.
        expected = torch.from_numpy(frames[:32, 19 : 19 + 32, 71 + 19 : 71 + 19 + 32]).permute(3, 0, 1, 2)
        assert torch.equal(first[0][0][:, :, :32, 32:64], expected)

    def test_qualivision_gives_one_clip_of_large_frames_to_both_branches(self) -> None:
        backbone = build(views="qualivision")
        assert backbone.spec.sampling is not None
        assert (backbone.spec.sampling.mode, backbone.spec.sampling.num_frames, backbone.draws) == ("uniform", 64, 0)
        frames = noise(20, 50, count=64)
        (view,) = views_of(backbone, clip_of(frames))
        assert (view.dtype, tuple(view.shape)) == (torch.uint8, (3, 64, 640, 640))
        assert torch.equal(view[:, 40:42], resized(torch.from_numpy(frames[40:42]), 640))
        small = view[None, :, :4, :64, :96]
        with torch.inference_mode():
            technical, aesthetic, *scores = backbone.encode(small)
            values = (small.float() - backbone.mean) / backbone.std
            for branch, found, score in (("technical", technical, scores[0]), ("aesthetic", aesthetic, scores[1])):
                features, score_map = getattr(backbone.network, branch)(values)
                torch.testing.assert_close(found, features.mean((2, 3, 4)), atol=1e-6, rtol=0)
                torch.testing.assert_close(score, score_map.mean((2, 3, 4)), atol=1e-6, rtol=0)

    @pytest.mark.parametrize("size", [(32, 32), (100, 400), (32, 1000), (223, 225)])
    def test_small_videos_have_views(self, mobile: DoverBackbone, size: tuple[int, int]) -> None:
        technical, aesthetic = views_of(mobile, clip_of(noise(*size)))
        assert tuple(technical.shape) == (3, 3, 32, 224, 224)
        assert tuple(aesthetic.shape) == (3, 32, 224, 224)

    @pytest.mark.parametrize("size", [(31, 300), (300, 31)])
    def test_videos_too_small_for_a_fragment_are_refused(self, mobile: DoverBackbone, size: tuple[int, int]) -> None:
        with pytest.raises(MediaError, match=rf"dover-mobile.*32x32.*{size[1]}x{size[0]}") as caught:
            mobile.prepare(clip_of(noise(*size)))
        assert caught.value.reason is Reason.BACKBONE_ERROR

    def test_other_frames_than_asked_for_are_refused(self, mobile: DoverBackbone) -> None:
        for frames in (noise(64, 64, count=96), noise(64, 64)[..., :1], noise(64, 64).astype(np.float32)):
            with pytest.raises(MediaError, match=r"takes uint8 frames \(128, H, W, 3\), got"):
                mobile.prepare(clip_of(frames))


class TestFeatures:
    @pytest.mark.parametrize("count", [1, 30])
    def test_a_short_video_has_features(
        self, mobile: DoverBackbone, tmp_path: Path, write_video: Callable[..., Path], count: int
    ) -> None:
        path = write_video(tmp_path / "short.mp4", frames=count)
        assert mobile.spec.sampling is not None
        [[clip]] = read_clips(path, [mobile.spec.sampling], key=sha256_file(path))
        assert set(clip.indices.tolist()) <= set(range(count))
        [row] = mobile.extract([clip])
        assert {name: values.shape for name, values in row.items()} == {o.name: o.shape for o in mobile.spec.outputs}
        assert all(np.isfinite(values).all() and values.dtype == np.float32 for values in row.values())
        assert 0 <= row["fused"][0] <= 1

    def test_several_videos_at_once_are_several_alone(self, mobile: DoverBackbone) -> None:
        generator = torch.Generator().manual_seed(0)
        technical = torch.randint(0, 256, (3, 3, 3, 8, 64, 64), dtype=torch.uint8, generator=generator)
        aesthetic = torch.randint(0, 256, (3, 3, 8, 64, 64), dtype=torch.uint8, generator=generator)
        technical[1] //= 4
        with torch.inference_mode():
            together = mobile.encode(technical, aesthetic)
            for i in range(3):
                for found, alone in zip(together, mobile.encode(technical[i][None], aesthetic[i][None]), strict=True):
                    torch.testing.assert_close(found[i], alone[0], atol=1e-5, rtol=1e-5)

    def test_pooling_is_the_mean_over_clips_time_and_space(self, mobile: DoverBackbone) -> None:
        generator = torch.Generator().manual_seed(1)
        technical = torch.randint(0, 256, (1, 3, 3, 4, 64, 96), dtype=torch.uint8, generator=generator)
        with torch.inference_mode():
            found, _, score, *_ = mobile.encode(technical, technical[:, 0])
            maps = [mobile.network.technical((clip[None].float() - mobile.mean) / mobile.std) for clip in technical[0]]
        features, scores = (np.stack([m[i].numpy().astype(np.float64) for m in maps]) for i in (0, 1))
        np.testing.assert_allclose(found[0], features.mean((0, 1, 3, 4, 5)), atol=1e-5)
        np.testing.assert_allclose(score[0, 0], scores.mean(), atol=1e-6)


def test_the_graph_gives_the_features_of_every_size(mobile: DoverBackbone, tmp_path: Path) -> None:
    names, axes = [output.name for output in mobile.spec.outputs], mobile.onnx_inputs()
    assert list(axes) == ["frames", "draws"]
    path = tmp_path / "dover.onnx"
    export_module(mobile, mobile.onnx_example(), path, input_names=list(axes), output_names=names, dynamic_axes=axes)
    model = OnnxModel(path)
    for seed, size in enumerate([(240, 256), (300, 420), (100, 180)]):
        clip = clip_of(noise(*size, seed=seed), key=str(seed) * 64)
        frames, draws = (part.numpy() for part in mobile.prepare(clip))
        found = model.run({"frames": frames, "draws": draws})
        [expected] = mobile.extract([clip])
        for name in names:
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-5, err_msg=f"{name} of {size}")


def test_a_changed_index_in_a_checkpoint_is_refused(tmp_path: Path) -> None:
    state = DoverNetwork().state_dict()
    key = "technical_backbone.layers.2.blocks.4.attn.relative_position_index"
    state[key] = state[key].clone()
    state[key][391, 17] += 1
    torch.save(state, tmp_path / "DOVER.pth")
    with pytest.raises(WeightsError, match=r"layers\.2\.blocks\.4.*is not the index of relative positions"):
        dover(BackboneOptions(weights=tmp_path / "DOVER.pth"))
