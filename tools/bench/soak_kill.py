"""Kills an extraction with SIGKILL at random moments, restarts it each time, and compares the store with an undisturbed one.

Usage: python tools/bench/soak_kill.py [--kills 50] [--videos 30] [--json docs/benchmarks/kill.json]
"""

from __future__ import annotations

import argparse
import json
import random
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
from vqa_train.datasets.scan import scan
from vqa_train.store.gc import gc
from vqa_train.store.store import FeatureStore
from vqa_train.store.verify import verify


def make_dataset(root: Path, videos: int) -> Path:
    """A folder of small moving textures, two of them broken, and its manifest."""
    lines = ["id,mos"]
    for i in range(videos):
        path = root / "data" / f"v{i:03d}.mp4"
        write_made_video(path, seconds=1.0, size=(256, 144), seed=i)
        if i % 15 == 7:
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


def start(manifest: Path, store: Path) -> subprocess.Popen[bytes]:
    """The command as a user types it, one row a shard so that commits happen all the time."""
    command = [
        str(Path(sys.executable).parent / "vqa-train"), "extract-features", "--dataset", str(manifest),
        "--backbone", "nss", "--output", str(store), "--shard-rows", "1", "--workers", "2",
    ]  # fmt: skip
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def content(store: Path) -> tuple[pa.Table, dict[str | None, str]]:
    """Every row, and the reason of every failure by key."""
    feature_set = FeatureStore.open(store).find("nss")
    return feature_set.read(), {f.key: str(f.reason) for f in feature_set.failures()}


def soak(root: Path, manifest: Path, kills: int, rng: random.Random) -> dict[str, object]:
    """Kill `kills` times over as many stores as that takes; compare each finished store with the undisturbed one."""
    started = time.monotonic()
    if start(manifest, root / "undisturbed").wait() != 4:
        sys.exit("the undisturbed run should end with exit code 4: two inputs are broken")
    whole = time.monotonic() - started
    expected_rows, expected_failures = content(root / "undisturbed")
    done, stores, moments, garbage = 0, 0, [], 0
    while done < kills:
        store = root / f"store{stores}"
        while True:
            process = start(manifest, store)
            if done >= kills:
                code = process.wait()
                break
            delay = rng.uniform(0.0, whole)
            try:
                code = process.wait(timeout=delay)
                break
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                done += 1
                moments.append(round(delay, 3))
        rows, failures = content(store)
        if code != 4 or not rows.equals(expected_rows) or failures != expected_failures:
            sys.exit(f"store {stores} differs from the undisturbed one (exit code {code})")
        garbage += len(gc(store, dry_run=False, grace_s=0))
        problems = verify(store).problems
        if problems:
            sys.exit(f"store {stores}: {problems[0]}")
        stores += 1
        print(f"{done} kills, {stores} stores finished and equal", flush=True)
    return {
        "kills": done, "stores": stores, "rows": expected_rows.num_rows, "failures": len(expected_failures),
        "lost": 0, "doubled": 0, "garbage_files_removed": garbage,
        "undisturbed_s": round(whole, 2), "moments_s": moments,
    }  # fmt: skip


def main() -> None:
    """Parse, soak, write docs/benchmarks/kill.md and .json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--videos", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        result = soak(root, make_dataset(root, options.videos), options.kills, random.Random(options.seed))
    machine = describe_machine()
    atomic_write_json(options.output / "kill.json", {"schema": "vqa-train/bench-kill/1", "machine": machine, **result})
    text = f"""# kill -9 during an extraction

`python tools/bench/soak_kill.py`: an extraction of {options.videos} videos (two of them broken), one row a shard, killed with
SIGKILL {result["kills"]} times at moments drawn evenly over the {result["undisturbed_s"]} s that an undisturbed run takes, and started again
each time by the same command. {result["stores"]} stores came to their end this way.

| kills | stores finished | rows each | failures each | rows lost | rows doubled | stores unequal to the undisturbed one |
|---|---|---|---|---|---|---|
| {result["kills"]} | {result["stores"]} | {result["rows"]} | {result["failures"]} | 0 | 0 | 0 |

"Equal" is `pyarrow.Table.equals` over every row and column, the same failures by key and reason, and a clean `store verify` after
`store gc` ({result["garbage_files_removed"]} files of unfinished commits removed in all).

{markdown_machine(machine)}
"""
    atomic_write_bytes(options.output / "kill.md", text.encode())
    print(json.dumps(result))


if __name__ == "__main__":
    main()
