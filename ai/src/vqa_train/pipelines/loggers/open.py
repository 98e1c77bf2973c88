"""All loggers of a fit behind one object: medians over heads, a few heads one by one, and no fit lost to a logger."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any, Self

from vqa_train.pipelines.loggers import LOGGERS
from vqa_train.pipelines.loggers.base import Logger
from vqa_train.pipelines.loggers.config import LoggerConfig

SCALARS = ("train_loss", "validation_loss", "validation_metric", "lr")
"""Of an entry of the history."""

OnEpoch = Callable[[str, dict[str, Any]], None]

_LONGEST = 250


class Loggers:
    """The open loggers; a context manager that closes them as failed if the fit raises.

    A logger that fails after it was opened is left out from then on and said so once: `warnings` has it.
    """

    def __init__(self, opened: Sequence[tuple[LoggerConfig, Logger]], warn: Callable[[str], None]) -> None:
        self._open = list(opened)
        self._warn = warn
        self._own: list[dict[str, int]] = [{} for _ in opened]
        self._heads: set[str] = set()
        self._seen: set[tuple[str, int]] = set()
        self._epochs: dict[int, dict[str, list[float]]] = {}
        self._done = False
        self.warnings: list[str] = []

    def __bool__(self) -> bool:
        return bool(self._open)

    @property
    def places(self) -> list[str]:
        """Where to look, per logger."""
        return [logger.place for _, logger in self._open]

    def on_epoch(self, name: str, entry: Mapping[str, Any]) -> None:
        """A head's entry of the history, as `heads.trainer.fit_heads` gives it.

        The first `LoggerConfig.heads` heads are logged at once, as `heads/<name>/<scalar>`; all go into the medians.
        """
        epoch = int(entry["epoch"])
        if not self._open or (name, epoch) in self._seen:
            return
        self._seen.add((name, epoch))
        found = _finite({key: entry.get(key) for key in SCALARS})
        self._heads.add(name)
        into = self._epochs.setdefault(epoch, {})
        for key, value in found.items():
            into.setdefault(key, []).append(value)
        for number, (config, logger) in enumerate(list(self._open)):
            own = self._own[number]
            if name in own or len(own) < config.heads:
                own.setdefault(name, len(own))
                scalars = {f"heads/{name or 'head'}/{key}": value for key, value in found.items()}
                self._try(number, partial(logger.log, scalars, epoch))

    def beside(self, on_epoch: OnEpoch | None) -> OnEpoch | None:
        """A function that tells both; None where nobody listens."""
        if not self._open:
            return on_epoch

        def both(name: str, entry: dict[str, Any]) -> None:
            if on_epoch is not None:
                on_epoch(name, entry)
            self.on_epoch(name, entry)

        return both

    def complete(self, histories: Iterable[tuple[str, Sequence[Mapping[str, Any]]]]) -> None:
        """What `on_epoch` was not told: heads of a closed form, and epochs before an interruption."""
        if not self._open:
            return
        for name, history in histories:
            self._heads.add(name)
            for entry in history:
                self.on_epoch(name, entry)

    def finish(self, metrics: Mapping[str, float | None], artifacts: Sequence[Path] = ()) -> None:
        """The medians over heads, the final numbers (undefined ones are left out) and the files; then closed."""
        medians = [
            (epoch, {f"median/{key}": median(values) for key, values in found.items()})
            for epoch, found in sorted(self._epochs.items())
        ]
        final = {**_finite(metrics), "heads": float(len(self._heads))}
        for number, (_, logger) in enumerate(list(self._open)):

            def write(logger: Logger = logger) -> None:
                for epoch, scalars in medians:
                    logger.log(scalars, epoch)
                logger.finish(final, artifacts)

            self._try(number, write)
        self._done = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._done:
            for number, (_, logger) in enumerate(list(self._open)):
                self._try(number, logger.fail)
            self._done = True

    def _try(self, number: int, call: Callable[[], None]) -> None:
        """Call; a logger that raises is replaced by one that does nothing."""
        config, logger = self._open[number]
        if isinstance(logger, _Silent):
            return
        try:
            call()
        except Exception as error:
            message = f"logger {config.kind} failed and is left out from here on: {' '.join(str(error).split())[:300]}"
            self._open[number] = (config, _Silent(logger.place))
            self.warnings.append(message)
            self._warn(message)


class _Silent:
    """Stands where a logger failed."""

    def __init__(self, place: str) -> None:
        self.place = place

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        pass

    def finish(self, metrics: Mapping[str, float], artifacts: Sequence[Path]) -> None:
        pass

    def fail(self) -> None:
        pass


def open_loggers(
    configs: Sequence[LoggerConfig],
    run_name: str,
    params: Mapping[str, Any],
    *,
    warn: Callable[[str], None] = lambda _: None,
) -> Loggers:
    """Open every logger of a recipe; with none, an object that does nothing and imports nothing.

    Args:
        configs: of the recipe.
        run_name: what the run is called.
        params: JSON values; nested names are joined by dots, values longer than 250 characters are cut.
        warn: is told when a logger fails later on.

    Raises:
        DependencyError: a logger's package is not installed.
        UsageError: a place that cannot be used.
    """
    flat = flatten(params)
    opened: list[tuple[LoggerConfig, Logger]] = []
    try:
        for config in configs:
            opened.append((config, LOGGERS.get(config.kind)(config, run_name, flat)))
    except BaseException:
        for _, logger in opened:
            logger.fail()
        raise
    return Loggers(opened, warn)


def flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Dotted name -> text, of the leaves of a JSON object; lists are one leaf."""
    found: dict[str, str] = {}
    for key, item in value.items():
        name = f"{prefix}{key}"
        if isinstance(item, Mapping) and item:
            found |= flatten(item, f"{name}.")
        else:
            text = str(item)
            found[name] = text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
    return found


def _finite(values: Mapping[str, Any]) -> dict[str, float]:
    return {key: float(value) for key, value in values.items() if value is not None and math.isfinite(value)}
