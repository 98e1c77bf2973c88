"""Full-reference models, score curves and providers: what a registered model can do beyond one number."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from vqa_train import backbones
from vqa_train.core.errors import MediaError, ModelError, Reason, UsageError
from vqa_train.pipelines.models.register import RegisterConfig, register
from vqa_train.scoring import Score, ScoreFailure, Scorer, ScoreRequest
from vqa_train.video.decode import read_clips

TESTS = Path(__file__).parents[1]


class Linear(nn.Module):
    """Scores that are linear in all inputs, side by side; of a sequence, in its mean."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.last = nn.Linear(dim, 2)
        with torch.no_grad():
            self.last.bias.fill_(3)
            self.last.weight.copy_(3 * torch.randn((2, dim), generator=generator))

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.last(torch.cat([part if part.ndim == 2 else part.mean(1) for part in inputs], dim=1))


@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def tiny(patch: pytest.MonkeyPatch) -> ModuleType:
    patch.syspath_prepend(TESTS / "registry")
    patch.syspath_prepend(TESTS / "backbones")
    module = importlib.import_module("tiny_model")
    patch.setattr(backbones.BACKBONES, "_builtin", module.BUILTIN)
    return module


@pytest.fixture(scope="module")
def root(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with `plain`, `full` (against a reference), `curved` (linear in features over time), `both` (linear
    in the features over time of video and reference) and `shapeless` (one of its inputs has no time)."""
    root = tmp_path_factory.mktemp("kinds") / "model"
    still, temporal = tiny.TinyBackbone(), tiny.TemporalBackbone()
    kinds: dict[str, dict] = {
        "plain": {},
        "full": {
            "chosen": {"look": (still, "pooled"), "pristine": (still, "pooled")},
            "of": {"pristine": "reference"},
            "head": tiny.TinyHead(10),
        },
        "curved": {"chosen": {"look": (temporal, "pooled"), "course": (temporal, "temporal")}, "head": Linear(15)},
        "both": {
            "chosen": {"look": (temporal, "pooled"), "pristine": (temporal, "pooled")},
            "of": {"pristine": "reference"},
            "head": Linear(20),
        },
        "shapeless": {"chosen": {"look": (temporal, "pooled"), "wide": (temporal, "spread")}, "head": Linear(15)},
    }
    for name, options in kinds.items():
        exported = tiny.export_tiny(root / f"{name}.onnx", **options)
        register(RegisterConfig(model=exported, dataset="ladder", license="MIT", train_commit="0123abc", registry=root))
    return root


@pytest.fixture
def clip(write_video: Callable[..., Path], tmp_path: Path) -> Path:
    return write_video(tmp_path / "clip.mp4", frames=20, size=(80, 96))


@pytest.fixture
def pristine(write_video: Callable[..., Path], tmp_path: Path) -> Path:
    return write_video(tmp_path / "pristine.mp4", frames=20, size=(80, 96), seed=9)


def pooled(tiny: ModuleType, video: Path) -> Tensor:
    backbone = tiny.TinyBackbone()
    (clips,) = read_clips(video, [backbone.spec.sampling])
    return torch.from_numpy(np.mean([row["pooled"] for row in backbone.extract(clips)], axis=0))


def test_a_full_reference_model_scores_a_video_against_its_reference(
    tiny: ModuleType, root: Path, clip: Path, pristine: Path
) -> None:
    scorer = Scorer("full", registry=root)
    assert scorer.takes_reference
    with torch.inference_mode():
        expected = tiny.TinyHead(10)(torch.cat([pooled(tiny, clip), pooled(tiny, pristine)])[None])[0]
    score = scorer.score(clip, reference=pristine)
    assert list(score.scores.values()) == pytest.approx(expected.tolist(), abs=1e-4)
    assert score.reference == str(pristine)
    other_way = scorer.score(pristine, reference=clip).scores["overall"]
    assert other_way != pytest.approx(score.scores["overall"], abs=1e-3)


def test_a_missing_reference_is_wrong_usage_and_in_a_list_a_record(root: Path, clip: Path, pristine: Path) -> None:
    scorer = Scorer("full", registry=root)
    with pytest.raises(UsageError, match="full-reference and got no reference") as caught:
        scorer.score(clip)
    assert caught.value.reason == Reason.NO_REFERENCE
    requests = [
        ScoreRequest(video=clip),
        ScoreRequest(video=clip, reference=pristine.with_name("none.mp4")),
        ScoreRequest(video=clip, reference=pristine),
    ]
    lacking, absent, scored = scorer.score_many(requests)
    assert isinstance(lacking, ScoreFailure)
    assert lacking.reason == Reason.NO_REFERENCE
    assert isinstance(absent, ScoreFailure)
    assert absent.reason == Reason.MISSING_FILE
    assert absent.message.startswith("reference: ")
    assert "none.mp4" in absent.message
    assert isinstance(scored, Score)


def test_a_model_without_reference_ignores_one(root: Path, clip: Path) -> None:
    score = Scorer("plain", registry=root).score(clip, reference="none.mp4")
    assert score.reference is None


def test_a_reference_that_many_share_is_decoded_once_until_it_changes(
    root: Path, clip: Path, pristine: Path, write_video: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = Scorer("full", registry=root, threads=4, workers=4)
    decoded: list[str] = []
    decode = scorer._decoders.clips
    monkeypatch.setattr(scorer._decoders, "clips", lambda place, n: (decoded.append(place.name), decode(place, n))[1])
    first = list(scorer.score_many([ScoreRequest(video=clip, reference=pristine)] * 5))
    assert decoded.count("pristine.mp4") == 1
    assert decoded.count("clip.mp4") == 5
    write_video(pristine, frames=20, size=(80, 96), seed=3)
    second = scorer.score(clip, reference=pristine)
    assert decoded.count("pristine.mp4") == 2
    assert isinstance(first[0], Score)
    assert second.scores["overall"] != pytest.approx(first[0].scores["overall"], abs=1e-4)


def changing(write_video: Callable[..., Path], path: Path) -> Path:
    """1.75 s at 8 frames a second of moving texture, then as much of another one: 3.5 s."""
    import av

    halves = [write_video(path.with_name(f"{i}.mp4"), frames=14, size=(64, 80), fps=8, seed=40 + i) for i in range(2)]
    frames = []
    for half in halves:
        with av.open(str(half)) as container:
            frames += [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8, options={"crf": "12"})
        stream.height, stream.width, stream.pix_fmt = 64, 80, "yuv420p"
        for i, array in enumerate(frames):
            # The second half much darker.
            shown = array if i < len(halves) * 7 else array // 3
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(shown), format="rgb24")))
        container.mux(stream.encode())
    return path


def test_a_curve_has_a_score_for_each_second_and_its_mean_is_the_score(
    tiny: ModuleType, root: Path, write_video: Callable[..., Path], tmp_path: Path
) -> None:
    video = changing(write_video, tmp_path / "changing.mp4")
    score = Scorer("curved", registry=root).score(video, timeline=True)
    timeline = score.timeline
    assert timeline is not None
    assert timeline.times == (0.0, 1.0, 2.0, 3.0)
    assert timeline.duration_s == pytest.approx(3.5, abs=0.01)
    assert timeline.steps == 8  # four of each of two views
    # The head is linear, so the curve's mean over time is the score; the last stretch is half a second.
    for target, curve in timeline.scores.items():
        assert np.average(curve, weights=[1, 1, 1, 0.5]) == pytest.approx(score.scores[target], abs=2e-3)
    assert timeline.scores["overall"][0] != pytest.approx(timeline.scores["overall"][3], abs=0.01)

    # Independently: every step is moved so that the steps' mean is that of the last half second, its last step alone.
    backbone = tiny.TemporalBackbone()
    (clips,) = read_clips(video, [backbone.spec.sampling])
    rows = backbone.extract(clips)
    steps = np.mean([row["temporal"] for row in rows], axis=0)
    every = np.concatenate([row["temporal"] for row in rows])
    change = rows[1]["temporal"][3] * (0.4375 / 0.5) + rows[0]["temporal"][3] * (0.0625 / 0.5) - every.mean(axis=0)
    look = np.mean([row["pooled"] for row in rows], axis=0) + np.concatenate([change, np.zeros(5)])
    with torch.inference_mode():
        inputs = (torch.from_numpy(look).float()[None], torch.from_numpy(steps + change).float()[None])
        expected = Linear(15)(*inputs)[0].tolist()
    assert [curve[3] for curve in timeline.scores.values()] == pytest.approx(expected, abs=2e-3)
    at, worst = timeline.worst("overall", "higher_is_better")
    assert worst == min(timeline.scores["overall"])
    assert timeline.worst("overall", "lower_is_better")[1] == max(timeline.scores["overall"])
    assert timeline.scores["overall"][int(at)] == worst


def test_a_curve_against_a_reference_moves_both(root: Path, write_video: Callable[..., Path], tmp_path: Path) -> None:
    video = changing(write_video, tmp_path / "changing.mp4")
    scorer = Scorer("both", registry=root)
    score = scorer.score(video, reference=video, timeline=True)
    assert score.timeline is not None
    curve = score.timeline.scores["overall"]
    assert np.average(curve, weights=[1, 1, 1, 0.5]) == pytest.approx(score.scores["overall"], abs=2e-3)
    short = write_video(tmp_path / "short.mp4", frames=10, size=(64, 80), fps=8)
    with pytest.raises(UsageError, match=r"lasts 3.50 s, its reference 1.25 s"):
        scorer.score(video, reference=short, timeline=True)
    assert scorer.score(video, reference=short).timeline is None


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("plain", "input 'look': backbone 'tiny' gives no features in time"),
        ("shapeless", "input 'wide': how 'spread' of 'tiny-temporal' follows its features in time is not known"),
    ],
)
def test_no_curve_where_an_input_has_no_time(root: Path, clip: Path, model: str, message: str) -> None:
    scorer = Scorer(model, registry=root)
    for call in (
        scorer.check_timeline,
        lambda: scorer.score(clip, timeline=True),
        lambda: scorer.score_many([clip], timeline=True),
    ):
        with pytest.raises(UsageError, match=message):
            call()


def test_several_at_once_give_what_one_gives_within_the_threads(
    root: Path, clip: Path, pristine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Scorer("curved", registry=root, threads=1)
    expected = [one.score(video).scores for video in (clip, pristine)]
    scorer = Scorer("curved", registry=root, threads=7, workers=3)
    asked: list[int] = []
    decode = scorer._decoders.clips
    monkeypatch.setattr(scorer._decoders, "clips", lambda place, n: (asked.append(n), decode(place, n))[1])
    results = list(scorer.score_many([clip, pristine] * 4))
    assert all(isinstance(result, Score) for result in results)
    for result, scores in zip(results, expected * 4, strict=True):
        assert result.scores == pytest.approx(scores, abs=1e-5)
    assert asked == [2] * 8  # 7 threads among 3
    assert scorer._shared is not None
    assert scorer._files.threads == 7


def test_more_workers_than_threads_are_refused(root: Path) -> None:
    with pytest.raises(UsageError, match=r"workers must be 0 .* number of threads, 2, got 3"):
        Scorer("plain", registry=root, threads=2, workers=3)


def test_the_provider_is_said(root: Path, clip: Path) -> None:
    assert Scorer("plain", registry=root, provider="cpu").score(clip).provider == "cpu"
    said: list[str] = []
    assert Scorer("plain", registry=root, log=said.append).score(clip).provider == (
        "cuda" if "CUDAExecutionProvider" in onnxruntime.get_available_providers() else "cpu"
    )
    assert said == []


def test_an_unknown_or_missing_provider_is_an_error(root: Path) -> None:
    with pytest.raises(UsageError, match="unknown provider 'cudda'.*did you mean 'cuda'"):
        Scorer("plain", registry=root, provider="cudda")
    if "TensorrtExecutionProvider" not in onnxruntime.get_available_providers():
        with pytest.raises(ModelError, match="'tensorrt' is not installed"):
            Scorer("plain", registry=root, provider="tensorrt")


def test_auto_that_cannot_start_cuda_says_so(
    root: Path, clip: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("CUDA is there")
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    scorer = Scorer("plain", registry=root)
    assert scorer.provider == scorer.score(clip).provider == "cpu"
    assert "not on CUDA, although it is installed" in capsys.readouterr().err
    with pytest.raises(ModelError):
        Scorer("plain", registry=root, provider="cuda")


def test_a_backbone_that_came_with_a_bundle_is_found_beside_its_registry(
    root: Path, clip: Path, tmp_path: Path
) -> None:
    from vqa_train.pipelines.score.features import bundled

    copy = Path(shutil.copytree(root, tmp_path / "bundle"))
    assert bundled(copy / "plain" / "1") == copy / "onnx"
    assert bundled(tmp_path / "elsewhere" / "plain" / "1") is None


def test_an_address_that_cannot_be_used_is_a_record(root: Path, clip: Path) -> None:
    scorer = Scorer("plain", registry=root)
    with pytest.raises(MediaError, match="unknown kind of address"):
        scorer.score("nonsense://a/b.mp4")
    failed, scored = scorer.score_many(["nonsense://a/b.mp4", clip])
    assert isinstance(failed, ScoreFailure)
    assert (failed.video, failed.reason) == ("nonsense://a/b.mp4", Reason.UNREADABLE)
    assert isinstance(scored, Score)
