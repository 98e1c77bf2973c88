"""bisect: the first bad model of a series, by binary search over a metric's threshold."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from vqa_train.core.config import StrictModel
from vqa_train.core.errors import ModelError, StoreError, UsageError
from vqa_train.core.plugins import did_you_mean
from vqa_train.core.provenance import RunProvenance
from vqa_train.evaluation import METRICS
from vqa_train.evaluation.rivals import check_metrics
from vqa_train.pipelines.evaluate.model import EvalResult
from vqa_train.pipelines.gates.compare_models import MeasuredOn
from vqa_train.pipelines.gates.model import GateModel, open_model
from vqa_train.pipelines.gates.result import Check, GateReport
from vqa_train.registry.locate import place_of
from vqa_train.registry.reference import ModelRef
from vqa_train.registry.registry import ModelRegistry

_MAPPED = "_mapped"


class BisectLimits(StrictModel):
    """The gate file's section `bisect`.

    Attributes:
        metric: `<name>` or `<name>_mapped`.
        min: a model below it in any target is bad; for metrics of which more is better.
        max: a model above it in any target is bad; for errors.
        targets: which count; all of a model when empty.
    """

    metric: str = "srocc"
    min: float | None = Field(default=None, allow_inf_nan=False)
    max: float | None = Field(default=None, allow_inf_nan=False)
    targets: list[str] = Field(default_factory=list)

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        check_metrics([self.metric])
        higher = METRICS.get(self.metric.removesuffix(_MAPPED)).higher_is_better
        wanted, other = ("min", self.max) if higher else ("max", self.min)
        if getattr(self, wanted) is None or other is not None:
            raise UsageError(f"bisect takes one limit for {self.metric}, its {wanted}imum", hint=f"--{wanted} VALUE")
        return self

    def check(self, name: str, value: float) -> Check:
        """Of one target of one model; NaN fails."""
        if self.min is not None:
            return Check.at_least(name, value, self.min)
        return Check.at_most(name, value, math.nan if self.max is None else self.max)


@dataclass(frozen=True)
class Evaluated:
    """What one model of the series came to.

    Attributes:
        number: place in the series, from 0.
        label: of the model.
        state: `bad` where any target breaks the limit; `skipped` where it could not be evaluated.
        checks: one per target, or the one that says why it was skipped.
    """

    number: int
    label: str
    state: Literal["good", "bad", "skipped"]
    checks: tuple[Check, ...]

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "number": self.number,
            "model": self.label,
            "state": self.state,
            "checks": [check.to_json() for check in self.checks],
        }


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        conclusion: in words.
        candidates: numbers of the models of which the first bad one is one; none where all that was looked at is good.
        monotone: whether good ones all come before bad ones, where every model was evaluated; None where not.
    """

    conclusion: str
    candidates: tuple[int, ...]
    monotone: bool | None = None


def bisect(
    models: Sequence[str],
    limits: BisectLimits,
    on: MeasuredOn,
    *,
    registry: Path = Path("model"),
    every: bool = False,
    progress: Callable[[Evaluated], None] = lambda _: None,
) -> GateReport:
    """Find the first bad model of a series that is good at its start and bad at its end.

    The ends are evaluated first, then the middle of what is left, and no model twice. A model that cannot be evaluated
    (changed bytes, features that the store lacks) is skipped as `git bisect skip` does: the nearest one beside it is
    tried, and where skipped ones hide the first bad one, all that it may be are named. It counts as neither good nor
    bad, but the verdict is then no pass.

    Args:
        models: two references or exported ONNX files or more, oldest first; or one NAME, for all its versions in the
            order in which they were registered.
        limits: what is bad.
        on: the rows.
        registry: the folder that holds registry.json.
        every: evaluate every model, and say whether the series is monotone.
        progress: is given each evaluation.

    Raises:
        UsageError: a series of fewer than two models, an unknown target, or one that no model has.
        ModelError: no such model.
        ManifestError, LabelError, StoreError: the data cannot be read for any model.
    """
    series = _series(models, registry)
    provenance = RunProvenance(
        entrypoint="bisect", config={"models": series, "all": every, **limits.model_dump(mode="json"), **on.to_json()}
    )
    done: dict[int, Evaluated] = {}
    hashes: dict[str, str] = {}

    def look(number: int) -> Evaluated:
        if number not in done:
            done[number], opened, result = _evaluate(number, series[number], limits, on, registry)
            if opened is not None:
                hashes[series[number]] = opened.sidecar.onnx.sha256
            if result is not None:
                provenance.inputs |= {k: v for k, v in result.provenance["inputs"].items() if k != "model"}
                provenance.inputs[f"model {series[number]}"] = result.provenance["inputs"]["model"]
            progress(done[number])
        return done[number]

    found = look_at_all(series, look) if every else search(series, look)
    if all(one.state == "skipped" for one in done.values()):
        raise UsageError(f"no model of the series could be evaluated: {next(iter(done.values())).checks[0].message}")
    ordered = [done[number] for number in sorted(done)]
    first = series[found.candidates[0]] if len(found.candidates) == 1 else None
    provenance.counts = {"in": len(series), "evaluated": len(done)}
    return GateReport(
        gate="bisect",
        model=first or f"{series[0]}..{series[-1]}",
        model_sha256=hashes.get(first) if first is not None else None,
        checks=[check for one in ordered for check in one.checks],
        details={
            "series": series,
            "evaluations": [one.to_json() for one in done.values()],
            "first_bad": first,
            "candidates": [series[number] for number in found.candidates],
            "monotone": found.monotone,
            "conclusion": found.conclusion,
        },
        provenance=provenance.to_json(),
    )


def _series(models: Sequence[str], registry: Path) -> list[str]:
    if len(models) == 1 and not models[0].endswith(".onnx"):
        ref = ModelRef.parse(models[0])
        if ref.version is None and ref.alias is None:
            found = ModelRegistry(registry)
            found.resolve(ref)
            models = [f"{ref.name}:{version}" for version in found.models()[ref.name].in_order()]
    if len(models) < 2:
        raise UsageError(
            f"nothing to search: the series is {', '.join(models)}", hint="name two models, or a NAME with two versions"
        )
    twice = next((model for i, model in enumerate(models) if model in models[:i]), None)
    if twice is not None:
        raise UsageError(f"the series has {twice!r} twice", hint="name each model once, oldest first")
    for model in models:
        _must_exist(model, registry)
    return list(models)


def _must_exist(model: str, registry: Path) -> None:
    """A name that is nowhere is a mistake, not a model to skip."""
    if model.endswith(".onnx"):
        if not Path(model).is_file():
            raise ModelError(f"model {model!r} does not exist", hint="name a file that `vqa-train export` wrote")
        return
    root, ref = place_of(model, registry)
    ModelRegistry(root).resolve(ref)


def _evaluate(
    number: int, name: str, limits: BisectLimits, on: MeasuredOn, registry: Path
) -> tuple[Evaluated, GateModel | None, EvalResult | None]:
    opened = None
    try:
        opened = open_model(name, registry)
        unknown = [target for target in limits.targets if target not in opened.sidecar.targets]
        if unknown:
            raise UsageError(
                f"model {name!r} has no target {unknown[0]!r}", hint=did_you_mean(unknown[0], opened.sidecar.targets)
            )
        result = on.evaluate(opened)
    except (ModelError, StoreError) as error:
        skipped = Check.not_run(f"{name}.{limits.metric}", f"skipped: {error}")
        return Evaluated(number, name, "skipped", (skipped,)), opened, None
    checks = []
    for target in limits.targets or opened.sidecar.targets:
        estimate = result.report.result(target).metrics[limits.metric]
        checks.append(limits.check(f"{name}.{target}.{limits.metric}", estimate.value))
    bad = any(check.verdict == "fail" for check in checks)
    return Evaluated(number, name, "bad" if bad else "good", tuple(checks)), opened, result


def look_at_all(series: Sequence[str], look: Callable[[int], Evaluated]) -> Found:
    """Evaluate every model of a series; `look` gives the one of a number."""
    states = [look(number).state for number in range(len(series))]
    known = [state for state in states if state != "skipped"]
    bad = [number for number, state in enumerate(states) if state == "bad"]
    monotone = known == sorted(known, key=["good", "bad"].index)
    if not bad:
        return Found(f"all {len(known)} that were evaluated are good", (), monotone)
    hidden = _skipped_before(bad[0], states)
    words = (
        f"first bad: {series[bad[0]]}"
        if not hidden
        else f"first bad: one of {_names(series, hidden)} or {series[bad[0]]}"
    )
    if not monotone:
        again = next(n for n, state in enumerate(states) if state == "good" and n > bad[0])
        words += f"; not monotone: {series[again]} after it is good"
    return Found(words, (*hidden, bad[0]), monotone)


def _skipped_before(number: int, states: Sequence[str]) -> tuple[int, ...]:
    """The skipped ones right before a model, ascending."""
    found = []
    while number > 0 and states[number - 1] == "skipped":
        number -= 1
        found.append(number)
    return tuple(reversed(found))


def search(series: Sequence[str], look: Callable[[int], Evaluated]) -> Found:
    """Binary search between the two ends of a series; `look` gives the model of a number."""
    numbers = range(len(series))
    low = next((n for n in numbers if look(n).state != "skipped"), None)
    if low is None:
        return Found("none could be evaluated", ())
    if look(low).state == "bad":
        before = tuple(range(low))
        words = f"the first one is bad already: {series[low]}"
        return Found(f"{words}, or {_names(series, before)}, which were skipped" if before else words, (*before, low))
    high = next(n for n in reversed(numbers) if look(n).state != "skipped")
    if look(high).state == "good":
        return Found("all good, as far as the two ends show; --all looks at every one", ())
    skipped = {n for n in numbers if n < low or n > high}
    while True:
        inside = [n for n in range(low + 1, high) if n not in skipped]
        if not inside:
            break
        middle = (low + high) // 2
        tried = min(inside, key=lambda n: (abs(n - middle), n))
        state = look(tried).state
        if state == "skipped":
            skipped.add(tried)
        elif state == "good":
            low = tried
        else:
            high = tried
    hidden = tuple(range(low + 1, high))
    if not hidden:
        return Found(f"first bad: {series[high]}; {series[low]} before it is good", (high,))
    return Found(f"first bad: {series[high]}, or {_names(series, hidden)}, which were skipped", (*hidden, high))


def _names(series: Sequence[str], numbers: Sequence[int]) -> str:
    return ", ".join(series[number] for number in numbers)
