"""Extraction from S3 to S3 through a faulty network, and kill -9 between shard and commit: the rows of a local run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vqa_train.core.locations import location
from vqa_train.datasets.draft import ScanConfig
from vqa_train.datasets.scan import scan
from vqa_train.datasets.verify import verify as verify_dataset
from vqa_train.pipelines.extract.config import ExtractConfig
from vqa_train.pipelines.extract.run import extract_features
from vqa_train.store import filesystem
from vqa_train.store.gc import gc
from vqa_train.store.store import FeatureStore
from vqa_train.store.verify import verify

CODE = "import sys; sys.argv[0] = 'vqa-train'; from vqa_train.cli.main import main; main()"
STORE, DATA = "s3://bucket/features", "s3://bucket/data/videos"
COUNT = 8


@pytest.fixture
def dataset(tmp_path: Path, write_video: Callable[..., Path], s3: Any) -> Path:
    """Videos on disk and, the same, in the bucket; one of them is empty. The manifest was scanned in the bucket."""
    for i in range(COUNT):
        write_video(tmp_path / "data" / f"v{i}.mp4", frames=8, size=(64, 96), seed=i)
    (tmp_path / "data" / "v5.mp4").write_bytes(b"")
    labels = "id,mos\n" + "".join(f"v{i},{1 + i % 4}\n" for i in range(COUNT))
    (tmp_path / "data" / "labels.csv").write_text(labels, encoding="utf-8")
    for path in (tmp_path / "data").iterdir():
        assert s3.request("PUT", f"/bucket/data/videos/{path.name}", path.read_bytes())[0] == 200
    manifests = []
    for name, root in (("local", tmp_path / "data"), ("remote", location(DATA))):
        output = tmp_path / f"{name}.yaml"
        config = ScanConfig(
            root=root, output=output, name="data", license="CC0-1.0", labels=(("labels.csv", None),),
            columns={"id": "id"}, targets={"q": "mos"}, mos_min=1, mos_max=5,
        )  # fmt: skip
        manifest, report = scan(config)
        assert report.files == COUNT and not report.failed
        manifests.append(manifest.files)
    assert manifests[0].model_dump(exclude={"table"}) == manifests[1].model_dump(exclude={"table"})
    return tmp_path / "remote.yaml"


@pytest.fixture
def undisturbed(dataset: Path, tmp_path: Path) -> Any:
    """The features of a run on local disks."""
    config = ExtractConfig(
        dataset=str(dataset), data_root=tmp_path / "data", output=tmp_path / "local", backbones=("nss",), workers=1
    )
    assert extract_features(config).exit_code == 4
    return FeatureStore.open(tmp_path / "local").find("nss")


def start(manifest: Path) -> subprocess.Popen[bytes]:
    arguments = ["extract-features", "--dataset", str(manifest), "--data-root", DATA, "--backbone", "nss"]
    return subprocess.Popen(
        [sys.executable, "-c", CODE, *arguments, "--output", STORE, "--shard-rows", "2", "--workers", "2"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def check_same(undisturbed: Any) -> None:
    found = FeatureStore.open(location(STORE)).find("nss")
    assert found.read().equals(undisturbed.read())
    assert [(f.path, f.reason) for f in found.failures()] == [(f.path, f.reason) for f in undisturbed.failures()]
    assert sum(commit.rows for commit in found.commits()) == COUNT - 1, "no row twice"
    report = verify(location(STORE))
    assert report.ok, report.problems


def test_extraction_through_a_faulty_network_killed_and_restarted_equals_a_local_one(
    dataset: Path, undisturbed: Any, s3_proxy: Any, own_cache: Path
) -> None:
    running: list[subprocess.Popen[bytes]] = []
    commits: list[str] = []

    def kill_at_the_second_commit(method: str, path: str) -> str | None:
        if method == "PUT" and "/shards/" in path and path.endswith(".json"):
            commits.append(path)
            if len(commits) == 2:
                running[0].send_signal(signal.SIGKILL)
                running[0].wait()
                return "reset"
        return None

    s3_proxy.watch = kill_at_the_second_commit
    running.append(start(dataset))
    running[0].communicate()
    assert running[0].returncode == -signal.SIGKILL
    left = verify(location(STORE))
    assert left.ok and left.shards == 1, left.problems
    s3_proxy.rate = 0.15
    again = start(dataset)
    errors = again.communicate()[1].decode()
    assert again.returncode == 4, errors
    assert sum(s3_proxy.met.values()) > 5
    s3_proxy.rate = 0.0
    check_same(undisturbed)
    stray = gc(location(STORE), grace_s=0)
    assert [leftover.why for leftover in stray if leftover.path.suffix == ".parquet"] == ["shard without a commit"]
    assert not [path for path in (own_cache / "spool").iterdir() if path.name != ".lock"]
    for folder in ("shards", "runs", "failures"):
        place = FeatureStore.open(location(STORE)).find("nss").folder / folder
        for name in filesystem.names(place):
            assert os.environ["AWS_SECRET_ACCESS_KEY"].encode() not in filesystem.read(place / name, "object")


def test_verify_names_what_changed_in_the_bucket(dataset: Path, s3: Any) -> None:
    from vqa_train.datasets.manifest import read_manifest

    manifest = read_manifest(dataset)[0]
    assert verify_dataset(manifest, dataset.parent, location(DATA)).ok
    s3.request("DELETE", "/bucket/data/videos/v1.mp4")
    s3.request("PUT", "/bucket/data/videos/v2.mp4", b"other")
    s3.request("PUT", "/bucket/data/videos/new/v9.mp4", b"more")
    report = verify_dataset(manifest, dataset.parent, location(DATA))
    assert report.missing == ["v1.mp4"]
    assert [change["path"] for change in report.changed] == ["v2.mp4"]
    assert report.unlisted == ["new/v9.mp4"]
