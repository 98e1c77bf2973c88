"""What the first, the second and the third signal do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from vqa_train.cli import signals
from vqa_train.cli.signals import stop_on_signals


def test_the_first_sets_the_event_and_the_second_interrupts(capfd: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), stop_on_signals() as stop:
        assert not stop.is_set()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.is_set()
        assert "a second time stops now" in capfd.readouterr().err
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("the second signal should have interrupted")
    assert "stopping now" in capfd.readouterr().err
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_one_sigterm_that_comes_by_two_ways_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    instant = 100.0
    monkeypatch.setattr(signals.time, "monotonic", lambda: instant)
    with stop_on_signals() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        instant = 100.9
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.is_set()
        instant = 101.0
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)


def test_the_third_ends_the_process() -> None:
    code = (
        "import os, signal\n"
        "from vqa_train.cli.signals import stop_on_signals\n"
        "with stop_on_signals():\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "    except KeyboardInterrupt:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL, check=False).returncode == 130
