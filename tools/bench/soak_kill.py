"""Kills an extraction with SIGKILL at random moments, restarts it each time, and compares the store with an undisturbed one.

Most runs are forked from a process that has imported everything, so that the kills fall into the work and not into
the imports; every 25th is the command as a user types it.

Usage: python tools/bench/soak_kill.py [--kills 500] [--videos 16] [--output docs/benchmarks]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
from machine import describe_machine, markdown_machine
from made_video import write_made_video

from vqa_train.core.files import atomic_write_bytes, atomic_write_json
from vqa_train.datasets.draft import ScanConfig
from vqa_train.datasets.load import load_dataset
from vqa_train.datasets.scan import scan
from vqa_train.store.gc import gc
from vqa_train.store.store import FeatureStore
from vqa_train.store.verify import verify

COLD_EVERY = 25


def make_dataset(root: Path, videos: int) -> Path:
    """A folder of small moving textures, two of them broken, and its manifest."""
    lines = ["id,mos"]
    for i in range(videos):
        path = root / "data" / f"v{i:03d}.mp4"
        write_made_video(path, seconds=1.0, size=(256, 144), seed=i)
        if i % 8 == 7:
            path.write_bytes(path.read_bytes()[: 200 + i])
        lines.append(f"v{i:03d},{1 + i % 4}")
    (root / "data" / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    manifest = root / "data.yaml"
    scan(
        ScanConfig(
            root=root / "data", output=manifest, name="data", license="CC0-1.0", labels=(("labels.csv", None),),
            columns={"id": "id"}, targets={"q": "mos"}, mos_min=1, mos_max=5,
        )
    )  # fmt: skip
    return manifest


def arguments(manifest: Path, store: Path) -> list[str]:
    """One row a shard, so that commits happen all the time."""
    return [
        "extract-features", "--dataset", str(manifest), "--backbone", "nss", "--output", str(store),
        "--shard-rows", "1", "--workers", "2",
    ]  # fmt: skip


class Launcher:
    """Starts the command: cold as a user types it, or warm, forked from a process that has imported everything."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, __file__, "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._line()

    def _line(self, timeout: float | None = None) -> str | None:
        """The next line of the server; None when there is none in time."""
        assert self._server.stdout is not None
        if not select.select([self._server.stdout], [], [], timeout)[0]:
            return None
        line = self._server.stdout.readline()
        if not line:
            sys.exit("the server of warm runs has ended")
        return line

    def run(self, argv: list[str], delay: float | None, *, cold: bool) -> int:
        """The exit code; -9 when it was killed after `delay` seconds."""
        if cold:
            command = [str(Path(sys.executable).parent / "vqa-train"), *argv]
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                return process.wait(timeout=delay)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                return process.wait()
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(argv) + "\n")
        self._server.stdin.flush()
        pid = int(self._line() or 0)
        ended = self._line(delay)
        if ended is None:
            os.kill(pid, signal.SIGKILL)
            ended = self._line()
        return int(ended or 0)

    def close(self) -> None:
        """Let the server end."""
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait()


def serve() -> None:
    """Fork the command for each line of arguments on stdin; its pid, and when it has ended its exit code, to stdout."""
    from vqa_train.cli.main import main as command
    from vqa_train.pipelines.extract import run as extract  # noqa: F401

    import_everything()
    print("ready", flush=True)
    while line := sys.stdin.readline():
        pid = os.fork()
        if pid == 0:
            null = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(null, stream)
            sys.argv = ["vqa-train", *json.loads(line)]
            try:
                command()
                os._exit(0)
            except SystemExit as ended:
                os._exit(int(ended.code or 0))
            except BaseException:
                os._exit(70)
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def import_everything() -> None:
    """What an extraction imports."""
    from vqa_train.backbones.build import build_backbone
    from vqa_train.engines import ENGINES

    build_backbone("nss")
    ENGINES.get("local")


def content(store: Path) -> tuple[pa.Table, dict[str | None, str], int]:
    """Every row, the reason of every failure by key, and how many rows the shards hold."""
    feature_set = FeatureStore.open(store).find("nss")
    failures = {f.key: str(f.reason) for f in feature_set.failures()}
    return feature_set.read(), failures, sum(commit.rows for commit in feature_set.commits())


def soak(root: Path, manifest: Path, kills: int, rng: random.Random) -> dict[str, object]:
    """Kill `kills` times over as many stores as that takes; compare each finished store with the undisturbed one."""
    launcher = Launcher()
    started = time.monotonic()
    if launcher.run(arguments(manifest, root / "undisturbed"), None, cold=False) != 4:
        sys.exit("the undisturbed run should end with exit code 4: some inputs are broken")
    whole = time.monotonic() - started
    expected, expected_failures, expected_held = content(root / "undisturbed")
    inputs = {video.sha256 for video in load_dataset(str(manifest)).videos}
    done, runs, stores, moments, garbage = 0, 0, 0, [], 0
    totals = {"lost": 0, "doubled": 0, "unexplained": 0}
    while done < kills:
        store = root / f"store{stores}"
        while True:
            runs += 1
            cold = runs % COLD_EVERY == 0
            delay = rng.uniform(0.0, whole * (3 if cold else 1)) if done < kills else None
            code = launcher.run(arguments(manifest, store), delay, cold=cold)
            if code != -signal.SIGKILL:
                break
            done += 1
            moments.append(round(delay or 0.0, 3))
        rows, failures, held = content(store)
        keys = set(rows["video_sha256"].to_pylist())
        totals["lost"] += expected.num_rows - rows.num_rows
        totals["doubled"] += held - expected_held
        totals["unexplained"] += len(inputs - keys - set(failures))
        if code != 4 or not rows.equals(expected) or failures != expected_failures or any(totals.values()):
            sys.exit(f"store {stores} differs from the undisturbed one (exit code {code}): {totals}")
        problems = verify(store).problems
        garbage += len(gc(store, dry_run=False, grace_s=0))
        problems += verify(store).problems
        if problems:
            sys.exit(f"store {stores}: {problems[0]}")
        stores += 1
        print(f"{done} kills, {stores} stores finished and equal", flush=True)
    launcher.close()
    return {
        "kills": done, "cold_every": COLD_EVERY, "stores": stores, "inputs": len(inputs), "rows": expected.num_rows,
        "failures": len(expected_failures), **totals, "garbage_files_removed": garbage,
        "undisturbed_s": round(whole, 2), "took_s": round(time.monotonic() - started, 1), "moments_s": moments,
    }  # fmt: skip


def main() -> None:
    """Parse, soak, write docs/benchmarks/kill.md and .json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--videos", type=int, default=16)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks"))
    options = parser.parse_args()
    if options.serve:
        serve()
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        result = soak(root, make_dataset(root, options.videos), options.kills, random.Random(options.seed))
    machine = describe_machine()
    atomic_write_json(options.output / "kill.json", {"schema": "vqa-train/bench-kill/1", "machine": machine, **result})
    text = f"""# kill -9 during an extraction

`python tools/bench/soak_kill.py`: an extraction of {options.videos} videos ({result["failures"]} of them broken), one row a shard, killed with
SIGKILL {result["kills"]} times at moments drawn evenly over the {result["undisturbed_s"]} s that an undisturbed run takes, and started again
each time by the same command. {result["stores"]} stores came to their end this way in {result["took_s"]} s. Runs are forked from a process that has
imported everything, so that the kills fall into the work; every {result["cold_every"]}th is the command as a user types it.

| kills | stores finished | inputs each | rows each | failures each | rows lost | rows doubled | inputs unexplained |
|---|---|---|---|---|---|---|---|
| {result["kills"]} | {result["stores"]} | {result["inputs"]} | {result["rows"]} | {result["failures"]} | {result["lost"]} | {result["doubled"]} | {result["unexplained"]} |

Every finished store equals the undisturbed one: `pyarrow.Table.equals` over every row and column, the same failures by key and
reason, as many rows in its shards, and a clean `store verify` before and after `store gc` ({result["garbage_files_removed"]} files of
unfinished commits and caches removed in all). A run that differs ends the soak.

{markdown_machine(machine)}
"""
    atomic_write_bytes(options.output / "kill.md", text.encode())
    print(json.dumps(result))


if __name__ == "__main__":
    main()
