"""Splits a dataset among processes by the hash of each video's content, so that every mix of them gives one store."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from vqa_train.core.errors import UsageError

SLURM = "slurm"


@dataclass(frozen=True)
class Shard:
    """One of `count` equal shares of all keys; number `index` counts from 0."""

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise UsageError(
                f"shard {self.index} of {self.count} does not exist",
                hint="--shard-id goes from 0 to --num-shards less one",
            )

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def holds(self, key: str) -> bool:
        """Whether the shard has this hex sha256: decided by its first 8 digits, never by order or number of keys."""
        return int(key[:8], 16) % self.count == self.index


def parse_shard(shard_id: str | None, num_shards: int | None, environment: Mapping[str, str] = os.environ) -> Shard:
    """The shard that `--shard-id` and `--num-shards` name.

    Args:
        shard_id: a number from 0, or "slurm" for that of this task of a SLURM array.
        num_shards: how many there are; None with "slurm" takes the number of tasks in the array.
        environment: where SLURM says which task this is.

    Raises:
        UsageError: one without the other, no such shard, or no SLURM array to take them from.
    """
    if shard_id is None:
        if num_shards not in (None, 1):
            raise UsageError("--num-shards needs --shard-id", hint="the first shard is 0; --shard-id slurm in an array")
        return Shard()
    if shard_id == SLURM:
        return _slurm(num_shards, environment)
    if not shard_id.isdecimal():
        raise UsageError(f"--shard-id must be a number from 0, or {SLURM!r}, got {shard_id!r}")
    if num_shards is None:
        raise UsageError("--shard-id needs --num-shards")
    return Shard(int(shard_id), num_shards)


def _slurm(num_shards: int | None, environment: Mapping[str, str]) -> Shard:
    task = _number("SLURM_ARRAY_TASK_ID", environment)
    if num_shards is not None:
        return Shard(task, num_shards)
    # An array may begin anywhere and count in steps: its tasks are numbered from 0 here.
    count = _number("SLURM_ARRAY_TASK_COUNT", environment)
    first = _number("SLURM_ARRAY_TASK_MIN", environment)
    step = _number("SLURM_ARRAY_TASK_STEP", environment, default="1")
    index, rest = divmod(task - first, step)
    if rest or not 0 <= index < count:
        raise UsageError(
            f"SLURM array task {task} of {count} from {first} is not one of an unbroken row",
            hint="say how many shards there are with --num-shards; the task's number is then the shard's",
        )
    return Shard(index, count)


def _number(name: str, environment: Mapping[str, str], default: str | None = None) -> int:
    text = environment.get(name, default)
    if text is None or not text.isdecimal():
        raise UsageError(
            f"--shard-id {SLURM} needs ${name}, which is {'not set' if text is None else repr(text)}",
            hint="use it in a job that was submitted with sbatch --array",
        )
    return int(text)
