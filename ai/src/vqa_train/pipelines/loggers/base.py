"""What every logger is: a place for parameters, numbers by step, and files of one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from vqa_train.pipelines.loggers.config import LoggerConfig

Scalars = Mapping[str, float]
"""Name, parts joined by "/" -> finite number."""


class Logger(Protocol):
    """One run in one tracking tool.

    Args:
        config: of the recipe.
        run_name: what the run is called there.
        params: dotted name -> value, of the recipe.

    Raises:
        UsageError: the place that the config names cannot be used.
    """

    def __init__(self, config: LoggerConfig, run_name: str, params: Mapping[str, str]) -> None: ...

    @property
    def place(self) -> str:
        """Where to look, in words or as a command."""
        ...

    def log(self, scalars: Scalars, step: int) -> None:
        """Numbers of one step (an epoch, from 1); steps may come in any order."""
        ...

    def finish(self, metrics: Scalars, artifacts: Sequence[Path]) -> None:
        """Final numbers and files; nothing is logged after it."""
        ...

    def fail(self) -> None:
        """The run did not finish; close it as such."""
        ...
