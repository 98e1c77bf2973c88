"""Results of tasks as blocks: features and failures on their way from the process that computed them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from vqa_train.core import errors
from vqa_train.core.errors import Reason, VqaError
from vqa_train.engines.base import TaskResult, VideoTask
from vqa_train.engines.ray_blocks import Arrays, pack, unpack
from vqa_train.store.rows import FeatureRow

Profiles = Mapping[str, Mapping[str, str]]


def pack_result(number: int, result: TaskResult, profiles: Profiles) -> pa.Table:
    """One row that holds a result and how it was computed."""
    arrays: Arrays = []
    rows: dict[str, list[Any]] = {}
    for name, views in result.rows.items():
        rows[name] = []
        for row in views:
            places = {output: len(arrays) + i for i, output in enumerate(row.outputs)}
            arrays += row.outputs.values()
            rows[name].append([row.view, dict(row.facts), places])
    header = {
        "rows": rows,
        "failures": {name: [reason.value, message] for name, (reason, message) in result.failures.items()},
        "attempts": result.attempts,
        "worker": result.worker,
        "profiles": {name: dict(profiles.get(name, {})) for name in rows},
    }
    return pack(number, header, arrays)


def unpack_results(table: pa.Table, tasks: Sequence[VideoTask]) -> Iterator[tuple[int, TaskResult, Profiles]]:
    """Number, result and profiles of each row.

    Raises:
        VqaError: the one that ended the stage which wrote the block.
    """
    for number, header, arrays in unpack(table):
        raise_if_fatal(header)
        task = tasks[number]
        rows = {
            name: [
                FeatureRow(
                    key=task.key,
                    view=view,
                    facts=facts,
                    outputs={output: arrays[place].copy() for output, place in places.items()},
                )
                for view, facts, places in views
            ]
            for name, views in header["rows"].items()
        }
        failures = {name: (Reason(reason), message) for name, (reason, message) in header["failures"].items()}
        result = TaskResult(
            task=task, rows=rows, failures=failures, attempts=header["attempts"], worker=header["worker"]
        )
        yield number, result, header["profiles"]


def pack_fatal(number: int, error: VqaError) -> pa.Table:
    """One row that holds an error which is no video's fault and ends the run."""
    return pack(number, {"fatal": [type(error).__name__, error.message, error.hint]})


def raise_if_fatal(header: Mapping[str, Any]) -> None:
    """Raise what `pack_fatal` was given."""
    if "fatal" in header:
        kind, message, hint = header["fatal"]
        raise getattr(errors, kind, VqaError)(message, hint=hint)
