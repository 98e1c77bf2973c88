"""Ctrl-C and SIGTERM on a real extraction: once finishes what is under way, twice stops it; both go on later."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import av
import numpy as np
import psutil
import pyarrow as pa
import pytest

from vqa_train.core.hashing import sha256_file
from vqa_train.datasets.draft import ScanConfig
from vqa_train.datasets.scan import scan
from vqa_train.store.store import FeatureStore
from vqa_train.store.verify import verify

CODE = "import sys; sys.argv[0] = 'vqa-train'; from vqa_train.cli.main import main; main()"
VIDEOS = 10
DECODER = """
    from pathlib import Path
    from vqa_train.video.pyav import PyavDecoder

    class Gated(PyavDecoder):
        name = "gated"

        def read(self, path, info, indices, threads, out=None):
            gate = path.parent.parent
            if path.name == "v4.mp4":
                (gate / "at the gate").touch()
                while not (gate / "open").exists():
                    pass
            return super().read(path, info, indices, threads, out)
"""


class Extraction:
    """A dataset, and a decoder that stays at one of its videos for as long as the gate is closed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "data").mkdir()
        for i in range(VIDEOS):
            rng = np.random.default_rng(i)
            with av.open(str(root / "data" / f"v{i}.mp4"), "w") as container:
                stream = container.add_stream("mpeg4", rate=12)
                stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
                for _ in range(8):
                    picture = np.kron(rng.integers(0, 255, (8, 12, 3)), np.ones((8, 8, 1))).astype(np.uint8)
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
                container.mux(stream.encode())
        labels = "id,mos\n" + "".join(f"v{i},3\n" for i in range(VIDEOS))
        (root / "data" / "labels.csv").write_text(labels, encoding="utf-8")
        scan(
            ScanConfig(
                root=root / "data", output=root / "data.yaml", name="data", license="CC0-1.0",
                labels=(("labels.csv", None),), columns={"id": "id"}, targets={"q": "mos"}, mos_min=1, mos_max=5,
            )
        )  # fmt: skip
        info = root / "site" / "gated-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: gated\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[vqa_train.decoders]\ngated = gated:Gated\n")
        (root / "site" / "gated.py").write_text(dedent(DECODER))

    def open_gate(self) -> None:
        (self.root / "open").touch()

    def start(self, store: Path) -> subprocess.Popen[str]:
        command = [
            sys.executable, "-c", CODE, "extract-features", "--dataset", str(self.root / "data.yaml"),
            "--backbone", "nss", "--output", str(store), "--decoder", "gated", "--workers", "1", "--shard-rows", "100",
            "--json", "-",
        ]  # fmt: skip
        paths = [str(self.root / "site"), *(path for path in sys.path if path)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)

    def start_up_to_the_gate(self, store: Path) -> tuple[subprocess.Popen[str], psutil.Process]:
        """The running command, and its worker, which holds at the gate."""
        for name in ("open", "at the gate"):
            (self.root / name).unlink(missing_ok=True)
        process = self.start(store)
        while not (self.root / "at the gate").exists():
            assert process.poll() is None, process.communicate()[1]
        [worker] = psutil.Process(process.pid).children()
        return process, worker

    def finish(self, store: Path) -> str:
        """Run the command to its end with the gate open; what it said on stderr."""
        self.open_gate()
        process = self.start(store)
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
        return said


@pytest.fixture(scope="module")
def extraction(tmp_path_factory: pytest.TempPathFactory) -> Extraction:
    return Extraction(tmp_path_factory.mktemp("interrupt"))


@pytest.fixture(scope="module")
def undisturbed(extraction: Extraction) -> pa.Table:
    extraction.finish(extraction.root / "undisturbed")
    return content(extraction.root / "undisturbed")


def content(store: Path) -> pa.Table:
    return FeatureStore.open(store).find("nss").read()


def line_of(process: subprocess.Popen[str], beginning: str) -> str:
    """The next line on stderr that begins so."""
    assert process.stderr is not None
    return next(line for line in process.stderr if line.startswith(beginning))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_once_finishes_the_videos_under_way(
    extraction: Extraction, undisturbed: pa.Table, tmp_path: Path, number: signal.Signals
) -> None:
    store = tmp_path / "store"
    process, worker = extraction.start_up_to_the_gate(store)
    # As a scheduler does it, to every process of the job; a terminal's Ctrl-C does not get to the worker.
    worker.send_signal(number)
    process.send_signal(number)
    line_of(process, "stopping:")
    extraction.open_gate()
    printed, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    done = content(store)
    # Behind the video at the gate, one more waits in the worker's socket.
    assert 5 <= len(done) <= 6
    assert sha256_file(extraction.root / "data" / "v4.mp4") in done["video_sha256"].to_pylist()
    report = json.loads(printed)
    assert report["interrupted"]
    assert (report["sets"][0]["done"], report["sets"][0]["left"]) == (len(done), VIDEOS - len(done))
    assert not verify(store).problems
    assert not FeatureStore.open(store).find("nss").failures()
    assert f"{VIDEOS - len(done)} to decode" in extraction.finish(store)
    assert content(store).equals(undisturbed)
    assert not verify(store).problems


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_twice_stops_now(extraction: Extraction, undisturbed: pa.Table, tmp_path: Path, number: signal.Signals) -> None:
    store = tmp_path / "store"
    process, worker = extraction.start_up_to_the_gate(store)
    process.send_signal(number)
    line_of(process, "stopping:")
    # The gate stays closed: nothing but the second signal ends this. A SIGTERM counts again only after a second.
    while process.poll() is None:
        process.send_signal(number)
        try:
            process.wait(1.5)
        except subprocess.TimeoutExpired:
            assert number is signal.SIGTERM
    process.communicate()
    assert process.returncode == 130
    gone, alive = psutil.wait_procs([worker], timeout=30)
    assert (gone, alive) == ([worker], [])
    done = len(content(store))
    assert done <= 4
    assert not verify(store).problems
    assert f"{VIDEOS - done} to decode" in extraction.finish(store)
    assert content(store).equals(undisturbed)
    assert not verify(store).problems
