"""Joins a Ray cluster, or starts one on this machine, and says how a run is spread over it."""

from __future__ import annotations

import logging
import os
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from vqa_train.core.errors import UsageError
from vqa_train.core.plugins import needs

BLOCK_BYTES = 4 << 20
"""Blocks are one video each; what Ray expects of one decides how many it has under way before it has seen any."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How the computing stage is spread: actors with a GPU each, or one per CPU.

    Attributes:
        gpus: per actor, 0 or 1.
        actors: to begin with.
        most: actors at most; None lets the pool grow with the cluster.
        videos: per call of an actor.
    """

    gpus: int
    actors: int
    most: int | None
    videos: int


@contextmanager
def connected(**settings: Any) -> Iterator[Any]:
    """The module `ray`, connected: as the caller has it, else to the cluster at $RAY_ADDRESS, else to one of this
    machine alone, started here and ended after.

    Args:
        settings: for `ray.init`, where there is no connection yet.

    Raises:
        DependencyError: Ray is not installed.
        UsageError: the cluster does not answer.
    """
    with needs("engine 'ray'", "ray"):
        import ray
        import ray.data
    ours = not ray.is_initialized()
    if ours:
        # Nothing is reported to anybody, unless whoever runs this wants it.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        with _own_signals(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                address = os.environ.get("RAY_ADDRESS") or "local"
                ray.init(address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR, **settings)
            except (ConnectionError, RuntimeError) as error:
                raise UsageError(
                    f"the Ray cluster does not answer: {error}", hint="ray status; unset RAY_ADDRESS to start one here"
                ) from error
    try:
        yield ray
    finally:
        if ours:
            ray.shutdown()


@contextmanager
def _own_signals() -> Iterator[None]:
    """Ray takes Ctrl-C and SIGTERM over; give them back, so that a run can end in order."""
    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)} if main else {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def quiet(context: Any, no_progress_s: int) -> None:
    """Settings of Ray Data for a run: no bars, no advice, blocks as large as they are.

    Args:
        context: `ray.data.DataContext`.
        no_progress_s: seconds without any block after which a run is given up.
    """
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context.enable_progress_bars = False
    context.issue_detectors_config.detectors = []
    context.target_max_block_size = BLOCK_BYTES
    context.execution_no_progress_timeout_s = no_progress_s


def spread(resources: dict[str, float], device: str, batch: int) -> Spread:
    """How to spread over a cluster with `resources` (`ray.cluster_resources()`).

    Args:
        device: "auto" takes GPUs where there are any, "cuda" waits for them, "cpu" leaves them alone.
        batch: videos per call of an actor with a GPU; 0 is 8.

    Raises:
        UsageError: no CPU to decode on, or a device that is none of the three.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"engine 'ray' gives each actor a GPU of its own, got device {device!r}", hint="auto or cuda")
    cpus, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    if cpus < 1:
        raise UsageError("the Ray cluster has no CPU to decode on", hint="ray start --num-cpus=N on some machine")
    if device == "cuda" or (device == "auto" and gpus):
        return Spread(gpus=1, actors=max(1, gpus), most=None, videos=batch or 8)
    return Spread(gpus=0, actors=cpus, most=cpus, videos=1)
