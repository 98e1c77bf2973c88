"""Fixtures for every test: shared real data (or a skip that says why), an own cache folder, small made videos."""

from __future__ import annotations

import importlib.util
import os
import sys

# Before torch is loaded: with idle OpenMP threads that spin, two test processes on two cores hold each other up.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any

import av
import numpy as np
import pytest

from vqa_train import video
from vqa_train.core.plugins import Registry

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session", autouse=True)
def no_users_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fixtures that are made before any test's own cache must not find, or fill, that of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VQA_TRAIN_CACHE", str(tmp_path_factory.mktemp("session_cache")))
        patch.delenv("VQA_TRAIN_WEIGHTS", raising=False)
        yield


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Hash and model caches of a test live in its own temporary folder."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("VQA_TRAIN_CACHE", str(folder))
    return folder


@pytest.fixture(autouse=True)
def ordinary_scheduling() -> Iterator[None]:
    """SVT-AV1, when root encodes with it, makes the calling process a real-time one for good; later tests must not
    run like that."""
    yield
    if hasattr(os, "sched_setscheduler") and os.sched_getscheduler(0) != os.SCHED_OTHER:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@pytest.fixture(scope="session")
def documents() -> ModuleType:
    """tests/documents.py; skipped where jsonschema is not installed."""
    pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    return _beside("documents")


@pytest.fixture(scope="session", autouse=True)
def document_watch() -> Iterator[Any]:
    """Looks at every document that the package writes; None where jsonschema is not installed."""
    if importlib.util.find_spec("jsonschema") is None:
        yield None
        return
    keep = os.environ.get("VQA_KEEP_DOCUMENTS")
    watch = _beside("documents").Watch(Path(keep) if keep else None)
    with watch.watching():
        yield watch


@pytest.fixture(autouse=True)
def documents_follow_their_schemas(document_watch: Any) -> Iterator[None]:
    """What the package wrote in a test (or in the fixtures made for it) is as docs/formats/schemas says."""
    if document_watch is None:
        yield
        return
    document_watch.begin()
    yield
    wrong = document_watch.end()
    mend = "mend the code or docs/formats/schemas (`python tools/schemas.py` for what follows from a class)"
    assert not wrong, f"documents that break their JSON Schema; {mend}:\n" + "\n".join(wrong[:10])


@pytest.fixture
def broken_documents(document_watch: Any) -> None:
    """For a test that has the package write what is broken."""
    if document_watch is not None:
        document_watch.paused = True


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real clips and features beside the checkout; the test is skipped where it is absent."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("../shared (real clips and features) is not beside this checkout")
    return folder


def moving_frames(count: int, height: int, width: int, seed: int = 0) -> Iterable[np.ndarray]:
    """RGB uint8 (H, W, 3) frames of a textured scene that pans one pixel a frame."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (height // 8 + 2, (width + count) // 8 + 2, 3))
    texture = np.kron(coarse, np.ones((8, 8, 1)))[:height, : width + count]
    texture = np.clip(texture + rng.normal(0, 6, texture.shape), 0, 255).astype(np.uint8)
    for i in range(count):
        yield np.ascontiguousarray(texture[:, i : i + width])


@pytest.fixture
def write_video() -> Callable[..., Path]:
    """Writes a moving texture; `size` is (height, width), `options` the encoder's, `seed` changes the texture."""

    def write(
        path: Path,
        *,
        frames: int = 24,
        size: tuple[int, int] = (96, 128),
        fps: int = 24,
        codec: str = "libx264",
        pix_fmt: str = "yuv420p",
        options: dict[str, str] | None = None,
        seed: int = 0,
    ) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=Fraction(fps), options=options or {"crf": "18", "g": "12"})
            stream.height, stream.width = size
            stream.pix_fmt = pix_fmt
            for array in moving_frames(frames, *size, seed=seed):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
            container.mux(stream.encode())
        return path

    return write


@pytest.fixture(scope="session")
def s3_module() -> ModuleType:
    """tests/s3_server.py; skipped where its packages are not installed."""
    for package in ("moto.server", "s3fs"):
        pytest.importorskip(package, reason=f"{package.partition('.')[0]} is not installed")
    return _beside("s3_server")


def _beside(name: str) -> ModuleType:
    """The module in a file beside this one."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def s3_running(s3_module: ModuleType) -> Iterator[Any]:
    """One S3 server for the session."""
    server = s3_module.Server()
    yield server
    server.close()


@pytest.fixture
def s3(s3_running: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The S3 server with one empty bucket, `bucket`, and the environment that leads s3fs to it."""
    s3_running.empty_bucket("bucket")
    for name, value in {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "never-to-be-written-down",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": s3_running.url,
        "AWS_EC2_METADATA_DISABLED": "true",
        "VQA_TRAIN_RETRY_SECONDS": "60",
    }.items():
        monkeypatch.setenv(name, value)
    _forget_connections()
    return s3_running


def _forget_connections() -> None:
    """fsspec keeps filesystems, and with them the endpoint that the environment named when they were made."""
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def s3_proxy(s3: Any, s3_module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """`s3` behind a proxy that injects faults once its `rate` is set."""
    proxy = s3_module.Proxy(s3)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    _forget_connections()
    yield proxy
    proxy.close()


@pytest.fixture
def hostile_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a decoder, installed as a third party would, that does to its process what the file's name says."""
    folder = tmp_path / "site"
    info = folder / "hostile-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: hostile\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[vqa_train.decoders]\nhostile = hostile:Hostile\n")
    (folder / "hostile.py").write_text(
        dedent(
            """
            import ctypes, os, signal, sys, time
            from multiprocessing.connection import Connection
            from vqa_train.video.pyav import PyavDecoder

            class Hostile(PyavDecoder):
                name = "hostile"

                def read(self, path, info, indices, threads, out=None):
                    deed = path.stem
                    if deed.startswith("once_"):
                        # Does it the first time; says which process it was.
                        seen = path.with_suffix(".seen")
                        first = not seen.exists()
                        with seen.open("a") as file:
                            print(os.getpid(), time.monotonic(), file=file)
                        deed = deed.removeprefix("once_") if first else "nothing"
                    if deed == "killed":
                        os.kill(os.getpid(), signal.SIGKILL)
                    if deed == "interrupted":
                        os.kill(os.getpid(), signal.SIGINT)
                        os.kill(os.getpid(), signal.SIGTERM)
                    if deed.startswith("say"):
                        path.with_suffix(".said").write_text(f"{os.getpid()} {time.monotonic()}")
                    if deed == "segv":
                        os.kill(os.getpid(), signal.SIGSEGV)
                    if deed == "garble":
                        # What a process with a corrupt memory might send to its parent.
                        Connection(int(sys.argv[1])).send_bytes(b'{"event": "do')
                        signal.pause()
                    if deed.startswith("lie"):
                        # What one that a hostile file has taken over might: the right form, other contents.
                        lie = path.with_suffix(".lie").read_bytes()
                        Connection(int(sys.argv[1])).send_bytes(lie)
                        signal.pause()
                    if deed == "exit":
                        sys.exit(7)
                    if deed == "bug":
                        raise IndexError("list index\\nout of range")
                    if deed == "hang":
                        while True:
                            pass
                    if deed == "hang_holding_the_lock":
                        ctypes.PyDLL(None).pause()
                    if deed == "hoard":
                        hoard = []
                        while True:
                            hoard.append(bytearray(1 << 24))
                    return super().read(path, info, indices, threads, out)
            """
        )
    )
    monkeypatch.syspath_prepend(str(folder))
    # A registry remembers its entry points; this one has not looked yet.
    monkeypatch.setattr(video, "DECODERS", Registry("decoder", {"pyav": "vqa_train.video.pyav:PyavDecoder"}))
    yield "hostile"
    sys.modules.pop("hostile", None)


@pytest.fixture(scope="session")
def tiny_registry_made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """tests/registry/tiny_registry.py: small registered models, made once."""
    path = Path(__file__).parent / "registry" / "tiny_registry.py"
    spec = importlib.util.spec_from_file_location("tiny_registry", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.build(tmp_path_factory.mktemp("tiny_registry"))


@pytest.fixture
def tiny_registry(tiny_registry_made: Any, own_cache: Path, tmp_path: Path) -> Any:
    """A copy of them for one test: `root`, and the cache that this test uses."""
    return tiny_registry_made.copy(tmp_path)
