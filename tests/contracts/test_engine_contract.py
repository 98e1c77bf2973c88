"""What every engine must do: one result per task, the same rows as a plain loop, failures where they belong."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from vqa_train.core.errors import DeviceError, MediaError, Reason, StoreError
from vqa_train.core.hashing import sha256_file
from vqa_train.core.types import Clip, FeatureSpec, OutputSpec, Sampling
from vqa_train.engines import ENGINES
from vqa_train.engines.base import Built, EngineOptions, Extractor, TaskResult, VideoTask
from vqa_train.store.rows import Failure, FeatureRow
from vqa_train.store.store import FeatureStore
from vqa_train.video.decode import read_clips

LICENSE = "CC0-1.0"

# What Ray's own modules warn of is theirs to mend.
pytestmark = [pytest.mark.filterwarnings("ignore:::ray"), pytest.mark.xdist_group("ray")]


class Mean:
    """Mean colour of each view; stumbles over clips 96 pixels wide, gives NaN for those 160 wide."""

    def __init__(self, name: str, n: int, *, broken: bool = False) -> None:
        self.broken = broken
        self.spec = FeatureSpec(
            backbone=name, definition=1, modality="video", sampling=Sampling(mode="uniform", n=n, views=2),
            outputs=(OutputSpec(name="pooled", shape=(3,)), OutputSpec(name="size", shape=())),
        )  # fmt: skip

    def extract(self, clips: Sequence[Clip]) -> list[dict[str, NDArray[np.float32]]]:
        if self.broken and clips[0].width == 96:
            raise MediaError("too narrow", reason=Reason.TOO_SHORT)
        lost = np.float32(np.nan if self.broken and clips[0].width == 160 else 0)
        return [
            {"pooled": clip.frames.mean(axis=(0, 1, 2)).astype(np.float32) + lost, "size": np.float32(clip.width)}
            for clip in clips
        ]


class Lost(Mean):
    """Its device has failed."""

    def extract(self, clips: Sequence[Clip]) -> list[dict[str, NDArray[np.float32]]]:
        raise DeviceError("device lost")


class Batched(Mean):
    """The same numbers as `Mean`, staged clip by clip and run over several."""

    batch_size = 2

    def stage(self, clip: Clip) -> Clip:
        return clip

    def run(self, staged: Sequence[Clip]) -> list[dict[str, NDArray[np.float32]]]:
        return super().extract(staged)

    def extract(self, clips: Sequence[Clip]) -> list[dict[str, NDArray[np.float32]]]:
        raise AssertionError("clips must go through stage and run")


@dataclass(frozen=True)
class Build:
    """Makes the extractors where the engine wants them."""

    kinds: tuple[tuple[type[Mean], str, int, bool], ...]

    def __call__(self) -> Built:
        made: list[Mean] = [kind(name, n, broken=broken) for kind, name, n, broken in self.kinds]
        return Built(
            extractors={m.spec.set_name: m for m in made}, profiles={m.spec.set_name: {"by": "build"} for m in made}
        )


@dataclass(frozen=True)
class ToStore:
    """Commits to the store at `root`; refuses where `full`."""

    root: Path
    specs: tuple[FeatureSpec, ...]
    full: bool = False

    def commit(self, results: Sequence[TaskResult], profiles: Sequence[Mapping[str, Any]]) -> None:
        if self.full:
            raise StoreError("the disk is full")
        for spec in self.specs:
            feature_set = FeatureStore(self.root).create_set(spec, license=LICENSE)
            rows: list[FeatureRow] = [row for result in results for row in result.rows.get(spec.set_name, ())]
            if rows:
                feature_set.append(rows, profile={"by": "sink"}, run_id="contract")
            failed = [(r.task, *r.failures[spec.set_name]) for r in results if spec.set_name in r.failures]
            if failed:
                feature_set.add_failures(
                    [Failure(key=t.key, id=t.id, path=t.name, reason=why, message=text) for t, why, text in failed],
                    run_id="contract",
                )


@pytest.fixture(scope="module")
def one_cpu_cluster() -> Iterator[None]:
    ray = pytest.importorskip("ray", reason="ray is not installed (extra `ray`)")
    # Workers cannot import a test file; they are sent what it defines.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    from vqa_train.engines.ray_cluster import connected

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        with connected(num_cpus=2):
            yield


@pytest.fixture(params=ENGINES.names())
def engine(request: pytest.FixtureRequest) -> Any:
    if request.param == "ray":
        request.getfixturevalue("one_cpu_cluster")
    return ENGINES.get(request.param)()


@pytest.fixture
def tasks(tmp_path: Path, write_video: Callable[..., Path]) -> list[VideoTask]:
    """Four videos, two of which `Mean` may stumble over, and a file that is none."""
    widths = [64, 96, 128, 160]
    paths = [write_video(tmp_path / f"{w}.mp4", frames=8, size=(64, w), seed=w) for w in widths]
    (tmp_path / "bad.mp4").write_bytes(b"no video at all")
    paths.append(tmp_path / "bad.mp4")
    sets = (Mean("a", 2).spec.set_name, Mean("b", 3).spec.set_name)
    return [
        VideoTask(key=sha256_file(p), path=p, verify=True, sets=sets, id=p.stem, name=f"videos/{p.name}") for p in paths
    ]


def options(build: Build, **given: Any) -> EngineOptions:
    return EngineOptions(decoder="pyav", workers=1, threads=1, device="cpu", build=build, **given)


def expected(task: VideoTask, extractor: Mean) -> list[FeatureRow]:
    """A plain loop over one video in this process."""
    assert extractor.spec.sampling is not None
    (clips,) = read_clips(task.path, [extractor.spec.sampling], threads=1, key=task.key)
    outputs = Mean(extractor.spec.backbone, extractor.spec.sampling.n).extract(clips)
    return [
        FeatureRow(key=task.key, view=clip.view, outputs=out, facts=clip.facts())
        for clip, out in zip(clips, outputs, strict=True)
    ]


def same(rows: Sequence[FeatureRow], others: Sequence[FeatureRow]) -> bool:
    return [(r.key, r.view, dict(r.facts), {k: v.tobytes() for k, v in r.outputs.items()}) for r in rows] == [
        (r.key, r.view, dict(r.facts), {k: v.tobytes() for k, v in r.outputs.items()}) for r in others
    ]


def run(engine: Any, tasks: Sequence[VideoTask], build: Build, **given: Any) -> dict[str, TaskResult]:
    wanted: Mapping[str, Extractor] = build().extractors
    results = list(engine.run(tasks, wanted, options(build, **given)))
    assert sorted(result.task.key for result in results) == sorted(task.key for task in tasks), "one result per task"
    return {result.task.id: result for result in results}


@pytest.mark.parametrize("kind", [Mean, Batched])
def test_rows_are_those_of_a_plain_loop_and_failures_stay_with_their_cause(
    engine: Any, tasks: list[VideoTask], kind: type[Mean]
) -> None:
    build = Build(((kind, "a", 2, True), (kind, "b", 3, False)))
    a, b = build().extractors
    results = run(engine, tasks, build)
    for task in tasks[:4]:
        assert same(results[task.id].rows[b], expected(task, Mean("b", 3)))
    for task in (tasks[0], tasks[2]):
        assert same(results[task.id].rows[a], expected(task, Mean("a", 2)))
        assert not results[task.id].failures
    assert results["96"].failures == {a: (Reason.TOO_SHORT, "too narrow")}
    assert results["160"].failures[a][0] is Reason.NON_FINITE
    assert {name: reason for name, (reason, _) in results["bad"].failures.items()} == dict.fromkeys(
        (a, b), Reason.DECODE_ERROR
    )
    assert not results["bad"].rows


def test_only_the_sets_that_a_task_lacks_are_computed(engine: Any, tasks: list[VideoTask]) -> None:
    build = Build(((Mean, "a", 2, False), (Mean, "b", 3, False)))
    a, b = build().extractors
    wanted = [(a,), (b,), (a, b), (b,)]
    some = [
        VideoTask(key=t.key, path=t.path, verify=False, sets=sets, id=t.id)
        for t, sets in zip(tasks[:4], wanted, strict=True)
    ]
    results = run(engine, some, build)
    assert [tuple(results[t.id].rows) for t in some] == wanted


def test_what_is_stored_and_what_is_brought_along_are_everything_once(
    engine: Any, tasks: list[VideoTask], tmp_path: Path
) -> None:
    build = Build(((Mean, "a", 2, True),))
    (extractor,) = build().extractors.values()
    name = extractor.spec.set_name
    mine = [VideoTask(key=t.key, path=t.path, verify=False, sets=(name,), id=t.id, name=t.name) for t in tasks]
    sink = ToStore(tmp_path / "store", (extractor.spec,))
    results = run(engine, mine, build, sink=sink, shard_rows=4)
    assert {result.stored for result in results.values()} == {engine.elsewhere}
    brought = [result for result in results.values() if not result.stored]
    if brought:
        sink.commit(brought, [{}] * len(brought))
    feature_set = FeatureStore.open(tmp_path / "store").find("a")
    done = [task for task in mine if task.id in ("64", "128")]
    assert feature_set.read()["video_sha256"].to_pylist() == sorted([task.key for task in done] * 2)
    assert sum(commit.rows for commit in feature_set.commits()) == 4, "no row twice"
    for task in done:
        assert results[task.id].rows.keys() == {name}
        stored = feature_set.matrix("pooled", [task.key], view=1)[0]
        assert stored.tobytes() == expected(task, extractor)[1].outputs["pooled"].tobytes()  # type: ignore[arg-type]
    assert {(f.id, f.path, f.reason) for f in feature_set.failures()} == {
        ("96", "videos/96.mp4", Reason.TOO_SHORT),
        ("160", "videos/160.mp4", Reason.NON_FINITE),
        ("bad", "videos/bad.mp4", Reason.DECODE_ERROR),
    }


def test_an_error_that_is_no_videos_ends_the_run(engine: Any, tasks: list[VideoTask]) -> None:
    build = Build(((Lost, "a", 2, False),))
    seen: list[TaskResult] = []
    mine = [VideoTask(key=t.key, path=t.path, verify=False, sets=tuple(build().extractors)) for t in tasks[:2]]
    with pytest.raises(DeviceError, match="device lost"):
        seen.extend(engine.run(mine, build().extractors, options(build)))
    assert not seen


def test_a_store_that_cannot_be_written_ends_the_run(engine: Any, tasks: list[VideoTask], tmp_path: Path) -> None:
    if not engine.elsewhere:
        pytest.skip("the caller commits what this engine computes")
    build = Build(((Mean, "a", 2, False),))
    mine = [VideoTask(key=t.key, path=t.path, verify=False, sets=tuple(build().extractors)) for t in tasks[:2]]
    with pytest.raises(StoreError, match="the disk is full"):
        list(engine.run(mine, build().extractors, options(build, sink=ToStore(tmp_path / "s", (), full=True))))


def test_nothing_is_begun_once_told_to_stop(engine: Any, tasks: list[VideoTask]) -> None:
    build = Build(((Mean, "a", 2, False), (Mean, "b", 3, False)))
    stop = Event()
    stop.set()
    assert not list(engine.run(tasks, build().extractors, options(build, stop=stop)))
