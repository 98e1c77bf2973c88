"""status: what a run in another process says of itself, and how silent, dead and damaged ones are told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vqa_train.core.errors import StoreError
from vqa_train.engines.base import TaskResult, VideoTask
from vqa_train.pipelines.extract.config import SetReport
from vqa_train.pipelines.extract.heartbeat import Heartbeat
from vqa_train.pipelines.extract.run import ExtractConfig, extract_features
from vqa_train.pipelines.extract.shards import Shard
from vqa_train.pipelines.extract.status import status
from vqa_train.store.gc import gc
from vqa_train.store.store import FeatureStore
from vqa_train.store.verify import verify

CODE = (
    "import sys; sys.argv[0] = 'vqa-train'; import vqa_train.pipelines.extract.heartbeat as h; h.INTERVAL_S = 0.2; "
    "from vqa_train.cli.main import main; main()"
)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", CODE, *arguments]


def extract(manifest: Path, store: Path) -> subprocess.Popen[bytes]:
    arguments = ["extract-features", "--dataset", str(manifest), "--backbone", "nss", "--output", str(store)]
    sharing = ["--shard-rows", "1", "--workers", "1", "--num-shards", "1", "--shard-id", "0"]
    return subprocess.Popen(command(*arguments, *sharing), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def ask(store: Path) -> dict[str, Any]:
    """The command itself, in another process."""
    done = subprocess.run(command("status", str(store), "--json", "-"), capture_output=True, check=True, timeout=100)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_a_run_in_another_process_is_seen_at_work_then_stopped_then_done(
    make_dataset: Callable[..., Path], tmp_path: Path
) -> None:
    manifest, store = make_dataset(40, bad={"bad.mp4": b"no video at all"}), tmp_path / "store"
    process = extract(manifest, store)
    seen: dict[str, Any] = {}
    while process.poll() is None and not (seen and seen["total"]["finished"] > 1):
        # The store is made after the process has started.
        if (store / "status").is_dir():
            seen = status(store)
    process.send_signal(signal.SIGSTOP)  # so that it does not finish before it has been asked
    assert process.poll() is None, "the run should still be at work"
    seen = ask(store)
    process.send_signal(signal.SIGCONT)
    (run,) = seen["runs"]
    assert (run["state"], run["pid"], run["videos"], run["shard"]) == ("running", process.pid, 41, "0/1")
    assert 1 < run["finished"] < 41
    assert run["left"] == 41 - run["finished"] == seen["total"]["left"]
    assert run["eta_s"] == pytest.approx(run["left"] / run["rate"])
    assert seen["total"]["running"] == 1
    process.kill()
    process.wait()
    assert status(store)["runs"][0]["state"] == "dead"
    assert status(store)["total"]["running"] == 0
    assert extract(manifest, store).wait(timeout=200) == 4
    second = status(store)["runs"][1]
    assert (second["state"], second["left"]) == ("ended", 0)
    assert second["sets"][0]["failed"] | second["sets"][0]["skipped"] == {"decode_error": 1}
    assert second["sets"][0]["known"] + second["sets"][0]["done"] == 40
    assert not verify(store).problems
    text = subprocess.run(
        command("status", str(store), "--watch"), capture_output=True, text=True, check=True, timeout=100
    )
    assert "dead" in text.stdout
    assert "failed: 1 x decode_error" in text.stdout


def said_nothing(text: str) -> None:
    raise AssertionError(text)


@pytest.fixture
def beat(tmp_path: Path) -> Heartbeat:
    store = tmp_path / "store"
    FeatureStore(store).create()
    config = ExtractConfig(dataset="made", output=store, backbones=("nss",), shard=Shard(1, 3))
    return Heartbeat(config, "run-1", said_nothing, 60.0)


def result(worker: str = "") -> TaskResult:
    return TaskResult(task=VideoTask(key="0" * 64, path=Path("v.mp4"), verify=False, sets=("a",)), worker=worker)


def test_counts_rates_and_workers_add_up(beat: Heartbeat, tmp_path: Path) -> None:
    report = SetReport(name="a@0", done=2)
    report.failed["timeout"] = 1
    beat.plan([report], 12)
    for worker in ("one:1", "one:1", "two:2"):
        beat.result(result(worker))
    beat.write()
    found = status(tmp_path / "store")
    (run,) = found["runs"]
    assert (run["finished"], run["left"], run["workers"]) == (3, 9, {"one:1": {"done": 2}, "two:2": {"done": 1}})
    assert found["total"]["failures"] == {"timeout": 1}
    assert found["total"]["sets"] == {"a@0": {"done": 2, "failed": 1}}
    assert found["total"]["eta_s"] == pytest.approx(9 / run["rate"])


def test_a_run_that_says_nothing_for_long_is_silent_and_one_without_its_process_is_dead(
    beat: Heartbeat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beat.plan([], 5)
    store = tmp_path / "store"
    (path,) = (store / "status").iterdir()
    assert status(store)["runs"][0]["state"] == "running"
    past = time.time() - 400
    os.utime(path, (past, past))
    assert status(store)["runs"][0]["state"] == "silent"
    assert status(store)["total"]["eta_s"] is None
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: gone.pid)
        beat.write()
    assert status(store)["runs"][0]["state"] == "dead"
    with monkeypatch.context() as patch:
        # Another machine's processes cannot be looked at.
        patch.setattr("socket.gethostname", lambda: "elsewhere")
        beat.write()
    assert status(store)["runs"][0]["state"] == "running"


def test_a_damaged_status_is_named_and_hides_no_other(beat: Heartbeat, tmp_path: Path) -> None:
    beat.plan([], 5)
    store = tmp_path / "store"
    (path,) = (store / "status").iterdir()
    (store / "status" / "run-2.json").write_bytes(path.read_bytes().replace(b'"videos": 5', b'"videos": 6'))
    found = status(store)
    assert [run["run_id"] for run in found["runs"]] == ["run-1"]
    assert len(found["unreadable"]) == 1
    assert "run-2.json" in found["unreadable"][0]


def test_gc_takes_the_status_of_old_runs_and_leaves_that_of_runs_at_work(beat: Heartbeat, tmp_path: Path) -> None:
    beat.plan([], 5)
    store = tmp_path / "store"
    (path,) = (store / "status").iterdir()
    assert not gc(store, dry_run=False)
    past = time.time() - 7200
    os.utime(path, (past, past))
    assert [leftover.path for leftover in gc(store, dry_run=False)] == [path]
    assert not path.exists()
    assert status(store)["runs"] == []


def test_a_run_that_fails_says_so_and_no_store_has_no_status(
    make_dataset: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StoreError):
        status(tmp_path / "nowhere")

    def broken(*_: object, **__: object) -> None:
        raise OSError(5, "input/output error")

    monkeypatch.setattr("vqa_train.pipelines.extract.run._conclude", broken)
    with pytest.raises(OSError, match="input/output"):
        extract_features(
            ExtractConfig(dataset=str(make_dataset(1)), output=tmp_path / "store", backbones=("nss",), workers=0)
        )
    assert status(tmp_path / "store")["runs"][0]["state"] == "failed"


def test_a_status_that_cannot_be_written_is_said_once_and_ends_nothing(tmp_path: Path) -> None:
    store = tmp_path / "store"
    FeatureStore(store).create()
    (store / "status").write_text("in the way", encoding="utf-8")
    said: list[str] = []
    with Heartbeat(ExtractConfig(dataset="made", output=store, text=("minilm",)), "run-1", said.append, 60.0) as beat:
        beat.plan([], 5)
        beat.write()
    assert len(said) == 1
    assert "`vqa-train status` will not see this run" in said[0]
