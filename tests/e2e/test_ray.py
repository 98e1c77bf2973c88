"""A Ray cluster of several machines, one of which is lost: the run ends, and the store is that of a calm local run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from vqa_train.datasets.draft import ScanConfig
from vqa_train.datasets.scan import scan
from vqa_train.pipelines.extract.run import ExtractConfig, ExtractReport, extract_features
from vqa_train.pipelines.extract.shards import Shard
from vqa_train.pipelines.extract.status import status
from vqa_train.store.store import FeatureStore
from vqa_train.store.verify import verify

COUNT = 12
# What Ray's own modules warn of is theirs to mend.
pytestmark = [pytest.mark.filterwarnings("ignore:::ray"), pytest.mark.xdist_group("ray")]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head that computes nothing and two machines of one CPU each, all on this one."""
    pytest.importorskip("ray", reason="ray is not installed (extra `ray`)")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    from ray.cluster_utils import Cluster

    from vqa_train.engines.ray_cluster import connected

    if ray.is_initialized():
        ray.shutdown()
    # A lost machine is noticed within seconds instead of half a minute.
    health = {
        "health_check_initial_delay_ms": 0,
        "health_check_period_ms": 1000,
        "health_check_timeout_ms": 1000,
        "health_check_failure_threshold": 3,
    }
    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 100 << 20, "_system_config": health}
    made = Cluster(initialize_head=True, head_node_args=head)
    made.add_node(num_cpus=1, object_store_memory=100 << 20)
    made.add_node(num_cpus=1, object_store_memory=100 << 20)
    monkeypatch.setenv("RAY_ADDRESS", made.address)
    with connected():
        yield made
    made.shutdown()


def make_dataset(root: Path, write_video: Callable[..., Path]) -> Path:
    for i in range(COUNT):
        write_video(root / "data" / f"v{i}.mp4", frames=8, size=(64, 96), seed=i)
    (root / "data" / "v5.mp4").write_bytes(b"no video at all")
    labels = "id,mos\n" + "".join(f"v{i},{1 + i % 4}\n" for i in range(COUNT))
    (root / "data" / "labels.csv").write_text(labels, encoding="utf-8")
    scan(
        ScanConfig(
            root=root / "data", output=root / "data.yaml", name="data", license="CC0-1.0",
            labels=(("labels.csv", None),), columns={"id": "id"}, targets={"q": "mos"}, mos_min=1, mos_max=5,
        )
    )  # fmt: skip
    return root / "data.yaml"


def run(manifest: Path, store: Path, **given: Any) -> ExtractReport:
    settings = {"backbones": ("nss",), "workers": 1, "shard_rows": 2, "device": "cpu", **given}
    return extract_features(ExtractConfig(dataset=str(manifest), output=store, **settings))


def test_a_machine_that_is_lost_midway_costs_nothing(
    cluster: Any, tmp_path: Path, write_video: Callable[..., Path]
) -> None:
    manifest = make_dataset(tmp_path, write_video)
    run(manifest, tmp_path / "calm")
    store, reports = tmp_path / "store", []
    # A share of the videos was done by a local run before; the cluster does the rest.
    before = run(manifest, store, shard=Shard(0, 4)).sets[0].done
    thread = threading.Thread(target=lambda: reports.append(run(manifest, store, engine="ray")))
    thread.start()
    shards = before
    while thread.is_alive() and shards < before + 1:
        shards = len(list(store.glob("nss@*/shards/*.json")))
    cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)
    thread.join()
    (report,) = reports
    counts = report.sets[0]
    assert (counts.known, counts.done, dict(counts.failed)) == (before, COUNT - 1 - before, {"decode_error": 1})
    assert report.exit_code == 4
    calm, found = (FeatureStore.open(tmp_path / name).find("nss") for name in ("calm", "store"))
    assert found.read().equals(calm.read())
    assert [(f.key, f.path, f.reason) for f in found.failures()] == [(f.key, f.path, f.reason) for f in calm.failures()]
    assert not verify(store).problems
    first, last = status(store)["runs"]
    assert first["engine"] == "local"
    assert (last["state"], last["engine"], last["finished"], last["left"]) == ("ended", "ray", COUNT - before, 0)
    assert sum(sum(worker.values()) for worker in last["workers"].values()) == COUNT - before
