"""Whatever step on the disk a kill or an error hits, the store stays whole and the same command ends as if undisturbed.

faults.py does the work; here stands which steps there must be, so that no fault is injected at nothing.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

FAULTS = Path(__file__).with_name("faults.py")
OPS = ("open", "write", "fsync", "rename")


def inject(workload: str, folder: Path) -> list[dict[str, str]]:
    command = [sys.executable, FAULTS, workload, folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr + done.stdout
    assert done.stderr == ""
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("workload", "files"),
    [
        (
            "commit",
            "./store.json ./spec.json shards/*.parquet shards/*.json failures/*.jsonl ./manifest.json snapshots/*.json "
            "tags/*.json runs/*.json",
        ),
        ("merge", "shards/*.parquet shards/*.json failures/*.jsonl ./manifest.json snapshots/*.json runs/*.json"),
        ("repair", "quarantine/*.parquet quarantine/*.json quarantine/*.log ./manifest.json"),
    ],
)
def test_a_fault_at_any_step_loses_and_doubles_nothing(workload, files, tmp_path):
    found = inject(workload, tmp_path)
    assert [each for each in found if each["problem"] is not None] == []
    steps = {(each["step"], each["mode"]) for each in found}
    for file in files.split():
        for op in OPS:
            modes = {"kill before", "error", "read-only"}
            modes |= {"kill half way"} if op == "write" else {"kill after"} if op == "rename" else set()
            assert {mode for step, mode in steps if step == f"{op} {file}"} == modes, f"{op} {file}"
    if workload == "repair":
        assert ("unlink shards/*.json", "kill before") in steps
