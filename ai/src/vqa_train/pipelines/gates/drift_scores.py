"""Scores against the model's own scores on its training rows: population stability index, shift, range, failures."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqa_train.pipelines.fit.training_statistics import bin_shares, effective_rows
from vqa_train.pipelines.gates.drift_limits import DriftLimits, share_limit, standard_error
from vqa_train.pipelines.gates.result import Check
from vqa_train.registry.facts import ScoreStatistics, TrainingStatistics
from vqa_train.registry.sidecar import ModelSidecar

Vector = NDArray[np.float64]
# Added to the count of every bin, so that an empty one has a logarithm (Krichevsky and Trofimov 1981).
_PSEUDO = 0.5


def psi(counts: NDArray[np.int64], training: NDArray[np.int64]) -> float:
    """Population stability index: sum of (p - q) ln(p / q) over the bins (Siddiqi, Credit Risk Scorecards, 2006).

    p and q are the shares of both samples, with half a count added to every bin.
    """
    p, q = (
        (values + _PSEUDO) / (values.sum() + _PSEUDO * len(values)) for values in (counts, training.astype(np.float64))
    )
    return float(np.sum((p - q) * np.log(p / q)))


def psi_noise(rows: float, training: float, bins: int, noise_sd: float) -> float:
    """What sampling alone gives: (1/n + 1/m) chi-square of bins - 1 degrees of freedom (Yurdakul 2018), at the quantile
    that `noise_sd` is of a normal distribution (Wilson and Hilferty 1931)."""
    k = bins - 1
    quantile = k * (1 - 2 / (9 * k) + noise_sd * sqrt(2 / (9 * k))) ** 3
    return float(max(0.0, quantile)) * (1 / rows + 1 / training)


def compare_scores(
    target: str,
    scores: Vector,
    independent: float,
    training: ScoreStatistics,
    expected: tuple[float, float],
    limits: DriftLimits,
) -> tuple[list[Check], dict[str, Any]]:
    """Checks of one target's scores.

    Args:
        target: its name.
        scores: float64 (N,), NaN where there is none.
        independent: as how many independent rows the finite ones count.
        training: the model's scores of its training rows.
        expected: the range that the sidecar tells to expect.
        limits: of the gate.
    """
    prefix = f"scores.{target}"
    finite = scores[np.isfinite(scores)]
    rows = independent
    if rows < limits.min_rows:
        why = f"{len(finite)} scores count as {rows:.3g} independent ones, {limits.min_rows} are needed (min_rows)"
        return [Check.not_run(prefix, why)], {"rows": len(finite)}
    counts, before = bin_shares(finite, training.deciles), np.asarray(training.counts)
    found = psi(counts, before)
    noise = psi_noise(rows, training.effective, len(counts), limits.noise_sd)
    unit = training.std if training.std > 0 else max(abs(training.mean), 1.0) * 1e-6
    shift = abs(float(finite.mean()) - training.mean) / unit
    outside = float(((finite < expected[0]) | (finite > expected[1])).mean())
    checks = [
        Check.at_most(
            f"{prefix}.psi",
            found,
            limits.psi + noise,
            f"over {len(counts)} bins of the training scores; {noise:.2g} of the limit is noise of {rows:.3g} rows",
        ),
        Check.at_most(
            f"{prefix}.shift",
            shift,
            limits.score_shift + limits.noise_sd * standard_error(rows, training.effective),
            f"sd; mean {finite.mean():.4g}, in training {training.mean:.4g}",
        ),
        Check.at_most(
            f"{prefix}.outside",
            outside,
            share_limit(limits, limits.score_outside, rows),
            f"share of scores outside {expected[0]:.4g} to {expected[1]:.4g}",
        ),
    ]
    details = {
        "rows": len(finite),
        "effective": rows,
        "mean": float(finite.mean()),
        "std": float(finite.std()),
        "training_mean": training.mean,
        "training_std": training.std,
        "edges": list(training.deciles),
        "counts": counts.tolist(),
        "training_counts": list(training.counts),
        "psi_noise": noise,
    }
    return checks, details


def score_checks(
    sidecar: ModelSidecar,
    statistics: TrainingStatistics,
    scores: Vector,
    group_of: Sequence[object] | None,
    limits: DriftLimits,
    unit: str,
) -> tuple[list[Check], dict[str, Any]]:
    """Checks of all targets' scores.

    Args:
        sidecar: of the model.
        statistics: its training statistics.
        scores: float64 (N, K), NaN where there is none.
        group_of: (N,) content of each row; None where it is not known: then as in training.
        limits: of the gate.
        unit: what a row is, for messages.
    """
    rows = len(scores)
    lacking = int((~np.isfinite(scores)).any(axis=1).sum())
    checks = []
    if rows >= limits.min_rows:
        checks.append(
            Check.at_most(
                "scores.failed",
                lacking / rows,
                share_limit(limits, limits.failed_share, rows),
                f"share of {rows} {unit} without a score",
            )
        )
    details: dict[str, Any] = {}
    for k, target in enumerate(sidecar.targets):
        known, there = statistics.scores[target], np.flatnonzero(np.isfinite(scores[:, k]))
        if group_of is None:
            independent = len(there) * known.effective / known.rows
        else:
            independent = effective_rows(scores[there, k], [str(group_of[i]) for i in there.tolist()])
        some, details[target] = compare_scores(
            target, scores[:, k], independent, known, sidecar.expected_output_range[target], limits
        )
        checks += some
    return checks, details
