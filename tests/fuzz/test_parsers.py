"""Whatever bytes a parser is given: it succeeds or raises a VqaError of one short line, in bounded memory.

The long form, with coverage feedback, is tools/fuzz/fuzz.py. Examples follow from the target alone: failures repeat.
"""

from __future__ import annotations

import random
import sys
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vqa_train.core.errors import VqaError

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools" / "fuzz"))
from mutate import mutate
from targets import targets

TARGETS = targets()
FUZZ = settings(
    max_examples=60,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
# What the largest seed takes, several times over; a bomb takes more.
BOUND_BYTES = 64 << 20


def survives(name: str, data: bytes, folder: Path) -> VqaError | None:
    """The error of target `name`, None when it takes `data`; anything else ends the test."""
    try:
        TARGETS[name].call(data, folder)
    except VqaError as error:
        assert "\n" not in str(error)
        assert len(str(error)) < 5000
        return error
    return None


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_accepts_a_seed(name, tmp_path):
    """A target that refuses everything would fuzz its first check alone."""
    errors = [survives(name, seed, tmp_path / str(n)) for n, seed in enumerate(TARGETS[name].seeds)]
    if name == "registry":  # its model's sidecar is another target
        assert "is missing" in str(errors[0])
    else:
        assert None in errors, errors


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_and_hostile_files_are_refused_or_read(name, tmp_path):
    target = TARGETS[name]

    @FUZZ
    @given(st.integers(0, 2**32))
    def fuzz(seed):
        rng = random.Random(f"{name} {seed}")
        survives(name, mutate(rng, rng.choice(target.seeds), target.form), tmp_path)

    fuzz()


@pytest.mark.parametrize("name", TARGETS)
def test_any_bytes_at_all_are_refused_or_read(name, tmp_path):
    @settings(FUZZ, max_examples=15)
    @given(st.binary(max_size=300))
    def fuzz(data):
        survives(name, data, tmp_path)

    fuzz()


@pytest.mark.parametrize("name", [name for name, target in TARGETS.items() if target.form != "bytes"])
@pytest.mark.parametrize(
    "data",
    [
        b"[" * 20_000 + b"]" * 20_000,
        b'{"a":' * 20_000 + b"1" + b"}" * 20_000,
        b'{"schema":' + b"9" * 100_000 + b"}",
        b'{"schema": "x", "schema": "y"}',
        b"a: &a [x]\n" + b"\n".join(b"k%d: *a" % n for n in range(5000)),
        b"\xff\xfe" + "a: 1".encode("utf-16-le"),
        b"- " * 20_000 + b"x",
        b"? " * 3000,
        b"\x00" * 1000,
        b"",
    ],
    ids=["lists", "mappings", "number", "twice", "aliases", "utf-16", "nesting", "keys", "zeros", "empty"],
)
def test_bombs_are_refused_in_bounded_memory(name, data, tmp_path):
    tracemalloc.start()
    try:
        assert survives(name, data, tmp_path) is not None or (name == "failures" and data in (b"", b"\x00" * 1000))
        assert tracemalloc.get_traced_memory()[1] < BOUND_BYTES
    finally:
        tracemalloc.stop()
