"""Runs a change of a store once for every step it takes on the disk, with a fault injected at that step.

    faults.py WORKLOAD FOLDER

A step is an open, write, fsync, rename, mkdir or unlink below the store, wrapped from outside in a forked process. The
faults: SIGKILL before the step, after it, half way through a write; an error from the step (ENOSPC, EIO, EDQUOT, EROFS
in turn); every step from there on failing as on a disk that has become read-only. Afterwards each store must verify,
hold every row that was reported, and end equal to an undisturbed one when the same change is run again. One JSON line
a fault goes to stdout.
"""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from writer import SPEC, make_row

from vqa_train.core.errors import Reason, StoreError
from vqa_train.store.arrow import encode as _encode  # noqa: F401  (pyarrow is loaded once, before any fork)
from vqa_train.store.gc import gc
from vqa_train.store.merge import merge
from vqa_train.store.repair import repair
from vqa_train.store.rows import Failure
from vqa_train.store.store import FeatureStore
from vqa_train.store.tags import tag
from vqa_train.store.verify import verify

ERRNOS = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS)
FAILED = 7


class Injector:
    """Counts the steps below `root`; at step number `at` it does what `mode` says."""

    def __init__(self, root: Path, mode: str = "none", at: int = -1) -> None:
        self.root, self.mode, self.at = str(root), mode, at
        self.steps: list[str] = []

    def mine(self, path: Any) -> bool:
        return isinstance(path, str | os.PathLike) and os.fspath(path).startswith(self.root)

    def before(self, op: str, path: Any) -> None:
        number = len(self.steps)
        self.steps.append(f"{op} {kind(Path(os.fspath(path)), Path(self.root))}")
        if number == self.at and self.mode == "kill before":
            os.kill(os.getpid(), signal.SIGKILL)
        code = ERRNOS[self.at % len(ERRNOS)] if self.mode == "error" else errno.EROFS
        if (self.mode == "error" and number == self.at) or (self.mode == "read-only" and number >= self.at):
            raise OSError(code, os.strerror(code), os.fspath(path))

    def after(self) -> None:
        if len(self.steps) - 1 == self.at and self.mode == "kill after":
            os.kill(os.getpid(), signal.SIGKILL)

    def torn(self) -> bool:
        return len(self.steps) - 1 == self.at and self.mode == "kill half way"

    def wrap(self, op: str, real: Callable[..., Any], which: int = 0) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            path = arguments[which]
            if isinstance(path, int):
                path = Path(f"/proc/self/fd/{path}").readlink()
            # Making a folder that is there is no step: nothing is changed, and its error is expected.
            if not self.mine(path) or (op == "mkdir" and Path(path).is_dir()):
                return real(*arguments, **options)
            self.before(op, path)
            # A kill leaves what was written to the system: syncing for real would only cost the test time.
            result = real(*arguments, **options) if op != "fsync" else None
            self.after()
            return result

        return call

    def install(self) -> None:
        for name, op in (("fsync", "fsync"), ("mkdir", "mkdir"), ("unlink", "unlink")):
            setattr(os, name, self.wrap(op, getattr(os, name)))
        os.replace = self.wrap("rename", os.replace, which=1)
        real = io.open

        def opened(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
            if not self.mine(file) or mode.startswith("r"):
                return real(file, mode, *arguments, **options)
            self.before("open", file)
            handle = _Handle(real(file, mode, *arguments, **options), self, file)
            self.after()
            return handle

        io.open = opened


class _Handle:
    """A file whose writes are steps."""

    def __init__(self, real: Any, injector: Injector, path: Any) -> None:
        self._real, self._injector, self._path = real, injector, path

    def write(self, data: bytes) -> int:
        self._injector.before("write", self._path)
        if self._injector.torn():
            self._real.write(data[: len(data) // 2])
            self._real.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        written = self._real.write(data)
        self._real.flush()
        self._injector.after()
        return int(written)

    def __enter__(self) -> _Handle:
        return self

    def __exit__(self, *_: object) -> None:
        self._real.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def kind(path: Path, root: Path) -> str:
    """What a file is: its folder in the feature set and its suffix; temporary names stand for the final ones."""
    name = path.name[1:].rpartition(".")[0].rpartition(".")[0] if path.name.endswith(".tmp") else path.name
    parts = path.relative_to(root).parts
    place = parts[-2] if len(parts) > 2 else "."
    if len(parts) <= 1 or "." not in name:
        return f"{place}/" if parts and "." not in name else f"./{name}"
    return f"{place}/{name}" if name in ("spec.json", "manifest.json") else f"{place}/*{Path(name).suffix}"


def commit(root: Path, report: Callable[[list[str]], None]) -> None:
    """What an extraction does: rows that are lacking, a failure, a snapshot, its provenance."""
    features = FeatureStore(root).create_set(SPEC, license="MIT")
    for start in (0, 4):
        rows = [make_row(n) for n in range(start, start + 4)]
        rows = [row for row in rows if row.key not in features.known_keys()]
        if rows:
            features.append(rows, profile={}, run_id="r")
            report([row.key for row in rows])
        features.snapshot()
    if not features.failures():
        features.add_failures([Failure(key=None, id="x", path="x", reason=Reason.UNREADABLE, message="m")], "r")
    tag(features.folder, "done", features.snapshot()[0], move=True)
    features.write_run({"run_id": "r"})


def merging(root: Path, report: Callable[[list[str]], None]) -> None:
    merge([root.parent.parent / "source"], root)


def repairing(root: Path, report: Callable[[list[str]], None]) -> None:
    repair(root)


def prepare(workload: str, folder: Path) -> None:
    """What the workload starts from, in `folder`/start."""
    start = folder / "start"
    if workload == "merge":
        commit(folder / "source", lambda _: None)
        features = FeatureStore(start).create_set(SPEC, license="MIT")
        features.append([make_row(20)], profile={}, run_id="own")
        features.snapshot()
    elif workload == "repair":
        commit(start, lambda _: None)
        shards = sorted((start / SPEC.set_name / "shards").glob("*.parquet"))
        shards[0].write_bytes(shards[0].read_bytes()[:-1])
        (start / SPEC.set_name / "manifest.json").write_bytes(b"{}")


WORKLOADS = {"commit": commit, "merge": merging, "repair": repairing}


def child(work: Callable[..., None], root: Path, injector: Injector) -> tuple[int, set[str], list[str]]:
    """Run `work` in a fork under `injector`: its wait status, the keys that it reported, the steps that it took."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        os.setpgrp()
        code = 0
        try:
            injector.install()
            work(root, lambda keys: os.write(write, "".join(f"{key}\n" for key in keys).encode()) and None)
        except StoreError as error:
            # One line that says what failed and where.
            code = FAILED if str(root) in str(error) and "\n" not in str(error) else 8
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
            code = 9
        os.write(write, "".join(f"step {step}\n" for step in injector.steps).encode())
        os._exit(code)
    os.close(write)
    with os.fdopen(read) as stream:
        lines = stream.read().splitlines()
    _, status = os.waitpid(pid, 0)
    steps = [line[5:] for line in lines if line.startswith("step ")]
    return status, {line for line in lines if not line.startswith("step ")}, steps


def content(root: Path) -> Any:
    features = FeatureStore.open(root).find("nss")
    return features.read(), [(f.path, f.reason) for f in features.failures()], sum(c.rows for c in features.commits())


def check(work: Callable[..., None], root: Path, reported: set[str], expected: Any, damaged: bool) -> str | None:
    """What is wrong after a fault, None when nothing is."""
    problems = verify(root).problems if (root / "store.json").exists() and not damaged else []
    if problems:
        return f"does not verify: {problems[0]}"
    if reported:
        lost = reported - FeatureStore.open(root).find("nss").known_keys()
        if lost:
            return f"lost {len(lost)} rows that were reported"
    work(root, lambda _: None)
    gc(root, dry_run=False, grace_s=0)
    problems = verify(root).problems
    if problems or gc(root, grace_s=0):
        return f"does not verify after the second run and gc: {problems[:1]}"
    table, failures, rows = content(root)
    if not table.equals(expected[0]) or failures != expected[1]:
        return "ends unequal to an undisturbed store"
    return None if rows == expected[2] else f"has {rows} rows, {rows - expected[2]} of them doubled"


def main(workload: str, folder: Path) -> None:
    work = WORKLOADS[workload]
    os.fsync = lambda _: None
    folder.mkdir(parents=True, exist_ok=True)
    # What is imported and set up on first use is so before the forks, not in each of them.
    commit(folder / "warm", lambda _: None)
    prepare(workload, folder)

    def fresh(name: str) -> Path:
        root = folder / "runs" / name
        root.parent.mkdir(exist_ok=True)
        with suppress(FileNotFoundError):
            shutil.copytree(folder / "start", root)
        return root

    status, _, steps = child(work, fresh("calm"), Injector(folder / "runs" / "calm"))
    if status != 0:
        sys.exit(f"the undisturbed run ended with {status}")
    done = []
    for number, step in enumerate(steps):
        # What is killed after a step is killed before the next one; the last step is followed by nothing.
        modes = ["kill before", "error", "read-only"] + (["kill after"] if step.startswith("rename") else [])
        modes += ["kill half way"] if step.startswith("write") else []
        for mode in modes:
            root = fresh(f"{number} {mode}")
            status, reported, _ = child(work, root, Injector(root, mode, number))
            code = os.waitstatus_to_exitcode(status)
            done.append((step, mode, root, code, reported))
    expected = content(folder / "runs" / "calm")
    for step, mode, root, code, reported in done:
        # An error in a clean-up after an error is the only one that need not be told.
        fine = (-signal.SIGKILL,) if mode.startswith("kill") else (FAILED,)
        problem = None if code in fine else f"ended with {code}"
        problem = problem or check(work, root, reported, expected, damaged=workload == "repair")
        print(json.dumps({"step": step, "mode": mode, "problem": problem}))
        shutil.rmtree(root)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
