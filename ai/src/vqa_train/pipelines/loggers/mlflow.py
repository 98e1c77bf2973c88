"""MLflow: a run of an experiment, through the tracking client; no global state of MLflow is touched."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException

from vqa_train.core.errors import UsageError
from vqa_train.pipelines.loggers.base import Scalars
from vqa_train.pipelines.loggers.config import LoggerConfig

_BATCH = 500
_AT_ONCE = 100
_EVERY_S = 2.0
_CUT = 240
_FORBIDDEN = re.compile(r"[^\w\-. /]")


class MlflowLogger:
    """One run of the experiment `project`; see `base.Logger`. Files of the run are its artifacts.

    Raises:
        UsageError: the tracking place refuses.
    """

    def __init__(self, config: LoggerConfig, run_name: str, params: Mapping[str, str]) -> None:
        experiment = config.project or "vqa-train"
        try:
            self._client = MlflowClient(tracking_uri=config.uri)
            known = self._client.get_experiment_by_name(experiment)
            number = known.experiment_id if known is not None else self._client.create_experiment(experiment)
            run = self._client.create_run(number, run_name=run_name, tags={"mlflow.source.name": "vqa-train fit"})
        except (MlflowException, OSError, ModuleNotFoundError) as error:
            where = config.uri or "the default tracking place"
            raise UsageError(
                f"logger mlflow cannot use {where!r}: {' '.join(str(error).split())[:200]}",
                hint="set `uri` to a server or sqlite:///mlflow.db; a folder also needs MLFLOW_ALLOW_FILE_STORE=true",
            ) from error
        self._run = run.info.run_id
        self._uri = config.uri
        self._experiment = experiment
        self._waiting: list[Metric] = []
        self._sent = time.monotonic()
        entries = [Param(_clean(name), value) for name, value in params.items()]
        for start in range(0, len(entries), _AT_ONCE):
            self._client.log_batch(self._run, params=entries[start : start + _AT_ONCE])

    @property
    def place(self) -> str:
        """How to look at it."""
        uri = f" --backend-store-uri {self._uri}" if self._uri and "://" not in self._uri[:8] else ""
        return f"mlflow ui{uri}, experiment {self._experiment!r}, run {self._run}"

    def log(self, scalars: Scalars, step: int) -> None:
        """Numbers of one epoch; sent a few hundred at a time, or every two seconds."""
        now = int(time.time() * 1000)
        self._waiting += [Metric(_clean(name), value, now, step) for name, value in scalars.items()]
        if len(self._waiting) >= _BATCH or time.monotonic() - self._sent > _EVERY_S:
            self._send()

    def finish(self, metrics: Scalars, artifacts: Sequence[Path]) -> None:
        """Final numbers under `final/`, the files, and the run as finished."""
        now = int(time.time() * 1000)
        self._waiting += [Metric(_clean(f"final/{name}"), value, now, 0) for name, value in metrics.items()]
        self._send()
        for path in artifacts:
            self._client.log_artifact(self._run, str(path))
        self._client.set_terminated(self._run, "FINISHED")

    def fail(self) -> None:
        """What is known so far, and the run as failed."""
        self._send()
        self._client.set_terminated(self._run, "FAILED")

    def _send(self) -> None:
        for start in range(0, len(self._waiting), _BATCH):
            self._client.log_batch(self._run, metrics=self._waiting[start : start + _BATCH])
        self._waiting, self._sent = [], time.monotonic()


def _clean(name: str) -> str:
    """MLflow's names hold letters, digits, _, -, ., space and /."""
    return _FORBIDDEN.sub("_", name)[:_CUT]
