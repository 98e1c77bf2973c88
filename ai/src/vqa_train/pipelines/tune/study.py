"""The Optuna study behind `tune`: a SQLite file that resumes, refuses another question, and asks trials in batches."""

from __future__ import annotations

import fcntl
import math
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna import Study, Trial, create_study, distributions, load_study, logging, samplers, storages
from optuna.exceptions import DuplicatedStudyError, StorageInternalError
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from vqa_train.core.errors import RunError
from vqa_train.core.hashing import seed_from
from vqa_train.pipelines.tune.range import Choices, Param

STUDY_SCHEMA = "vqa-train/study/1"
REASON = "reason"
FOLDS = "folds"
_IDENTITY = "vqa-train"
_ENOUGH = 10
_DONE = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass(frozen=True)
class Outcome:
    """What became of a trial.

    Attributes:
        value: the objective; NaN where it has none.
        folds: fold -> objective there, None where undefined.
        reason: why there is no value.
    """

    value: float
    folds: Mapping[str, float | None]
    reason: str | None = None


@dataclass(frozen=True)
class Asked:
    """A trial that waits for its outcome: settings by path."""

    trial: Trial
    settings: dict[str, Any]


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C back until the block has ended: a database call that is cut in two leaves a broken session."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before if before is not None else signal.default_int_handler)
    if came:
        signal.raise_signal(signal.SIGINT)


@contextmanager
def opened(path: Path, name: str, identity: Mapping[str, Any], *, maximise: bool) -> Iterator[TuneStudy]:
    """The study `name` of a SQLite file, made where it does not exist; one process at a time.

    Args:
        path: of the file.
        name: a file may hold several.
        identity: hashes of everything that decides a trial's value; kept in the study and compared.
        maximise: direction of the objective.

    Raises:
        RunError: another process has the file, it is no study, or the study asks something else (it says what).
    """
    if "?" in str(path):
        raise RunError(f"study {str(path)!r} has a '?' in its path, which SQLite's addresses end at")
    path.parent.mkdir(parents=True, exist_ok=True)
    logging.set_verbosity(logging.WARNING)
    # SQLite's own locks are of another kind, so a dashboard can read meanwhile.
    with path.open("ab") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunError(f"study {str(path)!r} is in use by another process", hint="wait for it to end") from error
        try:
            with uninterrupted():
                storage = storages.RDBStorage(f"sqlite:///{path.absolute()}")
        except (SQLAlchemyError, StorageInternalError, RuntimeError) as error:
            raise RunError(
                f"{str(path)!r} cannot be opened as an Optuna study: {str(error).splitlines()[0]}",
                hint="name another --study file",
            ) from error
        try:
            with uninterrupted():
                study = _made(storage, name, identity, maximise)
                _check_identity(path, study, identity)
                found = TuneStudy(study, identity)
            yield found
        finally:
            storage.remove_session()
            storage.engine.dispose()


def _made(storage: storages.RDBStorage, name: str, identity: Mapping[str, Any], maximise: bool) -> Study:
    try:
        study = create_study(storage=storage, study_name=name, direction="maximize" if maximise else "minimize")
    except DuplicatedStudyError:
        return load_study(storage=storage, study_name=name)
    study.set_user_attr(_IDENTITY, {"schema": STUDY_SCHEMA, **identity})
    return study


def _check_identity(path: Path, study: Study, identity: Mapping[str, Any]) -> None:
    kept = study.user_attrs.get(_IDENTITY)
    if not isinstance(kept, dict):
        raise RunError(
            f"study {study.study_name!r} of {str(path)!r} is not one of vqa-train tune", hint="choose another --name"
        )
    expected = {"schema": STUDY_SCHEMA, **identity}
    differ = [key for key in expected if kept.get(key) != expected[key]]
    if differ:
        told = "; ".join(f"{key} was {_short(kept.get(key))}, is {_short(expected[key])}" for key in differ)
        raise RunError(
            f"study {study.study_name!r} of {str(path)!r} asked another question: {told}",
            hint="values would not compare; choose another --name or --study",
        )


def _short(value: Any) -> str:
    text = str(value)
    return text[:12] if len(text) == 64 else text


class TuneStudy:
    """A study with the trials of a search space.

    Args:
        study: whose `RUNNING` trials are those of a process that was killed; they are marked as failed.
        identity: as kept in it.
    """

    def __init__(self, study: Study, identity: Mapping[str, Any]) -> None:
        self.study, self.identity = study, dict(identity)
        self._asked: dict[int, Trial] = {}
        self.abandon("")

    @property
    def finished(self) -> list[FrozenTrial]:
        """Trials with an outcome, by number."""
        return self.study.get_trials(deepcopy=False, states=_DONE)

    @property
    def complete(self) -> list[FrozenTrial]:
        """Trials with a value, the best first; of equal ones the earliest."""
        found = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        sign = -1 if self.study.direction.name == "MAXIMIZE" else 1
        return sorted(
            found, key=lambda trial: (sign * (trial.value if trial.value is not None else math.inf), trial.number)
        )

    def check_space(self, space: Sequence[Param]) -> None:
        """Refuse a space whose choices differ from those of earlier trials; ranges of numbers may differ.

        Raises:
            RunError: it names the parameter.
        """
        for trial in self.study.get_trials(deepcopy=False):
            for param in space:
                before = trial.distributions.get(param.path)
                if before is None:
                    continue
                try:
                    distributions.check_distribution_compatibility(before, _distribution(param))
                except ValueError as error:
                    raise RunError(
                        f"parameter {param.path!r} has other choices than in the trials of study "
                        f"{self.study.study_name!r}",
                        hint="keep them, or choose another --name",
                    ) from error

    def ask(self, space: Sequence[Param], count: int, seed: int, first: Mapping[str, Any] | None) -> list[Asked]:
        """The next trials, drawn by a tree-structured Parzen estimator that knows of those still running.

        What is drawn is decided by the seed and the trials with an outcome, so a search that was cut off asks what it
        would have asked.

        Args:
            space: sorted.
            count: how many.
            seed: of the draws.
            first: settings of the first trial that the study gets an outcome of, or None to draw it too.
        """
        known = len(self.finished)
        waiting = self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        drawn = seed_from("tune", seed, known) % (1 << 32)
        self.study.sampler = samplers.TPESampler(seed=drawn, multivariate=True, constant_liar=True)
        asked = []
        with uninterrupted():
            if first is not None and not self.finished and not waiting:
                self.study.enqueue_trial({param.path: param.stored(first[param.path]) for param in space})
            for _ in range(count):
                trial = self.study.ask({param.path: _distribution(param) for param in space})
                self._asked[trial.number] = trial
                asked.append(Asked(trial, {param.path: param.value(trial.params[param.path]) for param in space}))
        return asked

    def tell(self, asked: Asked, outcome: Outcome) -> None:
        """Keep an outcome; a trial without a value counts as pruned, so that the sampler avoids its like."""
        with uninterrupted():
            asked.trial.set_user_attr(FOLDS, dict(outcome.folds))
            if outcome.reason is None and math.isfinite(outcome.value):
                self.study.tell(asked.trial, outcome.value)
                return
            asked.trial.set_user_attr(REASON, outcome.reason or "the objective is no number")
            self.study.tell(asked.trial, state=TrialState.PRUNED)

    def abandon(self, reason: str) -> None:
        """Mark every trial that was asked and has no outcome as failed."""
        with uninterrupted():
            for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                if trial.number in self._asked:
                    self._asked[trial.number].set_user_attr(REASON, reason)
                self.study.tell(trial.number, state=TrialState.FAIL)

    def importances(self) -> dict[str, float]:
        """Share of the objective's variation that each parameter explains (fANOVA, Hutter et al. 2014).

        Empty where there are fewer than ten different values.
        """
        from optuna.importance import FanovaImportanceEvaluator, get_param_importances

        values = {trial.value for trial in self.complete}
        if len(values) < _ENOUGH:
            return {}
        return dict(get_param_importances(self.study, evaluator=FanovaImportanceEvaluator(seed=0)))


def _distribution(param: Param) -> distributions.BaseDistribution:
    if isinstance(param.range, Choices):
        return distributions.CategoricalDistribution([param.stored(choice) for choice in param.range.choices])
    if param.range.kind == "int":
        return distributions.IntDistribution(int(param.range.low), int(param.range.high), log=param.range.log)
    return distributions.FloatDistribution(param.range.low, param.range.high, log=param.range.log)
