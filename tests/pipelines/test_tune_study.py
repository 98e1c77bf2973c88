"""The study's file: Ctrl-C waits for it, trials that were cut off do not run for ever, other files are refused."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import optuna
import pytest

from vqa_train.core.errors import RunError
from vqa_train.pipelines.tune.range import NumberRange, Param
from vqa_train.pipelines.tune.study import Outcome, opened, uninterrupted


def test_ctrl_c_waits_for_a_call_to_the_database() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        signal.raise_signal(signal.SIGINT)
        done.append("after")
    assert done == ["after"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_trials_of_a_process_that_kill_9_ended_are_marked_as_failed(tmp_path: Path) -> None:
    code = """
import os, signal, sys
from pathlib import Path
from vqa_train.pipelines.tune.range import NumberRange, Param
from vqa_train.pipelines.tune.study import Outcome, opened
with opened(Path(sys.argv[1]), "s", {"a": "1"}, maximise=True) as study:
    first, *_ = study.ask([Param("epochs", NumberRange(kind="int", low=1, high=9))], 3, 0, {"epochs": 5})
    study.tell(first, Outcome(value=0.5, folds={"f": 0.5}))
    os.kill(os.getpid(), signal.SIGKILL)
"""
    path = tmp_path / "s.db"
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    before = sqlite3.connect(path)
    assert before.execute("select state from trials order by number").fetchall() == [
        ("COMPLETE",), ("RUNNING",), ("RUNNING",),
    ]  # fmt: skip
    before.close()
    with opened(path, "s", {"a": "1"}, maximise=True) as study:
        assert [trial.state.name for trial in study.study.get_trials()] == ["COMPLETE", "FAIL", "FAIL"]


def test_trials_without_an_outcome_are_marked_as_failed(tmp_path: Path) -> None:
    space = [Param("epochs", NumberRange(kind="int", low=1, high=9))]
    path = tmp_path / "s.db"
    with opened(path, "s", {"a": "1"}, maximise=True) as study:
        first, _ = study.ask(space, 2, 0, {"epochs": 5})
        assert first.settings == {"epochs": 5}
        study.tell(first, Outcome(value=0.5, folds={"f": 0.5}))
    with opened(path, "s", {"a": "1"}, maximise=True) as study:
        states = [trial.state.name for trial in study.study.get_trials()]
        assert states == ["COMPLETE", "FAIL"]
        # One at a time.
        with pytest.raises(RunError, match="in use by another process"), opened(path, "s", {"a": "1"}, maximise=True):
            pass


def test_files_that_are_no_study_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.db"
    path.write_text("no database, but text that is long enough to be read as a header" * 9, encoding="utf-8")
    with pytest.raises(RunError, match="cannot be opened as an Optuna study"), opened(path, "s", {}, maximise=True):
        pass
    other = tmp_path / "other.db"
    optuna.create_study(storage=f"sqlite:///{other}", study_name="s")
    with pytest.raises(RunError, match="not one of vqa-train tune"), opened(other, "s", {}, maximise=True):
        pass
