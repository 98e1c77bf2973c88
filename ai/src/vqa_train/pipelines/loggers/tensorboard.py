"""TensorBoard: an event file per run, through torch's own writer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from vqa_train.core.errors import UsageError
from vqa_train.core.files import display_path
from vqa_train.pipelines.loggers.base import Scalars
from vqa_train.pipelines.loggers.config import LoggerConfig


class TensorBoardLogger:
    """Writes FOLDER/RUN/events...; see `base.Logger`. Files are named, not copied: TensorBoard keeps none.

    Raises:
        UsageError: the folder cannot be made.
    """

    def __init__(self, config: LoggerConfig, run_name: str, params: Mapping[str, str]) -> None:
        self._folder = Path(config.folder or "logs") / run_name
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"logger tensorboard cannot make {str(self._folder)!r}: {error.strerror}", hint="set another `folder`"
            ) from error
        self._writer = SummaryWriter(str(self._folder))
        self._writer.add_text("recipe", "\n".join(f"    {name}: {value}" for name, value in params.items()), 0)

    @property
    def place(self) -> str:
        """How to look at it."""
        return f"tensorboard --logdir {display_path(self._folder.parent)}"

    def log(self, scalars: Scalars, step: int) -> None:
        """Numbers of one epoch."""
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)

    def finish(self, metrics: Scalars, artifacts: Sequence[Path]) -> None:
        """Final numbers at step 0, under `final/`."""
        for name, value in metrics.items():
            self._writer.add_scalar(f"final/{name}", value, 0)
        if artifacts:
            self._writer.add_text("files", "\n".join(f"    {display_path(path)}" for path in artifacts), 0)
        self._writer.close()

    def fail(self) -> None:
        """Say so and close."""
        self._writer.add_text("status", "the fit did not finish", 0)
        self._writer.close()
