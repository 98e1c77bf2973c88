"""A full disk, a store that cannot be written, clocks that jump, several writers and readers, processes that die."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from vqa_train.core.errors import Reason
from vqa_train.core.files import locked
from vqa_train.core.hashcache import HashCache
from vqa_train.store import append as append_module
from vqa_train.store.gc import gc
from vqa_train.store.rows import Failure
from vqa_train.store.snapshot import chain
from vqa_train.store.store import FeatureStore
from vqa_train.store.verify import verify

HERE = Path(__file__).parent


def python(code: str, *arguments: object, wrap: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """`code` in a process of its own, beside writer.py."""
    text = f"import sys\nsys.path.insert(0, {str(HERE)!r})\n" + textwrap.dedent(code)
    command = [*wrap, sys.executable, "-c", text, *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def finish(process: subprocess.Popen[str]) -> list[str]:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err + out
    return out.splitlines()


@pytest.fixture
def mounted(tmp_path):
    """`mounted(command)`: a prefix to run with that mounted on `tmp_path`/disk; a skip where forbidden."""

    def make(mount: str) -> tuple[str, ...]:
        (tmp_path / "disk").mkdir(exist_ok=True)
        prefix = ("unshare", "-rm", "sh", "-c", f'{mount} {tmp_path}/disk && exec "$@"', "sh")
        try:
            done = subprocess.run([*prefix, "true"], capture_output=True, check=False)
        except FileNotFoundError:
            pytest.skip("there is no unshare command to mount a small disk with")
        if done.returncode:
            pytest.skip("this user may not mount: " + done.stderr.decode().strip())
        return prefix

    return make


def test_a_full_disk_is_told_in_one_line_and_costs_the_batch_alone(mounted, tmp_path):
    code = """
        from pathlib import Path
        from writer import *
        from vqa_train.store.gc import gc
        from vqa_train.store.verify import verify
        root = Path(sys.argv[1]) / "store"
        features = FeatureStore(root).create_set(SPEC, license="MIT")
        done = failed = 0
        for size in range(10, 2000, 60):
            try:
                append(features, range(done, done + size))
                done += size
            except StoreError as error:
                assert "No space left" in str(error) and str(root) in str(error), error
                failed += 1
                if failed == 3:
                    break
        assert failed == 3, "the disk never filled"
        assert len(features.known_keys()) == done == len(features.read(["view"])), done
        assert verify(root).problems == []
        assert [left.why for left in gc(root, grace_s=0)] == []
        (Path(sys.argv[1]) / "ballast").unlink()
        append(features, range(done, done + size))
        features.snapshot()
        assert verify(root).problems == [] and len(features.known_keys()) == done + size
        print("fine", file=sys.stderr)
    """
    wrap = mounted("mount -t tmpfs -o size=400k tmpfs")
    wrap = (
        *wrap[:-2],
        wrap[-2].replace("exec", f"head -c 150000 /dev/zero > {tmp_path}/disk/ballast && exec"),
        wrap[-1],
    )
    process = python(code, tmp_path / "disk", wrap=wrap)
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err.strip().splitlines()[-1:]) == (0, ["fine"]), err


def test_a_read_only_store_is_read_and_verified_and_refuses_writers(mounted, tmp_path, spec, make_row):
    root = tmp_path / "disk" / "store"
    root.parent.mkdir()
    features = FeatureStore(root).create_set(spec, license="MIT")
    features.append([make_row(spec, n) for n in range(3)], profile={}, run_id="r")
    features.snapshot()
    code = """
        from pathlib import Path
        from vqa_train.core.errors import StoreError
        from vqa_train.store.rows import Failure
        from vqa_train.core.errors import Reason
        from vqa_train.store.store import FeatureStore
        from vqa_train.store.tags import tag
        from vqa_train.store.verify import verify
        from vqa_train.store.gc import gc
        root = Path(sys.argv[1])
        features = FeatureStore.open(root).find("nss")
        assert verify(root).problems == []
        table = features.read()
        assert len(table) == 3 and gc(root, grace_s=0) == []
        sha256, _ = features.snapshot()  # nothing has changed, nothing is to be written
        failure = Failure(key=None, id="x", path="x", reason=Reason.TIMEOUT, message="m")
        for write in (
            lambda: tag(features.folder, "x", sha256),
            lambda: features.add_failures([failure], "r"),
            lambda: features.write_run({"run_id": "r"}),
        ):
            try:
                write()
            except StoreError as error:
                assert "Read-only file system" in str(error), error
            else:
                raise AssertionError("it was written")
    """
    finish(
        python(code, root, wrap=mounted(f"mount --bind {tmp_path}/disk {tmp_path}/disk && mount -o remount,ro,bind"))
    )


@pytest.mark.parametrize("jump_s", [-40 * 365 * 86_400, -3600, 3600, 40 * 365 * 86_400])
def test_a_clock_that_jumps_changes_no_row_and_no_chain(root, features, make_row, monkeypatch, jump_s):
    features.append([make_row(features.spec, 1)], profile={}, run_id="r")
    features.snapshot()
    real = time.time

    class Jumped(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.fromtimestamp(real() + jump_s, tz or UTC)

    monkeypatch.setattr(append_module, "datetime", Jumped)
    monkeypatch.setattr(time, "time", lambda: real() + jump_s)
    features.append([make_row(features.spec, n) for n in (1, 2)], profile={}, run_id="r")
    features.snapshot()
    monkeypatch.undo()
    features.append([make_row(features.spec, 3)], profile={}, run_id="r")
    features.snapshot()
    assert [record.rows for _, record in chain(features.folder)] == [4, 3, 1]
    assert features.known_keys(views=1) == {make_row(features.spec, n).key for n in (1, 2, 3)}
    assert verify(root).problems == []
    assert gc(root) == []


def test_a_leftover_from_the_future_stays_until_its_time_comes(root, features, make_row):
    features.append([make_row(features.spec, 1)], profile={}, run_id="r")
    orphan = features.folder / "shards" / "11111111-1111-4111-8111-111111111111.parquet"
    orphan.touch()
    os.utime(orphan, (time.time() + 86_400,) * 2)
    assert gc(root, dry_run=False) == []
    assert gc(root, dry_run=False, grace_s=0) == []
    os.utime(orphan, (time.time() - 7200,) * 2)
    assert [leftover.path for leftover in gc(root, dry_run=False)] == [orphan]


@pytest.mark.parametrize("writers", [2, 8])
def test_writers_at_once_lose_nothing_and_a_reader_meanwhile_sees_whole_rows_only(tmp_path, writers):
    root = tmp_path / "store"
    code = """
        from pathlib import Path
        from writer import *
        import time
        root, seen, deadline = Path(sys.argv[1]), 0, time.monotonic() + 100
        print("ready", flush=True)
        while time.monotonic() < deadline:
            stop = Path(sys.argv[2]).exists()
            if (root / SPEC.set_name / "spec.json").exists():
                features = FeatureStore.open(root).find("nss")
                rows = features.read().to_pylist()
                assert len(rows) >= seen, "rows went away"
                seen = len(rows)
                for row in rows:
                    number = row["num_frames"]
                    assert row["pooled"] == [number, number + 1, number + 2, number + 3], row
                    assert row["video_sha256"] == make_row(number).key
            if stop:
                break
        print(seen)
    """
    reader = python(code, root, tmp_path / "stop")
    assert reader.stdout is not None and reader.stdout.readline() == "ready\n"
    command = [sys.executable, HERE / "writer.py", "together", root, str(writers)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    (tmp_path / "stop").touch()
    assert done.returncode == 0, done.stderr + done.stdout
    assert int(finish(reader)[-1]) == writers * 20 + 20
    features = FeatureStore.open(root).find("nss")
    assert features.known_keys() == set(done.stdout.split())
    assert verify(root).problems == []


def killed_while(code: str, *arguments: object) -> None:
    """Run `code` until it prints `holding`, then SIGKILL it."""
    process = python(code, *arguments)
    assert process.stdout is not None and process.stdout.readline() == "holding\n", process.communicate()[1]
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def test_a_process_that_died_with_the_hash_cache_locked_holds_nobody_up(tmp_path, features, make_row):
    path, victim = tmp_path / "hashes.sqlite3", tmp_path / "f"
    victim.write_bytes(b"x")
    os.utime(victim, (0, 0))
    with HashCache(path) as cache:
        cache.sha256(victim)
    code = """
        import sqlite3
        connection = sqlite3.connect(sys.argv[1], isolation_level=None)
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("DELETE FROM files")
        print("holding", flush=True)
        sys.stdin.read()
    """
    killed_while(code, path)
    assert HashCache(path).cached(victim) is not None, "what the dead process had not committed was rolled back"
    with HashCache(path) as cache:
        cache.remember(victim, "0" * 64)
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM files").fetchall() == [(1,)]
    connection.close()


def test_a_process_that_died_holding_a_lock_file_has_released_it(tmp_path):
    code = """
        from pathlib import Path
        from vqa_train.core.files import locked
        with locked(Path(sys.argv[1])):
            print("holding", flush=True)
            sys.stdin.read()
    """
    killed_while(code, tmp_path / "lock")
    with locked(tmp_path / "lock"):
        pass


def test_a_writer_that_died_with_a_temporary_file_open_leaves_garbage_alone(root, features, make_row):
    code = """
        from pathlib import Path
        from vqa_train.core.files import atomic_write
        def write(handle):
            handle.write(b"half")
            handle.flush()
            print("holding", flush=True)
            sys.stdin.read()
        atomic_write(Path(sys.argv[1]), write)
    """
    features.append([make_row(features.spec, 1)], profile={}, run_id="r")
    killed_while(code, features.folder / "shards" / "x.parquet")
    assert verify(root).problems == []
    (leftover,) = gc(root, grace_s=0, dry_run=False)
    assert (leftover.why, leftover.bytes) == ("temporary file", 4)
    features.add_failures([Failure(key=None, id="x", path="x", reason=Reason.TIMEOUT, message="m")], "r")
    assert verify(root).problems == []
