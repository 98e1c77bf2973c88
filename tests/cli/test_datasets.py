"""`vqa-train datasets` as a user meets it: results on stdout, notes on stderr, JSON on request, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from vqa_train.cli.datasets import app
from vqa_train.core.errors import LabelError, UsageError

SCAN = ["scan", "data", "--labels", "labels.csv", "--name", "tiny", "--id-column", "video", "--target", "overall=mos",
        "--mos-min", "1", "--mos-max", "5", "--license", "CC0-1.0"]  # fmt: skip


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two videos and their labels in data/, seen from tmp_path."""
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "data"
    root.mkdir()
    (root / "labels.csv").write_text("video,mos,scene\na,2,x\nb,4,y\n")
    for name in "ab":
        (root / f"{name}.mp4").write_text(name)
    return root


def test_scan_show_list_verify(data: Path) -> None:
    scanned = run(*SCAN, "--group-column", "scene", "--fractions", "train=0.5,test=0.5", "--salt", "s")
    assert (scanned.exit_code, scanned.stderr) == (0, "")
    assert scanned.stdout.startswith("manifests/tiny.yaml: 2 files, 2 bytes (2 newly hashed)")
    shown = run("show", "tiny")
    assert shown.exit_code == 0
    assert "CC0-1.0" in shown.stdout
    assert "2 videos" in shown.stdout
    listed = run("list")
    assert listed.exit_code == 0
    assert "tiny" in listed.stdout
    verified = run("verify", "manifests/tiny.yaml", "--workers", "1")
    assert (verified.exit_code, verified.stdout) == (0, "tiny: 3 listed files checked, all as listed\n")


@pytest.mark.parametrize(
    ("command", "schema"),
    [
        (SCAN, "vqa-train/dataset-scan/1"),
        (["show", "tiny"], "vqa-train/dataset-show/1"),
        (["list"], "vqa-train/dataset-list/1"),
        (["verify", "tiny"], "vqa-train/dataset-verify/1"),
    ],
)
def test_json_goes_to_stdout_alone_or_to_a_file(data: Path, command: list[str], schema: str) -> None:
    run(*SCAN)
    assert json.loads(run(*command, "--json", "-").stdout)["schema"] == schema
    beside = run(*command, "--json", "out.json")
    assert json.loads(Path("out.json").read_text())["schema"] == schema
    assert "tiny" in beside.stdout


def test_verify_fails_as_a_gate_and_names_each_difference(data: Path) -> None:
    run(*SCAN)
    (data / "a.mp4").unlink()
    (data / "b.mp4").write_text("longer")
    (data / "c.mp4").write_text("new")
    done = run("verify", "tiny")
    assert done.exit_code == 3
    assert done.stdout.splitlines() == [
        "tiny: 3 differences",
        "what      path   detail",
        "missing   a.mp4",
        "changed   b.mp4  1 -> 6 bytes",
        "unlisted  c.mp4",
        "tiny: 3 listed files checked, FAILED",
    ]


def test_a_scan_that_misses_a_video_says_which_and_exits_with_4(data: Path) -> None:
    (data / "a.mp4").unlink()
    (data / "extra.mp4").write_text("e")
    (data / "out.mp4").symlink_to("/etc/hostname")
    done = run(*SCAN)
    assert done.exit_code == 4
    assert done.stderr.splitlines() == [
        "failed: out.mp4: path_escape: symbolic link that leaves the data root",
        "warning: 1 ids without a file (left out): a",
        "warning: 1 files that no row names: extra.mp4",
    ]


def test_long_findings_are_cut_short(data: Path) -> None:
    for i in range(9):
        (data / f"x{i}.mp4").write_text(str(i))
    assert "9 files that no row names: x0.mp4, x1.mp4, x2.mp4, x3.mp4, x4.mp4, and 4 more" in run(*SCAN).stderr


def test_an_unknown_licence_is_noted(data: Path) -> None:
    done = run(*SCAN[:-2])
    assert done.exit_code == 0
    assert "pass --license" in done.stderr


def test_a_broken_manifest_is_listed_with_its_error(data: Path) -> None:
    run(*SCAN)
    Path("manifests/bad.yaml").write_text("schema: vqa-train/dataset/1\nlicence: MIT\n")
    done = run("list")
    assert done.exit_code == 4
    assert "did you mean 'license'?" in done.stdout
    assert "tiny" in done.stdout


def test_labels_may_carry_their_split(data: Path) -> None:
    (data / "test=1.csv").write_text("video,mos\nb,3\n")
    (data / "labels.csv").write_text("video,mos\na,3\n")
    done = run(*SCAN[:2], "--labels", "train=data/labels.csv", "--labels", "data/test=1.csv", *SCAN[4:])
    assert done.exit_code == 0
    assert json.loads(run("show", "tiny", "--json", "-").stdout)["data"]["splits"] == {"none": 1, "train": 1}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["scan", "data"], "neither --name nor --output"),
        ([*SCAN, "--target", "overall=other"], "--target 'overall=other' is not a new NAME=COLUMN"),
        ([*SCAN, "--std", "overall"], "--std 'overall' is not a new NAME=COLUMN"),
        ([*SCAN, "--fractions", "train=most"], "--fractions 'train=most'"),
        (["make-ladder", "--output", "x", "--size", "big"], "--size 'big' is not WIDTHxHEIGHT"),
    ],
)
def test_wrong_usage(data: Path, arguments: list[str], message: str) -> None:
    done = run(*arguments)
    assert isinstance(done.exception, UsageError)
    assert message in str(done.exception)
    assert done.exception.exit_code == 2


def test_a_score_out_of_range_stops_the_scan(data: Path) -> None:
    (data / "labels.csv").write_text("video,mos\na,7\n")
    done = run(*SCAN)
    assert isinstance(done.exception, LabelError)
    assert not Path("manifests").exists()


@pytest.mark.parametrize(("refused", "code"), [({}, 0), ({"text.mp4": "no video stream"}, 4)])
def test_make_ladder_hands_its_options_over(
    data: Path, monkeypatch: pytest.MonkeyPatch, refused: dict[str, str], code: int
) -> None:
    seen = {}

    def build(output: Path, **given: object) -> dict[str, object]:
        seen.update(given, output=output)
        return {"manifest": "ladder/manifest.yaml", "files": 40, "bytes_total": 1000, "refused_sources": refused}

    monkeypatch.setattr("vqa_train.pipelines.datasets.build_ladder", build)
    done = run("make-ladder", "--output", "ladder", "--scenes", "2", "--size", "320x180", "--workers", "1")
    assert (done.exit_code, done.stdout) == (code, "ladder/manifest.yaml: 40 clips, 1000 bytes\n")
    assert seen == {
        "output": Path("ladder"),
        "sources": None,
        "options": {"scenes": 2, "size": (320, 180)},
        "workers": 1,
    }
