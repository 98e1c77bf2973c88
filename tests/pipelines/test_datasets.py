"""The datasets commands' results as values: list, show, scan with provenance, verify, the ladder's hand-over."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from vqa_train.core.errors import ManifestError, VqaError
from vqa_train.core.hashing import sha256_file
from vqa_train.datasets.draft import ScanConfig
from vqa_train.pipelines.datasets import build_ladder, list_datasets, scan_dataset, show_dataset, verify_dataset


@pytest.fixture
def scanned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """manifests/tiny.yaml over three videos, one score missing; the working folder is tmp_path."""
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "data"
    data.mkdir()
    (data / "labels.csv").write_text("name,mos,part\na,2,train\nb,,train\nc,4,test\n")
    for name in "abc":
        (data / f"{name}.mp4").write_text(name)
    config = ScanConfig(
        root=Path("data"),
        output=Path("manifests/tiny.yaml"),
        labels=(("data/labels.csv", None),),
        columns={"id": "name", "split": "part"},
        targets={"overall": "mos"},
        mos_min=1,
        mos_max=5,
        license="CC0-1.0",
    )
    report, _ = scan_dataset(config)
    return report.manifest


def test_a_scan_leaves_its_provenance(scanned: Path) -> None:
    block = json.loads(scanned.with_name("tiny.provenance.json").read_text())
    assert block["schema"] == "vqa-train/run-provenance/1"
    assert block["entrypoint"] == "datasets-scan"
    assert block["inputs"]["labels.csv"]["sha256"] == sha256_file(Path("data/labels.csv"))
    assert block["outputs"]["manifest"]["sha256"] == sha256_file(scanned)
    assert block["outputs"]["files"]["path"] == "manifests/tiny.files.csv"
    assert block["counts"] == {"inputs": 3, "done": 3, "failed": {}}


def test_list_gives_datasets_broken_ones_with_their_error_and_no_other_yaml(scanned: Path) -> None:
    (scanned.parent / "weights.yaml").write_text("schema: vqa-train/weights/1\n")
    (scanned.parent / "broken.yaml").write_text("schema: vqa-train/dataset/1\nnom: x\n")
    (scanned.parent / "garbage.yaml").write_text("a: [\n")
    result = list_datasets(scanned.parent)
    assert [(d["name"], d["error"] is None) for d in result["datasets"]] == [
        ("broken", False),
        ("garbage", False),
        ("tiny", True),
    ]
    assert "'nom'" in result["datasets"][0]["error"]
    assert result["datasets"][2]["files"] == 3
    assert list_datasets(Path("nowhere"))["datasets"] == []


def test_show_counts_videos_splits_and_scores(scanned: Path) -> None:
    shown = show_dataset("tiny")
    assert shown["targets"] == {"overall": {"min": 1, "max": 5, "direction": "higher_is_better"}}
    assert shown["data"]["videos"] == 3
    assert shown["data"]["splits"] == {"test": 1, "train": 2}
    assert shown["data"]["labelled"] == {"overall": 2}
    assert shown["data"]["labels"]["missing_mos"] == {"overall": 1}
    assert show_dataset("tiny", missing_mos="neutral")["data"]["labelled"] == {"overall": 3}
    json.dumps(shown, allow_nan=False)


def test_show_without_the_data_says_so_unless_a_root_was_given(scanned: Path, tmp_path: Path) -> None:
    (tmp_path / "data").rename(tmp_path / "gone")
    shown = show_dataset("tiny")
    assert shown["data"] is None
    assert "--data-root" in shown["note"]
    assert shown["files"] == 3
    assert show_dataset("tiny", data_root=tmp_path / "gone")["data"]["videos"] == 3
    with pytest.raises(ManifestError, match="is not a folder"):
        show_dataset("tiny", data_root=tmp_path / "nowhere")


def test_verify_by_name_finds_a_changed_file(scanned: Path, tmp_path: Path) -> None:
    assert verify_dataset("tiny").ok
    (tmp_path / "data/b.mp4").write_text("other")
    assert [change["path"] for change in verify_dataset("tiny").changed] == ["b.mp4"]


def test_the_ladders_sources_must_be_a_folder(tmp_path: Path) -> None:
    with pytest.raises(VqaError, match=r"--sources .*gone' is not a folder"):
        build_ladder(tmp_path / "ladder", sources=tmp_path / "gone", options={})


def test_a_ladder_is_built_and_a_file_that_is_no_video_refused(
    tmp_path: Path, write_video: Callable[..., Path]
) -> None:
    write_video(tmp_path / "sources/real.mp4", frames=6, size=(64, 64))
    (tmp_path / "sources/text.mp4").write_text("no video")
    options = {"scenes": 0, "seconds": 0.25, "size": (64, 64), "levels": 1, "kinds": ("blur",)}
    result = build_ladder(tmp_path / "ladder", sources=tmp_path / "sources", options=options, workers=1)
    assert list(result["refused_sources"]) == ["text.mp4"]
    assert (result["files"], list(result["targets"])) == (2, ["pseudo_mos"])
    assert show_dataset(result["manifest"])["data"]["labelled"] == {"pseudo_mos": 2}
