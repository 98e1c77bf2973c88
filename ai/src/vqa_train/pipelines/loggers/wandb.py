"""Weights & Biases: a run of a project, offline unless the recipe says otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import wandb

from vqa_train.core.errors import UsageError
from vqa_train.core.files import display_path
from vqa_train.pipelines.loggers.base import Scalars
from vqa_train.pipelines.loggers.config import LoggerConfig


class WandbLogger:
    """One run of the project; see `base.Logger`. The epoch is a number of its own, since steps come in any order.

    Raises:
        UsageError: wandb refuses (no key for `online`, a folder that cannot be written).
    """

    def __init__(self, config: LoggerConfig, run_name: str, params: Mapping[str, str]) -> None:
        mode = config.mode or "offline"
        try:
            self._run = wandb.init(
                project=config.project or "vqa-train",
                name=run_name,
                config=dict(params),
                mode=mode,
                dir=config.folder,
                reinit="create_new",
                settings=wandb.Settings(silent=True, console="off", disable_git=True, disable_code=True),
            )
        except (wandb.Error, OSError) as error:
            raise UsageError(
                f"logger wandb cannot start ({mode}): {' '.join(str(error).split())[:200]}",
                hint="mode: offline needs no account; for online run `wandb login` first",
            ) from error
        self._folder = Path(self._run.dir).parent
        self._offline = mode == "offline"
        self._run.define_metric("epoch")
        self._run.define_metric("*", step_metric="epoch")

    @property
    def place(self) -> str:
        """How to look at it."""
        return f"wandb sync {display_path(self._folder)}" if self._offline else str(self._run.url)

    def log(self, scalars: Scalars, step: int) -> None:
        """Numbers of one epoch."""
        self._run.log({"epoch": step, **scalars})

    def finish(self, metrics: Scalars, artifacts: Sequence[Path]) -> None:
        """Final numbers in the summary, the files, and the run as finished."""
        self._run.summary.update(dict(metrics))
        for path in artifacts:
            self._run.save(str(path), base_path=str(path.parent), policy="now")
        self._run.finish(exit_code=0)

    def fail(self) -> None:
        """The run as failed."""
        self._run.finish(exit_code=1)
