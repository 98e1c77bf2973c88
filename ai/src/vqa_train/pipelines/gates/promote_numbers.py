"""The numbers of a promotion: over folds and seeds, against the limits; and whether the runs belong together."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from vqa_train.evaluation.summary import summarise_values
from vqa_train.pipelines.gates.corpus import Corpus
from vqa_train.pipelines.gates.promote_limits import PromoteLimits, limit_of
from vqa_train.pipelines.gates.promote_recipe import essence
from vqa_train.pipelines.gates.promote_runs import REPORTED, Evidence
from vqa_train.pipelines.gates.result import Check

_MATTERS = "every seed gives the same: all members have a closed form"


def belong_together(
    evidence: Sequence[Evidence], recipe: Mapping[str, Any], corpus: Corpus, *, random: bool
) -> Iterator[Check]:
    """Whether runs are of one recipe, which is the candidate's, over one corpus and one set of splits, without leaks.

    Args:
        evidence: one per seed.
        recipe: of the candidate, resolved, JSON values.
        corpus: as the datasets and the store have it.
        random: whether seeds make a difference.
    """
    other = [one.name for one in evidence if essence(one.record.config) != essence(recipe)]
    yield Check.equal("runs.recipe", len(other), 0, _named(other, "another recipe than the candidate's"))
    rows = [one.name for one in evidence if one.corpus.sha256 != corpus.sha256]
    yield Check.equal("runs.corpus", len(rows), 0, _named(rows, f"another corpus than {corpus.sha256[:12]}"))
    splits = sorted({one.plan.sha256 for one in evidence})
    yield Check.equal("runs.splits", len(splits), 1, "sets of splits")
    leaking = [f"{one.name} {one.leaks[0]}" for one in evidence if one.leaks]
    yield Check.equal("splits.leaks", len(leaking), 0, "; ".join(leaking))
    distinct = len({tuple(one.seeds) for one in evidence}) if random else len(evidence)
    ids = len({one.record.run_provenance.get("run_id") for one in evidence})
    yield Check.equal("runs.distinct", min(distinct, ids), len(evidence), "runs with seeds of their own")


def _named(names: Sequence[str], what: str) -> str:
    return f"{', '.join(names)}: {what}" if names else ""


def held_to_limits(
    evidence: Sequence[Evidence], limits: PromoteLimits, targets: Sequence[str], *, random: bool
) -> Iterator[Check]:
    """Numbers against limits; the worst seed counts, each seed by the median over its folds."""
    yield Check.at_least("seeds", len(evidence), limits.min_seeds, "" if random else _MATTERS)
    yield Check.at_least("folds", min(len(one.plan.folds) for one in evidence), limits.min_folds)
    for target in targets:
        ranges = [one.record.mos_range[target] for one in evidence]
        widths = np.asarray([high - low for low, high in ranges])
        srocc = _values(evidence, target, "srocc")
        undefined = [one.name for one in evidence if one.summary[target]["srocc"].undefined]
        yield Check.equal(
            f"{target}.undefined", len(undefined), 0, _named(undefined, "a fold without SROCC, as of constant scores")
        )
        for name, limit in (("srocc", limits.min_srocc), ("plcc", limits.min_plcc)):
            yield _least(f"{target}.{name}", _values(evidence, target, name), limit_of(limit, target))
        share = _values(evidence, target, "rmse") / widths
        most, worst = limit_of(limits.max_rmse_share, target), float(np.max(share))
        name, words = f"{target}.rmse_share", f"of the MOS range, worst of {len(evidence)} seeds"
        yield (
            Check.passed(name, f"{words}; no limit", worst) if most is None else Check.at_most(name, worst, most, words)
        )
        yield Check.at_most(
            f"{target}.seed_spread", float(np.ptp(srocc)), limits.max_seed_spread, "largest less smallest SROCC"
        )
        wanted = limit_of(limits.min_interval_coverage, target)
        if wanted is not None:
            held = np.asarray([one.coverage[target] for one in evidence])
            said = "the recipe has no calibration" if np.isnan(held).any() else "share of held-out labels inside"
            yield Check.at_least(f"{target}.interval_coverage", float(np.min(held)), wanted, said)


def _least(name: str, values: np.ndarray[Any, Any], limit: float | None) -> Check:
    worst, words = float(np.min(values)), f"worst of {len(values)} seeds, median {np.median(values):.4f}"
    return (
        Check.passed(name, f"{words}; no limit", worst) if limit is None else Check.at_least(name, worst, limit, words)
    )


def _values(evidence: Sequence[Evidence], target: str, metric: str) -> np.ndarray[Any, Any]:
    """One per seed; NaN where a fold has no value, and then so are the smallest and the largest."""
    return np.asarray([one.value(target, metric) for one in evidence], dtype=np.float64)


def over_seeds(evidence: Sequence[Evidence], targets: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Target -> metric -> median, mean, std, range over the seeds, of each seed's median over folds; JSON values."""
    found: dict[str, dict[str, Any]] = {}
    for target in targets:
        found[target] = {}
        for metric in REPORTED:
            values = summarise_values(_values(evidence, target, metric).tolist())
            spread = values.max - values.min
            found[target][metric] = {**values.to_json(), "range": spread if math.isfinite(spread) else None}
    return found
