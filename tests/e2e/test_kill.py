"""kill -9 in the middle of an extraction: the same command goes on, and the store ends as if nothing had happened.

The long form, with 50 kills, is tools/bench/soak_kill.py.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from vqa_train.datasets.draft import ScanConfig
from vqa_train.datasets.scan import scan
from vqa_train.store.store import FeatureStore
from vqa_train.store.verify import verify

KILLS = 4
CODE = "import sys; sys.argv[0] = 'vqa-train'; from vqa_train.cli.main import main; main()"


def start(manifest: Path, store: Path) -> subprocess.Popen[bytes]:
    arguments = ["extract-features", "--dataset", str(manifest), "--backbone", "nss", "--output", str(store)]
    return subprocess.Popen(
        [sys.executable, "-c", CODE, *arguments, "--shard-rows", "1", "--workers", "1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def committed(store: Path) -> int:
    return len(list(store.glob("nss@*/shards/*.json")))


def wait_for_commits(process: subprocess.Popen[bytes], store: Path, count: int) -> None:
    """Until so many shards are committed or the process has ended; polls, since a process cannot be asked."""
    while process.poll() is None and committed(store) < count:
        pass


def make_dataset(root: Path, write_video: Callable[..., Path], count: int = 12) -> Path:
    for i in range(count):
        write_video(root / "data" / f"v{i}.mp4", frames=8, size=(64, 96), seed=i)
    (root / "data" / "v5.mp4").write_bytes(b"")
    labels = "id,mos\n" + "".join(f"v{i},{1 + i % 4}\n" for i in range(count))
    (root / "data" / "labels.csv").write_text(labels, encoding="utf-8")
    scan(
        ScanConfig(
            root=root / "data", output=root / "data.yaml", name="data", license="CC0-1.0",
            labels=(("labels.csv", None),), columns={"id": "id"}, targets={"q": "mos"}, mos_min=1, mos_max=5,
        )
    )  # fmt: skip
    return root / "data.yaml"


def test_killed_and_restarted_extraction_equals_an_undisturbed_one(
    tmp_path: Path, write_video: Callable[..., Path]
) -> None:
    manifest = make_dataset(tmp_path, write_video)
    assert start(manifest, tmp_path / "calm").wait(timeout=300) == 4
    store, rng = tmp_path / "killed", random.Random(1)
    for i in range(KILLS):
        process = start(manifest, store)
        wait_for_commits(process, store, 2 * i + rng.randrange(1, 3))
        process.send_signal(signal.SIGKILL)
        process.wait()
        before = FeatureStore.open(store).find("nss").known_keys()
        assert 0 < len(before) < 11, "the kill should fall between the first and the last commit"
    assert start(manifest, store).wait(timeout=300) == 4
    calm, killed = (FeatureStore.open(tmp_path / name).find("nss") for name in ("calm", "killed"))
    assert killed.read().equals(calm.read())
    assert [(f.key, f.reason) for f in killed.failures()] == [(f.key, f.reason) for f in calm.failures()]
    assert not verify(store).problems
