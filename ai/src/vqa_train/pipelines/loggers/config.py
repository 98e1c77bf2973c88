"""Which logger a recipe asks for, and where it writes; imports none of them."""

from __future__ import annotations

from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from vqa_train.core.config import StrictModel

Kind = Literal["tensorboard", "mlflow", "wandb"]

_TAKES: dict[Kind, frozenset[str]] = {
    "tensorboard": frozenset({"folder"}),
    "mlflow": frozenset({"uri", "project"}),
    "wandb": frozenset({"folder", "project", "mode"}),
}


class LoggerConfig(StrictModel):
    """One logger.

    Attributes:
        kind: `tensorboard`, `mlflow` or `wandb`.
        folder: for tensorboard, where the folder of each run is made (default `logs`); for wandb, where its own
            folder is (default: the working folder).
        uri: for mlflow, the tracking server, `sqlite:///PATH` or a folder; None is what $MLFLOW_TRACKING_URI says, or
            MLflow's own default.
        project: for mlflow the experiment, for wandb the project.
        mode: for wandb: `offline` writes files for `wandb sync`, `online` sends at once (the key is wandb's own
            affair and never in a recipe).
        heads: how many heads are logged one by one; the median over all heads is always.
    """

    kind: Kind
    folder: str | None = None
    uri: str | None = None
    project: str | None = None
    mode: Literal["offline", "online"] | None = None
    heads: int = Field(default=20, ge=0)

    @model_validator(mode="after")
    def _takes_what_is_set(self) -> Self:
        given = {name for name in ("folder", "uri", "project", "mode") if getattr(self, name) is not None}
        wrong = sorted(given - _TAKES[self.kind])
        if wrong:
            takes = ", ".join(sorted(_TAKES[self.kind]))
            raise ValueError(f"logger {self.kind} takes no {', '.join(wrong)}; it takes {takes}")
        if self.uri is not None and "@" in urlsplit(self.uri).netloc:
            raise ValueError(
                "uri holds a user or password, which a recipe and its run folder must not: set "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD instead"
            )
        return self
