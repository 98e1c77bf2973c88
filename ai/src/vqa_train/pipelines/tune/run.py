"""tune: searches the settings of a recipe by cross-validation on training rows, many trials at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from optuna.trial import FrozenTrial

from vqa_train.core.errors import ConfigError, UsageError
from vqa_train.core.files import atomic_write_bytes, display_path
from vqa_train.core.hashing import sha256_bytes, sha256_json
from vqa_train.datasets.protocols import Protocol
from vqa_train.evaluation.metric import Metric
from vqa_train.pipelines.fit.config import FitConfig, MemberConfig
from vqa_train.pipelines.fit.data import load_fit_data
from vqa_train.pipelines.tune.evaluate import Objective, Validation, objective_metric, training_folds
from vqa_train.pipelines.tune.range import Param
from vqa_train.pipelines.tune.space import apply, current, read_space
from vqa_train.pipelines.tune.study import FOLDS, REASON, Asked, Outcome, TuneStudy, opened, uninterrupted

TUNE_SCHEMA = "vqa-train/tune-report/1"
DEFAULT_SPACE = (
    "lr=float:3e-4:3e-2:log",
    "weight_decay=float:1e-3:1:log",
    "dropout=float:0:0.5",
    "hidden=categorical:[]|[32]|[64,32]|[128,32]|[256,64]",
)
"""What varies where nothing is named; for heads of kind `mlp`."""
_LISTED = 10


@dataclass(frozen=True, kw_only=True)
class TuneOptions:
    """How to search.

    Attributes:
        study: SQLite file; a study there is gone on with.
        name: of the study in it; None for the recipe's dataset and objective.
        trials: that the study is to have with an outcome, those of earlier calls included.
        batch: trials asked and trained at a time.
        params, space: what varies (see `tune_space`); `DEFAULT_SPACE` where both are empty.
        objective: name of a metric.
        protocol: folds over the training rows.
        seed: of the search.
        output: YAML file for the best recipe, or None.
        device, threads: where heads train.
    """

    study: Path
    name: str | None = None
    trials: int = 50
    batch: int = 16
    params: Sequence[str] = ()
    space: Path | None = None
    objective: str = "srocc"
    protocol: Protocol
    seed: int = 0
    output: Path | None = None
    device: str = "cpu"
    threads: int = 1


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where a study stands.

    Attributes:
        finished: trials with an outcome.
        added: how many of them the last batch brought; 0 before the first.
        number, value: of the best trial; None where none has a value.
    """

    finished: int
    added: int
    number: int | None
    value: float | None


def tune(
    config: FitConfig,
    options: TuneOptions,
    *,
    features: Path,
    datasets: Sequence[str] = (),
    data_root: Path | None = None,
    manifests_dir: Path | None = None,
    on_trials: Callable[[Standing], None] | None = None,
    warn: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Go on with a study until it has its trials; the report, schema vqa-train/tune-report/1.

    Trials see the rows that `fit` of the recipe trains on, never those it tests. The first trial is the recipe
    itself, where its values are in the space.

    Args:
        config: the recipe.
        options: how to search.
        features: the store.
        datasets: names or paths, instead of the recipe's.
        on_trials: is told where the study stands, before the first batch and after each.
        warn: is given each warning.

    Raises:
        UsageError: an unknown parameter or objective.
        ConfigError: folds or ranges that do not fit, or no trial with a value.
        RunError: the study is in use, or asked something else before.
    """
    members = config.recipes
    space = read_space(options.space, options.params or (() if options.space else _default(members)), members)
    data = load_fit_data(config, features=features, datasets=datasets, data_root=data_root, manifests_dir=manifests_dir)
    named = (datasets[0] if len(datasets) == 1 else list(datasets)) if datasets else config.dataset
    config = config.model_copy(update={"dataset": named, "targets": list(data.table.target_names)})
    metric = objective_metric(options.objective, data)
    validation = training_folds(data, options.protocol)
    objective = Objective(validation, metric, seeds=config.seeds, device=options.device, threads=options.threads)
    for warning in validation.warnings:
        (warn or _ignore)(warning)
    name = options.name or f"{'+'.join(found.manifest.name for found in data.datasets)}-{metric.name}"
    identity = _identity(config, validation, metric)
    with opened(options.study, name, identity, maximise=metric.higher_is_better) as study:
        study.check_space(space)
        first = current(members, space)
        (on_trials or _ignore)(_standing(study, 0))
        try:
            while (left := options.trials - len(study.finished)) > 0:
                asked = study.ask(space, min(options.batch, left), options.seed, first)
                _run(study, asked, objective, members)
                (on_trials or _ignore)(_standing(study, len(asked)))
        except BaseException as error:
            study.abandon("interrupted" if isinstance(error, KeyboardInterrupt) else str(error))
            raise
        return _report(study, space, config, members, options, validation, metric)


def _run(study: TuneStudy, asked: Sequence[Asked], objective: Objective, members: Sequence[MemberConfig]) -> None:
    """Train and score a batch."""
    recipes = [apply(members, one.settings, f"trial {one.trial.number}") for one in asked]
    outcomes = objective.scores(recipes)
    # A batch is told whole, so that a search that is cut off asks what it would have asked.
    with uninterrupted():
        for one, scored in zip(asked, outcomes, strict=True):
            study.tell(one, Outcome(value=scored.value, folds=scored.folds, reason=scored.reason))


def _standing(study: TuneStudy, added: int) -> Standing:
    best = next(iter(study.complete), None)
    return Standing(
        finished=len(study.finished),
        added=added,
        number=None if best is None else best.number,
        value=None if best is None else best.value,
    )


def _identity(config: FitConfig, validation: Validation, metric: Metric) -> dict[str, Any]:
    data = validation.data
    # Which rows train is in the folds.
    decisive = {"features", "targets", "missing_mos", "missing_features", "seeds", "train", "members", "matrix_dtype"}
    recipe = config.model_dump(mode="json", by_alias=True, include=decisive)
    labels = sha256_bytes(data.training.targets.tobytes())
    return {
        "recipe": sha256_json(recipe),
        "dataset": sha256_json([data.training.identity, labels]),
        "features": {name: spec.fingerprint for name, spec in data.table.specs.items()},
        "splits": validation.plan_sha256,
        "objective": metric.name,
    }


def _report(
    study: TuneStudy,
    space: Sequence[Param],
    config: FitConfig,
    members: Sequence[MemberConfig],
    options: TuneOptions,
    validation: Validation,
    metric: Metric,
) -> dict[str, Any]:
    ranked = study.complete
    if not ranked:
        reasons = {trial.user_attrs.get(REASON) for trial in study.finished}
        raise ConfigError(f"no trial has a value: {'; '.join(sorted(map(str, reasons)))[:500]}")
    best = _entry(ranked[0], space)
    recipe = best_recipe(config, members, best["settings"])
    if options.output is not None:
        _write_recipe(options.output, recipe, study, best, metric)
    states = [trial.state.name.lower() for trial in study.study.get_trials(deepcopy=False)]
    baseline = current(members, space)
    return {
        "schema": TUNE_SCHEMA,
        "study": {"path": display_path(options.study), "name": study.study.study_name, **study.identity},
        "objective": {
            "metric": metric.name,
            "direction": "maximise" if metric.higher_is_better else "minimise",
            "protocol": options.protocol.model_dump(mode="json"),
            "folds": len(validation.folds),
            "rows": len(validation.rows),
            "without_features": len(validation.data.table.without_features),
            "seeds": config.seeds,
        },
        "space": {param.path: param.range.model_dump(mode="json") for param in space},
        "trials": {state: states.count(state) for state in ("complete", "pruned", "fail")},
        "reasons": _reasons(study),
        "recipe_itself": next(
            (entry for entry in (_entry(trial, space) for trial in ranked) if entry["settings"] == baseline), None
        ),
        "best": best,
        "top": [_entry(trial, space) for trial in ranked[:_LISTED]],
        "importances": study.importances(),
        "output": display_path(options.output) if options.output is not None else None,
        "config": recipe.model_dump(mode="json", by_alias=True),
        "warnings": list(validation.warnings),
    }


def best_recipe(config: FitConfig, members: Sequence[MemberConfig], settings: Mapping[str, Any]) -> FitConfig:
    """The recipe with a trial's settings in it."""
    changed = apply(members, settings, "best trial")
    update = {"members": changed} if config.members is not None else {"train": changed[0].train}
    return config.model_copy(update=update)


def _entry(trial: FrozenTrial, space: Sequence[Param]) -> dict[str, Any]:
    """A trial's number, value, standard deviation over the folds and settings."""
    import statistics

    folds = [value for value in trial.user_attrs.get(FOLDS, {}).values() if value is not None]
    known = {param.path: param for param in space}
    return {
        "number": trial.number,
        "value": trial.value,
        "std": statistics.stdev(folds) if len(folds) > 1 else None,
        "settings": {p: known[p].value(v) if p in known else v for p, v in sorted(trial.params.items())},
    }


def _reasons(study: TuneStudy) -> dict[str, int]:
    """Why trials have no value -> how many of them."""
    found: dict[str, int] = {}
    for trial in study.finished:
        reason = trial.user_attrs.get(REASON)
        if reason is not None:
            found[reason] = found.get(reason, 0) + 1
    return found


def _write_recipe(path: Path, recipe: FitConfig, study: TuneStudy, best: Mapping[str, Any], metric: Metric) -> None:
    value = recipe.model_dump(mode="json", by_alias=True)
    value = {key: entry for key, entry in value.items() if entry is not None}
    head = (
        f"# Trial {best['number']} of study {study.study.study_name}: cross-validated {metric.name} "
        f"{best['value']:.4f} on training rows.\n"
        f"# It is the best of {len(study.complete)}, so a little too good; `fit` measures it on rows it has not seen.\n"
    )
    text = head + yaml.safe_dump(value, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)
    atomic_write_bytes(path, text.encode("utf-8"))


def _default(members: Sequence[MemberConfig]) -> Sequence[str]:
    if not any(member.train.head.kind == "mlp" for member in members):
        kinds = ", ".join(member.train.head.kind for member in members)
        raise UsageError(f"heads of kind {kinds} have no default search space", hint="pass --param or --space")
    return DEFAULT_SPACE


def _ignore(_: object) -> None:
    pass
