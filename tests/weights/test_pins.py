"""weights.lock.json keeps what was seen first."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from vqa_train.core.errors import ConfigError
from vqa_train.core.hashcache import cache_dir
from vqa_train.weights.pins import LOCK_FILE, Pins, new_pin, weights_dir

ONE, TWO = "1" * 64, "2" * 64


def test_the_folder_is_the_variable_or_lies_in_the_cache(weights_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert weights_dir() == weights_folder
    monkeypatch.delenv("VQA_TRAIN_WEIGHTS")
    assert weights_dir() == cache_dir() / "weights"


def test_the_first_pin_stays_unless_it_is_replaced(weights_folder: Path) -> None:
    pins = Pins()
    assert pins.of("one") == {}
    pins.record("one", {"f": new_pin(ONE, 3, "local file")})
    pins.record("one", {"f": new_pin(TWO, 3, "local file"), "g": new_pin(TWO, 3, "local file")})
    assert {name: pin.sha256 for name, pin in pins.of("one").items()} == {"f": ONE, "g": TWO}
    pins.record("one", {"f": new_pin(TWO, 3, "local file")}, replace=True)
    assert Pins(weights_folder).of("one")["f"].sha256 == TWO


def test_the_file_is_plain_json_of_a_stated_schema(weights_folder: Path) -> None:
    Pins().record("one", {"f": new_pin(ONE, 3, "https://x.org/f")})
    value = json.loads((weights_folder / LOCK_FILE).read_text())
    pin = value["weights"]["one"]["f"]
    assert value["schema"] == "vqa-train/weights-lock/1"
    assert (pin["sha256"], pin["bytes"], pin["source"]) == (ONE, 3, "https://x.org/f")
    assert pin["when"].endswith("Z")


def test_a_damaged_file_is_an_error_not_an_empty_one(weights_folder: Path) -> None:
    weights_folder.mkdir()
    (weights_folder / LOCK_FILE).write_text('{"schema": "vqa-train/weights-lock/1", "weights": {"one": ')
    with pytest.raises(ConfigError, match="lock file .* is not JSON"):
        Pins().of("one")
    with pytest.raises(ConfigError, match="lock file"):
        Pins().record("two", {"f": new_pin(ONE, 3, "local file")})


def test_processes_that_pin_at_the_same_time_lose_nothing(weights_folder: Path) -> None:
    code = (
        "import sys; from vqa_train.weights.pins import Pins, new_pin\n"
        "for i in range(20): Pins().record(sys.argv[1], {str(i): new_pin('1' * 64, 1, 'local file')})"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, name]) for name in ("a", "b", "c")]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    assert [len(Pins(weights_folder).of(name)) for name in ("a", "b", "c")] == [20, 20, 20]
