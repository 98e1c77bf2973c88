from __future__ import annotations

import logging
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from vqa_train.core.errors import MediaError, RunError, UsageError
from vqa_train.core.hashing import sha256_file
from vqa_train.datasets.ladder import LadderConfig, clip_count, distortions, make_ladder
from vqa_train.datasets.load import load_dataset
from vqa_train.datasets.verify import verify

WriteVideo = Callable[..., Path]
TINY = LadderConfig(scenes=3, seconds=0.5, size=(96, 64), levels=2, kinds=("x264", "vp9", "blur", "noise", "freeze"))


def hashes(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): sha256_file(p) for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def ladder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny ladder, rendered in this process."""
    output = tmp_path_factory.mktemp("ladders") / "one"
    make_ladder(output, sources=None, config=TINY, workers=1)
    return output


def test_the_manifest_loads_with_every_clip_labelled(ladder: Path) -> None:
    dataset = load_dataset(str(ladder / "manifest.yaml"))
    assert len(dataset.videos) == 3 * (1 + 5 * 2) == clip_count(None, TINY)
    report = dataset.report
    assert not (
        report.ids_without_file or report.files_without_id or report.missing_files or report.groups_across_splits
    )
    assert dataset.manifest.target_names == ("pseudo_mos",)
    assert dataset.manifest.license == "CC0-1.0"
    for video in dataset.videos:
        assert 1 <= video.labels["pseudo_mos"] <= 5
        assert video.reference is not None
        assert video.reference.id == f"{video.group}.pristine.0"
    assert verify(dataset.manifest, ladder, ladder).ok


def test_a_group_is_a_source_with_one_pristine_clip(ladder: Path) -> None:
    videos = load_dataset(str(ladder / "manifest.yaml")).videos
    assert Counter(video.group for video in videos) == {"foliage-0": 11, "city-0": 11, "water-0": 11}
    pristine = [video for video in videos if video.attributes["kind"] == "pristine"]
    assert [(video.group, video.id) for video in pristine] == [
        (group, f"{group}.pristine.0") for group in ("foliage-0", "city-0", "water-0")
    ]
    assert all(video.labels["pseudo_mos"] == 5 and video.attributes["level"] == "0" for video in pristine)
    assert {video.split for video in videos} == {"train", "val", "test"}


def test_another_worker_count_and_another_run_give_the_same_bytes(ladder: Path, tmp_path: Path) -> None:
    steps: list[int] = []
    make_ladder(tmp_path / "two", sources=None, config=TINY, workers=2, progress=lambda steps_=1: steps.append(steps_))
    assert sum(steps) == clip_count(None, TINY)
    assert hashes(tmp_path / "two") == hashes(ladder)


def test_a_second_run_renders_nothing(ladder: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in (ladder / "videos").iterdir()}
    make_ladder(ladder, sources=None, config=TINY, workers=1)
    assert {p: p.stat().st_mtime_ns for p in (ladder / "videos").iterdir()} == before


def test_an_interrupted_run_is_taken_up_where_it_stopped(ladder: Path, tmp_path: Path) -> None:
    output = tmp_path / "again"

    class Interrupted(Exception):
        pass

    done = 0

    def interrupt(steps: int = 1) -> None:
        nonlocal done
        done += steps
        if done > 12:
            raise Interrupted

    with pytest.raises(Interrupted):
        make_ladder(output, sources=None, config=TINY, workers=1, progress=interrupt)
    assert not (output / "manifest.yaml").exists()
    kept = {p: p.stat().st_mtime_ns for p in (output / "videos").iterdir()}
    truncated = output / "videos" / "foliage-0.x264.1.mp4"
    truncated.write_bytes(truncated.read_bytes()[:100])
    make_ladder(output, sources=None, config=TINY, workers=1)
    assert hashes(output) == hashes(ladder)
    redone = {p.name for p, time in kept.items() if p.stat().st_mtime_ns != time}
    assert redone == {"foliage-0.x264.1.mp4", "foliage-0.x264.2.mp4"}


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    def interrupt(steps: int = 1) -> None:
        raise InterruptedError(f"after {steps}")

    with pytest.raises(InterruptedError):
        make_ladder(tmp_path / "out", sources=None, config=TINY, workers=1, progress=interrupt)
    shutil.rmtree(tmp_path / "out" / "videos")
    (tmp_path / "out" / "videos").write_text("a file where the folder of clips belongs")
    with pytest.raises(RunError, match="out' cannot be written: "):
        make_ladder(tmp_path / "out", sources=None, config=TINY, workers=1)


def test_a_folder_with_another_ladder_is_refused(ladder: Path) -> None:
    before = hashes(ladder)
    other = LadderConfig(scenes=3, seconds=0.6, size=(96, 64), levels=2, kinds=TINY.kinds)
    with pytest.raises(RunError, match=r"other settings or sources \(seconds\)"):
        make_ladder(ladder, sources=None, config=other, workers=1)
    assert hashes(ladder) == before


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(RunError, match="not empty and holds no ladder"):
        make_ladder(tmp_path, sources=None, config=TINY, workers=1)
    assert hashes(tmp_path).keys() == {"thesis.txt"}


def test_real_clips_are_sources_and_a_bad_one_is_named_and_left_out(
    tmp_path: Path, write_video: WriteVideo, caplog: pytest.LogCaptureFixture
) -> None:
    clips = tmp_path / "clips"
    write_video(clips / "good.mp4")
    (clips / "bad.mp4").write_text("not a video")
    config = LadderConfig(scenes=1, seconds=0.5, size=(96, 64), levels=1, kinds=("blur",))
    with caplog.at_level(logging.WARNING):
        manifest = make_ladder(tmp_path / "out", sources=clips, config=config, workers=1)
    assert "bad.mp4" in caplog.text
    dataset = load_dataset(str(manifest))
    assert [video.id.split("-")[0] for video in dataset.videos] == ["good", "good", "foliage", "foliage"]
    assert "refused: 1" in dataset.manifest.source
    assert dataset.manifest.license == "procedural clips CC0-1.0; others as their source"
    assert '"bad.mp4"' in (tmp_path / "out" / "ladder.json").read_text()


def test_nothing_but_bad_sources_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "bad.mp4").write_text("not a video")
    with pytest.raises(MediaError, match="none of the sources can be used"):
        make_ladder(tmp_path / "out", sources=tmp_path / "clips", config=LadderConfig(scenes=0), workers=1)


def test_an_unknown_kind_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'flicker'"):
        make_ladder(tmp_path / "out", sources=None, config=LadderConfig(kinds=("fliker",)), workers=1)


def test_a_codec_that_is_absent_is_recorded_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(distortions.media, "has_encoder", lambda codec: codec != "libx265")
    config = LadderConfig(scenes=1, seconds=0.3, size=(64, 64), levels=1)
    with caplog.at_level(logging.WARNING):
        manifest = make_ladder(tmp_path / "out", sources=None, config=config, workers=1)
    assert "cannot encode x265" in caplog.text
    dataset = load_dataset(str(manifest))
    assert "Kinds not in it: x265." in dataset.manifest.source
    assert {video.attributes["kind"] for video in dataset.videos} == {"pristine", *distortions.KINDS} - {"x265"}
    with pytest.raises(UsageError, match="needs the encoder 'libx265'"):
        make_ladder(tmp_path / "b", sources=None, config=LadderConfig(kinds=("x265",)), workers=1)
