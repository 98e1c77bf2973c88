"""The present champion's recipe on the same held-out rows, and the candidate's lead over it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from vqa_train.core.errors import VqaError
from vqa_train.datasets.protocols import SplitsFile
from vqa_train.evaluation.rivals import Comparison
from vqa_train.pipelines import runs
from vqa_train.pipelines.evaluate.compare import compare
from vqa_train.pipelines.gates.compare_models import Lead
from vqa_train.pipelines.gates.promote_limits import PromoteLimits
from vqa_train.pipelines.gates.promote_recipe import dump, essence, recipe_of
from vqa_train.pipelines.gates.promote_runs import Evidence, Refit
from vqa_train.pipelines.gates.result import Check
from vqa_train.registry.reference import CHAMPION, ModelRef
from vqa_train.registry.registry import ModelRegistry

_RESAMPLES = 1000


@dataclass(frozen=True)
class ChampionResult:
    """Checks against the champion, and what they rest on."""

    checks: list[Check]
    details: dict[str, Any] = field(default_factory=dict)


def against_champion(
    registry: ModelRegistry,
    candidate: ModelRef,
    evidence: Sequence[Evidence],
    again: Refit,
    limits: PromoteLimits,
    targets: Sequence[str],
) -> ChampionResult:
    """Fit the champion's recipe on the candidate's splits, once per seed, and test the difference.

    Args:
        registry: with the champion.
        candidate: with its version.
        evidence: of the candidate, one per seed, over the same splits; at least one.
        again: how the candidate is fitted again; the champion's runs go into a folder beside its.
        limits: of the promotion.
        targets: that count.
    """
    champion = registry.models()[candidate.name].aliases.get(CHAMPION)
    if champion is None:
        return ChampionResult([Check.passed("champion", "there is none yet")])
    details: dict[str, Any] = {"version": champion}
    if champion == candidate.version:
        return ChampionResult([Check.passed("champion", "it is the champion already")], details)
    try:
        refit = _refit(registry, ModelRef(candidate.name, version=champion), evidence[0], again)
        if essence(dump(refit.config)) == essence(dump(again.config)):
            return ChampionResult([_same_recipe(champion, limits)], details)
        rivals = _fit(refit, evidence)
        leads = [_leads(mine, rival, limits, targets) for mine, rival in zip(evidence, rivals, strict=True)]
    except VqaError as error:
        why = f"version {champion}: {error}"
        if limits.champion == "optional":
            return ChampionResult([Check.passed("champion", f"not compared, which is optional: {why}")], details)
        return ChampionResult([Check.not_run("champion", why)], details)
    details["seeds"] = [rival.to_json() for rival in rivals]
    details["leads"] = [[lead.comparison.to_json() for lead in per_seed] for per_seed in leads]
    missing = [target for target in targets if target not in rivals[0].record.targets]
    checks = [Check.passed(f"champion.{target}", f"version {champion} does not have it") for target in missing]
    checks += [_check(champion, same, limits) for same in zip(*leads, strict=True)]
    return ChampionResult(checks, details)


def _same_recipe(champion: str, limits: PromoteLimits) -> Check:
    words = f"version {champion} has the same recipe, so the same held-out numbers"
    if limits.champion_require == "better":
        return Check.failed("champion", f"{words}: it cannot be better")
    return Check.passed("champion", words)


def _refit(registry: ModelRegistry, champion: ModelRef, first: Evidence, again: Refit) -> Refit:
    sidecar, _ = registry.find(champion)
    splits = SplitsFile(path=str(first.folder / runs.SPLITS_FILE))
    return replace(
        again,
        config=recipe_of(sidecar).model_copy(update={"protocol": splits, "dataset": again.config.dataset}),
        output=again.output / f"champion-{champion.version}",
        label=f"champion {champion.version}",
    )


def _fit(refit: Refit, evidence: Sequence[Evidence]) -> list[Evidence]:
    first = evidence[0]
    corpus = first.corpus.sha256 if refit.config.targets == first.record.targets else None
    return [
        refit.seed(number, splits_sha256=first.plan.sha256, corpus_sha256=corpus) for number in range(len(evidence))
    ]


def _leads(mine: Evidence, rival: Evidence, limits: PromoteLimits, targets: Sequence[str]) -> list[Lead]:
    """Per target and metric: over the pooled held-out rows, or over the folds where rows are in several."""
    found = compare(
        [f"candidate={mine.folder}", f"champion={rival.folder}"],
        targets=[target for target in targets if target in rival.record.targets],
        metrics=limits.champion_metrics,
        resamples=_RESAMPLES,
    )
    best: dict[tuple[str, str], Comparison] = {}
    for comparison in found.comparisons:
        key = (comparison.target, comparison.metric)
        if comparison.test == "bootstrap" or (comparison.test == "corrected_t" and key not in best):
            best[key] = comparison
    return [Lead.of(comparison, comparison.p_holm) for comparison in best.values()]


def _check(champion: str, leads: Sequence[Lead], limits: PromoteLimits) -> Check:
    """One target and metric: the lower end of the lead, as the median over the seeds."""
    low = float(np.median([lead.low for lead in leads]))
    value = float(np.median([lead.value for lead in leads]))
    margin, name = limits.champion_margin, f"champion.{leads[0].name}"
    words = f"lower end of the lead over version {champion}, median of {len(leads)} seeds; lead {value:+.4f}"
    if limits.champion_require == "not-worse":
        return Check.at_least(name, low, 0.0 - margin, words)
    if low > margin:
        return Check(name, "pass", words, low, margin, ">=")
    return Check.failed(name, f"{words}: not surely ahead by more than {margin:g}", low)
