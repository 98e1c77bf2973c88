"""vqa-score: files, folders and lists in; tables, JSON and CSV out; exit codes that say what happened."""

from __future__ import annotations

import csv
import fcntl
import importlib
import io
import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pytest

from vqa_train import backbones
from vqa_train.cli import score as command

TESTS = Path(__file__).parents[1]
PROMPT = "a red fox, slow motion"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def tiny(patch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    patch.syspath_prepend(TESTS / "registry")
    patch.syspath_prepend(TESTS / "backbones")
    module = importlib.import_module("tiny_model")
    patch.setattr(backbones.BACKBONES, "_builtin", module.BUILTIN)
    patch.setattr(backbones.TEXT_ENCODERS, "_builtin", module.BUILTIN_TEXT)
    root = tmp_path_factory.mktemp("text")
    patch.setenv("VQA_TRAIN_TEXT_MODELS", str(root))
    module.text_folder(root)
    return module


@pytest.fixture(scope="module")
def registry(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Registered through the command's own function, as the shell would."""
    from vqa_train.cli.register import register

    root = tmp_path_factory.mktemp("registry") / "model"
    kinds = {
        "video": {},
        "prompted": {"text": True},
        "flexible": {"ensemble": True, "text": True, "optional_inputs": ["look", "motion", "prompt"]},
    }
    for name, options in kinds.items():
        register(
            model=tiny.export_tiny(root / f"{name}.onnx", **options),
            kind="nr", dataset="ladder", license="Apache-2.0", train_commit=tiny.COMMIT, registry=root,
        )  # fmt: skip
    return root


@pytest.fixture
def videos(write_video: Callable[..., Path], tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    for i, name in enumerate(["b, ü.mp4", "a.MP4", "sub/c.mkv"]):
        write_video(folder / name, frames=10, size=(64, 80), seed=i)
    (folder / "notes.txt").write_text("not a video")
    return folder


@pytest.fixture
def run(registry: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    def run(*arguments: str | Path, model: str = "video") -> tuple[int, str, str]:
        monkeypatch.chdir(tmp_path)
        # One thread, so one decoding process to start.
        call = ["vqa-score", "--threads", "1", *map(str, arguments), "--model", model, "--registry", str(registry)]
        monkeypatch.setattr(sys, "argv", call)
        with pytest.raises(SystemExit) as caught:
            command.main()
        out, err = capsys.readouterr()
        return int(caught.value.code or 0), out, err

    return run


@pytest.fixture(scope="module")
def other_kinds(tiny: ModuleType, registry: Path) -> Path:
    """The same registry with `full` (against a reference), `curved` (a timeline) and `sure` (with an interval)."""
    import torch

    from vqa_train.pipelines.models.register import RegisterConfig, register

    still, temporal = tiny.TinyBackbone(), tiny.TemporalBackbone()
    torch.manual_seed(2)
    kinds = {
        "full": {
            "chosen": {"look": (still, "pooled"), "pristine": (still, "pooled")},
            "of": {"pristine": "reference"},
            "head": tiny.TinyHead(10),
        },
        "curved": {"chosen": {"look": (temporal, "pooled")}, "head": tiny.TinyHead(10)},
        "sure": {"ensemble": True},
    }
    for name, options in kinds.items():
        path = tiny.export_tiny(registry / f"{name}.onnx", **options)
        register(
            RegisterConfig(model=path, dataset="ladder", license="MIT", train_commit=tiny.COMMIT, registry=registry)
        )
    return registry


def test_a_table_has_score_range_and_direction(run: Run, videos: Path, tiny: ModuleType) -> None:
    code, out, _ = run(videos / "a.MP4")
    assert code == 0
    expected = tiny.torch_scores(videos / "a.MP4")
    for text in ("video (range 1 to 5, higher is better)", "a.MP4", *(f"{score:.3f}" for score in expected.values())):
        assert text in out


def test_json_has_everything_and_a_schema(run: Run, videos: Path, tiny: ModuleType) -> None:
    code, out, _ = run(videos / "a.MP4", "--format", "json", "--threads", "1")
    report = json.loads(out)
    assert code == 0
    assert report["schema"] == "vqa-train/scores/1"
    assert report["model"]["direction"] == "higher_is_better"
    assert report["model"]["mos_range"] == {"overall": [1, 5], "temporal": [1, 5]}
    assert report["results"][0]["scores"] == pytest.approx(tiny.torch_scores(videos / "a.MP4"), abs=1e-4)
    assert report["counts"] == {"inputs": 1, "scored": 1, "failed": 0, "tripped": 0}


def test_csv_keeps_commas_in_names_and_one_row_per_video(run: Run, videos: Path) -> None:
    code, out, _ = run(videos, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 0
    assert [Path(row["video"]).name for row in rows] == ["a.MP4", "b, ü.mp4", "c.mkv"]
    assert all(1 < float(row["overall"]) < 6 and row["overall_high"] == "5" for row in rows)
    assert len({row["overall"] for row in rows}) == 3


@pytest.mark.parametrize(("format_", "suffix"), [("json", "json"), ("csv", "csv"), ("table", "csv")])
def test_output_goes_to_a_file_and_stdout_stays_empty(
    run: Run, videos: Path, tmp_path: Path, format_: str, suffix: str
) -> None:
    target = tmp_path / f"out.{suffix}"
    assert run(videos / "a.MP4", "--format", format_, "--output", target)[:2] == (0, "")
    text = target.read_text()
    assert json.loads(text)["counts"]["scored"] == 1 if suffix == "json" else text.startswith("video,prompt,overall")


def test_spread_and_interval_are_in_every_form(run: Run, videos: Path, tiny: ModuleType) -> None:
    expected = tiny.torch_outputs(videos / "a.MP4", PROMPT)
    score, spread = expected["scores"]["overall"], expected["spread"]["overall"]
    call = (videos / "a.MP4", "--prompt", PROMPT)
    code, out, err = run(*call, model="flexible")
    assert (code, "without" in err) == (0, False)
    assert f"{score:.3f} ±{spread:.3f} [{score - 0.75:.3f}, {score + 0.75:.3f}]" in out
    assert "[ ]: interval for 90% of labels" in out
    report = json.loads(run(*call, "--format", "json", model="flexible")[1])
    assert report["model"]["outputs"] == ["scores", "spread", "low", "high"]
    assert report["model"]["level"] == 0.9
    (result,) = report["results"]
    assert result["spread"] == pytest.approx(expected["spread"], abs=1e-4)
    assert result["interval"]["overall"] == pytest.approx([score - 0.75, score + 0.75], abs=1e-4)
    assert result["interval"]["temporal"] is None
    row = next(csv.DictReader(io.StringIO(run(*call, "--format", "csv", model="flexible")[1])))
    assert float(row["overall_spread"]) == pytest.approx(spread, abs=1e-4)
    assert float(row["overall_interval_low"]) == pytest.approx(score - 0.75, abs=1e-4)
    assert (row["temporal_interval_low"], row["overall_low"]) == ("", "1")


def test_a_model_without_them_has_no_columns_for_them(run: Run, videos: Path) -> None:
    _, out, _ = run(videos / "a.MP4", "--format", "csv")
    assert not [name for name in out.splitlines()[0].split(",") if "spread" in name or "interval" in name]
    _, out, _ = run(videos / "a.MP4", "--format", "json")
    assert json.loads(out)["model"]["level"] is None
    _, out, _ = run(videos / "a.MP4")
    assert "±" not in out


def test_what_was_missing_is_said(run: Run, videos: Path) -> None:
    code, out, err = run(videos / "a.MP4", "--format", "json", model="flexible")
    (result,) = json.loads(out)["results"]
    assert (code, result["missing_inputs"], result["interval"]["overall"]) == (0, ["prompt"], None)
    assert "1 of 1 videos are scored without prompt" in err
    _, out, _ = run(videos / "a.MP4", "--format", "csv", model="flexible")
    assert next(csv.DictReader(io.StringIO(out)))["missing_inputs"] == "prompt"
    assert "±" in run(videos / "a.MP4", model="flexible")[1]


def test_a_bad_file_is_a_record_and_a_line_and_the_rest_go_on(run: Run, videos: Path) -> None:
    (videos / "broken.mp4").write_text("text")
    code, out, err = run(videos, "--format", "json")
    report = json.loads(out)
    assert code == 4
    assert report["counts"] == {"inputs": 4, "scored": 3, "failed": 1, "tripped": 0}
    (failure,) = report["failures"]
    assert failure["video"].endswith("broken.mp4")
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert failure["reason"] in line
    code, out, _ = run(videos)
    assert code == 4
    assert failure["reason"] in out


def test_a_score_outside_the_range_to_expect_is_said_to_be(run: Run, videos: Path, tiny: ModuleType) -> None:
    scores = tiny.torch_scores(videos / "a.MP4")
    unusual = [target for target, score in scores.items() if not 1.5 <= score <= 4.5]
    assert len(unusual) == 1  # the made model has one of each
    _, out, err = run(videos / "a.MP4", "--format", "json")
    assert json.loads(out)["results"][0]["outside_expected"] == unusual
    assert "1 of 1 videos score outside the range to expect" in err
    _, out, _ = run(videos / "a.MP4", "--format", "csv")
    assert next(csv.DictReader(io.StringIO(out)))["outside_expected"] == unusual[0]


def test_when_nothing_could_be_scored_the_code_is_1(run: Run, tmp_path: Path) -> None:
    code, out, err = run(tmp_path / "missing.mp4", "--format", "csv")
    assert code == 1
    assert "missing_file" in out
    assert "missing.mp4" in err


def test_a_list_gives_each_video_its_prompt(run: Run, videos: Path, tmp_path: Path, tiny: ModuleType) -> None:
    lines = ["\ufeff" + f"videos/a.MP4\t{PROMPT}", "", "videos/b, ü.mp4\ta dog", "videos/sub/c.mkv"]
    (tmp_path / "list.txt").write_text("\r\n".join(lines), encoding="utf-8")
    code, out, _ = run("@list.txt", "--prompt", "the moon", "--format", "json", model="prompted")
    results = json.loads(out)["results"]
    assert code == 0
    assert [result["prompt"] for result in results] == [PROMPT, "a dog", "the moon"]
    assert results[0]["scores"] == pytest.approx(tiny.torch_scores(videos / "a.MP4", PROMPT), abs=1e-4)


def test_a_csv_list_quotes_and_lacks_as_it_likes(run: Run, videos: Path, tmp_path: Path) -> None:
    table = f'video,prompt\n"videos/b, ü.mp4","{PROMPT}"\nvideos/a.MP4,\n'
    (tmp_path / "list.csv").write_text(table, encoding="utf-8-sig")
    code, out, err = run("@list.csv", "--format", "json", model="prompted")
    report = json.loads(out)
    assert code == 4
    assert report["results"][0]["prompt"] == PROMPT
    assert report["failures"][0]["reason"] == "no_prompt"
    assert "no_prompt" in err


@pytest.mark.parametrize(
    ("arguments", "model", "message"),
    [
        (["videos/a.MP4"], "prompted", "takes a prompt and got none"),
        (["videos/a.MP4", "--prompt", "x"], "video", "takes no prompt"),
        (["@none.txt"], "video", "list 'none.txt' cannot be read"),
        (["@columns.csv"], "video", "has columns ['path']"),
        (["@long.csv"], "video", "line 2: expected 1 columns"),
        (["@empty.txt"], "video", "'@empty.txt' has no videos in it"),
        (["nothing"], "video", "'nothing' has no videos in it"),
        (["videos/a.MP4", "--format", "xml"], "video", "xml"),
        (["videos/a.MP4", "--threads", "-1"], "video", "--threads"),
        ([], "video", "Missing argument"),
    ],
)
def test_wrong_usage_is_exit_code_2(
    run: Run, videos: Path, tmp_path: Path, arguments: list[str], model: str, message: str
) -> None:
    (tmp_path / "nothing").mkdir()
    (tmp_path / "empty.txt").touch()
    (tmp_path / "columns.csv").write_text("path\na.mp4\n")
    (tmp_path / "long.csv").write_text("video\na.mp4,b\n")
    code, out, err = run(*arguments, model=model)
    assert (code, out) == (2, "")
    assert message in err


def test_an_unknown_model_is_one_line_and_exit_code_1(run: Run, videos: Path) -> None:
    code, out, err = run(videos, model="vidoe")
    assert (code, out) == (1, "")
    assert err.startswith("error: registry")
    assert "did you mean 'video'?" in err
    assert err.count("\n") == 1


def test_debug_gives_the_traceback(run: Run, videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vqa_train.core.errors import ModelError

    with pytest.raises(ModelError):
        monkeypatch.setattr(sys, "argv", ["vqa-score", str(videos), "--model", "none", "--debug"])
        command.main()


def test_the_script_scores_where_torch_cannot_be_imported(registry: Path, videos: Path, tiny: ModuleType) -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'sklearn', 'scipy', 'onnx', 'decord', 'pyarrow', 'polars'):\n"
        "    sys.modules[name] = None\n"
        "from vqa_train.cli.score import main; main()"
    )
    arguments = [str(videos / "a.MP4"), "--model", "video", "--registry", str(registry), "--format", "json"]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    scores = json.loads(done.stdout)["results"][0]["scores"]
    assert scores == pytest.approx(tiny.torch_scores(videos / "a.MP4"), abs=1e-4)


def test_a_timeline_is_in_every_form_and_drawn(run: Run, videos: Path, tmp_path: Path, other_kinds: Path) -> None:
    code, out, _ = run(videos, "--format", "json", "--timeline-plot", tmp_path / "plots", model="curved")
    report = json.loads(out)
    assert code == 0
    assert [result["timeline"]["times"] for result in report["results"]] == [[0.0]] * 3  # under a second each
    first = report["results"][0]
    assert first["timeline"]["scores"]["overall"] == pytest.approx([first["scores"]["overall"]], abs=1e-4)
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == ["a.MP4.svg", "b, ü.mp4.svg", "c.mkv.svg"]
    row = next(csv.DictReader(io.StringIO(run(videos / "a.MP4", "--timeline", "--format", "csv", model="curved")[1])))
    assert float(row["overall_worst"]) == pytest.approx(first["scores"]["overall"], abs=1e-4)
    assert row["overall_worst_at_s"] == "0"
    code, out, _ = run(videos / "a.MP4", "--timeline-plot", tmp_path / "one.svg", model="curved")
    assert code == 0
    assert "worst overall" in out
    assert (tmp_path / "one.svg").read_text().startswith("<svg")


def test_videos_of_one_name_have_drawings_of_their_own(
    run: Run, videos: Path, tmp_path: Path, other_kinds: Path, write_video: Callable[..., Path]
) -> None:
    write_video(videos / "sub" / "a.MP4", frames=10, size=(64, 80), seed=7)
    assert run(videos, "--timeline-plot", tmp_path / "plots", model="curved")[0] == 0
    one, two = ((tmp_path / "plots" / name).read_text() for name in ("a.MP4.svg", "a.MP4.2.svg"))
    assert one != two


def test_a_threshold_names_the_videos_and_counts_more_than_a_failure(
    run: Run, videos: Path, tiny: ModuleType, other_kinds: Path
) -> None:
    scores = {path: tiny.torch_scores(path)["overall"] for path in (videos / "a.MP4", videos / "b, ü.mp4")}
    (bad, low), (_, high) = sorted(scores.items(), key=lambda item: item[1])
    limit = f"overall<{(low + high) / 2:.6f}"
    code, out, err = run(*scores, "--threshold", limit, "--threshold", "temporal>99", "--format", "json")
    report = json.loads(out)
    assert code == 3
    assert {result["video"]: result["tripped"] for result in report["results"]} == {
        str(path): [limit] if path == bad else [] for path in scores
    }
    assert report["thresholds"] == [limit, "temporal>99"]
    assert report["counts"]["tripped"] == 1
    assert f"threshold: {bad}: overall {low:.3f} < " in err
    assert run(*scores, "--threshold", "overall<-99")[0] == 0
    assert run(*scores, "none.mp4", "--threshold", limit)[0] == 3
    assert run(*scores, "none.mp4", "--threshold", "overall<-99")[0] == 4
    assert run("none.mp4", "--threshold", "overall<-99")[0] == 1
    assert run(videos / "a.MP4", "--threshold", "overall.low<99", model="sure")[0] == 3
    assert limit in run(*scores, "--threshold", limit)[1]
    rows = list(csv.DictReader(io.StringIO(run(*scores, "--threshold", limit, "--format", "csv")[1])))
    assert [row["tripped"] for row in rows] == [limit if path == bad else "" for path in scores]


def test_lines_come_one_for_each_video(run: Run, videos: Path, tiny: ModuleType) -> None:
    code, out, _ = run(videos / "a.MP4", "none.mp4", "--format", "jsonl")
    scored, failed = map(json.loads, out.splitlines())
    assert code == 4
    assert (scored["status"], scored["schema"], scored["model"]["name"]) == ("scored", "vqa-train/score/1", "video")
    assert scored["scores"] == pytest.approx(tiny.torch_scores(videos / "a.MP4"), abs=1e-4)
    assert (failed["status"], failed["video"], failed["reason"]) == ("failed", "none.mp4", "missing_file")


def test_a_full_reference_model_takes_a_reference_for_all_or_for_each(
    run: Run, videos: Path, tmp_path: Path, other_kinds: Path
) -> None:
    one, other = videos / "a.MP4", videos / "b, ü.mp4"
    results = json.loads(run(one, "--reference", other, "--format", "json", model="full")[1])["results"]
    (tmp_path / "list.csv").write_text(f'video,reference\n{one},"{other}"\n{one},{one}\n', encoding="utf-8")
    report = json.loads(run("@list.csv", "--format", "json", model="full")[1])
    assert report["results"][0] == results[0]
    assert report["results"][1]["scores"] != results[0]["scores"]
    (tmp_path / "list.txt").write_text(f"{one}\t\t{other}\n{one}\n", encoding="utf-8")
    code, out, _ = run("@list.txt", "--format", "json", model="full")
    assert code == 4
    assert json.loads(out)["results"] == results
    assert json.loads(out)["failures"][0]["reason"] == "no_reference"
    assert "reference" in run("@list.txt", "--format", "csv", model="full")[1].splitlines()[0].split(",")


@pytest.mark.parametrize(
    ("arguments", "model", "message"),
    [
        (["videos/a.MP4"], "full", "is full-reference and got no reference"),
        (["videos/a.MP4", "--reference", "x"], "video", "takes no reference"),
        (["videos/a.MP4", "--timeline"], "video", "no timeline: model input 'look'"),
        (["videos", "--timeline-plot", "a.svg"], "curved", "one file for several videos"),
        (["videos/a.MP4", "--threshold", "quality<3"], "video", "has no target 'quality'"),
        (["videos/a.MP4", "--provider", "gpu"], "video", "unknown provider 'gpu'"),
        (["videos/a.MP4", "--threads", "1", "--workers", "2"], "video", "number of threads, 1, got 2"),
        (["http://127.0.0.1:9/folder/"], "video", "a web server has no folders"),
    ],
)
def test_what_cannot_be_done_for_any_video_is_exit_code_2(
    run: Run, videos: Path, other_kinds: Path, arguments: list[str], model: str, message: str
) -> None:
    code, out, err = run(*arguments, model=model)
    assert (code, out) == (2, "")
    assert message in err


def test_a_video_behind_an_address_is_scored_and_a_broken_address_is_a_record(
    run: Run, videos: Path, tiny: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VQA_TRAIN_RETRY_SECONDS", "0")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(videos)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        base = f"http://127.0.0.1:{server.server_port}"
        code, out, err = run(f"{base}/a.MP4", f"{base}/none.mp4", "http://127.0.0.1:9/x.mp4", "--format", "json")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    report = json.loads(out)
    assert code == 4
    assert report["results"][0]["video"] == f"{base}/a.MP4"
    assert report["results"][0]["scores"] == pytest.approx(tiny.torch_scores(videos / "a.MP4"), abs=1e-4)
    assert [failure["reason"] for failure in report["failures"]] == ["missing_file", "unreadable"]
    assert f"{base}/none.mp4" in err


class Piped:
    """vqa-score in a process of its own, reading what to score from a pipe."""

    def __init__(self, registry: Path, *arguments: str | Path) -> None:
        command = [sys.executable, "-c", "from vqa_train.cli.score import main; main()", "-", "--model", "video"]
        command += ["--registry", str(registry), "--threads", "1", *map(str, arguments)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin, self.stdout = self.process.stdin, self.process.stdout

    def say(self, *videos: Path) -> None:
        self.stdin.write("".join(f"{video}\n" for video in videos))
        self.stdin.flush()


def test_a_stream_of_paths_gives_a_stream_of_scores(registry: Path, videos: Path, tiny: ModuleType) -> None:
    piped = Piped(registry, "--format", "jsonl", "--threads", "2")
    for path in (videos / "a.MP4", videos / "sub" / "c.mkv"):
        piped.say(path)
        # It is there while the pipe is still open.
        line = json.loads(piped.stdout.readline())
        assert line["scores"] == pytest.approx(tiny.torch_scores(path), abs=1e-4)
    out, err = piped.process.communicate(timeout=60)
    assert (out, piped.process.returncode) == ("", 0), err


def test_ctrl_c_ends_a_stream_that_waits(registry: Path, videos: Path) -> None:
    piped = Piped(registry, "--format", "jsonl")
    piped.say(videos / "a.MP4")
    piped.stdout.readline()
    piped.process.send_signal(signal.SIGINT)
    assert piped.process.wait(60) == 130
    piped.process.communicate()


def test_a_killed_run_goes_on_where_it_stopped(registry: Path, videos: Path, tmp_path: Path) -> None:
    output = tmp_path / "scores.json"
    journal = tmp_path / "scores.json.journal"
    first, second, third = videos / "a.MP4", videos / "b, ü.mp4", videos / "sub" / "c.mkv"
    piped = Piped(registry, "--output", output, "--format", "json")
    piped.say(first, second, videos / "none.mp4")
    until(lambda: journal.exists() and journal.read_bytes().count(b"\n") == 3)  # a header and two scores
    piped.process.kill()
    piped.process.communicate()
    assert not output.exists()
    with journal.open("ab") as file:
        file.write(b'{"key": "cut in the mid')
    # Written anew, it is another file: scored again.
    later = second.stat().st_mtime_ns + 5_000_000_000
    os.utime(second, ns=(later, later))

    piped = Piped(registry, "--output", output, "--format", "json")
    piped.say(first, second, third)
    out, err = piped.process.communicate(timeout=60)
    assert (out, piped.process.returncode) == ("", 0), err
    assert "going on: 2 scores are there, in scores.json.journal" in err
    assert "1 of 3 were not scored again" in err
    assert not journal.exists()
    resumed = json.loads(output.read_text())
    assert [result["video"] for result in resumed["results"]] == [str(first), str(second), str(third)]
    piped = Piped(registry, "--format", "json")
    piped.say(first, second, third)
    assert json.loads(piped.process.communicate(timeout=60)[0]) == resumed


def until(holds: Callable[[], bool]) -> None:
    """Wait for another process; the test's own time limit ends a wait in vain."""
    while not holds():
        select.select([], [], [], 0.02)


def test_what_failed_is_tried_again_and_what_has_a_score_is_not(
    run: Run, videos: Path, tmp_path: Path, write_video: Callable[..., Path]
) -> None:
    call = (videos / "a.MP4", tmp_path / "late.mp4", "--format", "csv", "--output", tmp_path / "scores.csv")
    assert run(*call)[0] == 4
    assert (tmp_path / "scores.csv.journal").exists()
    write_video(tmp_path / "late.mp4", frames=10, size=(64, 80))
    code, _, err = run(*call)
    assert code == 0
    assert "1 of 2 were not scored again" in err
    rows = list(csv.DictReader(io.StringIO((tmp_path / "scores.csv").read_text())))
    assert all(row["overall"] for row in rows)
    assert not (tmp_path / "scores.csv.journal").exists()


def test_scores_of_another_model_or_without_timelines_are_made_again(
    run: Run, videos: Path, tmp_path: Path, other_kinds: Path
) -> None:
    call = (videos / "a.MP4", "none.mp4", "--format", "json", "--output", tmp_path / "scores.json")
    run(*call)
    _, _, err = run(*call, model="curved")
    assert "is of another model or without timelines: everything is scored again" in err
    assert "not scored again" not in err
    _, _, err = run(*call, "--timeline", model="curved")
    assert "everything is scored again" in err
    _, _, err = run(*call, "--timeline", model="curved")
    assert "1 of 2 were not scored again" in err
    assert json.loads((tmp_path / "scores.json").read_text())["results"][0]["timeline"]["times"] == [0.0]


def test_two_runs_do_not_write_one_file(run: Run, videos: Path, tmp_path: Path) -> None:
    with (tmp_path / "scores.csv.journal").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        code, _, err = run(videos / "a.MP4", "--output", tmp_path / "scores.csv")
    assert code == 2
    assert "another process writes" in err
