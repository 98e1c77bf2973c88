"""Whether a registered model is what it says it is: files, graphs, golden rows, parity, ancestors, honest metrics."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from vqa_train.pipelines.gates.result import Check
from vqa_train.pipelines.gates.unseen import unseen_check
from vqa_train.pipelines.models.verify import verify_model
from vqa_train.registry.registry import ModelRegistry
from vqa_train.registry.sidecar import ModelSidecar


def chain_checks(registry: ModelRegistry, label: str) -> list[Check]:
    """The whole chain of hashes, the signature where the registry's policy asks for one, the graphs, golden rows.

    Args:
        registry: with the policy.
        label: NAME:VERSION.
    """
    found = verify_model(registry, label)
    checks = [
        Check.failed(f"integrity.{one.part.replace(' ', '_')}", one.message)
        for one in found.checks
        if one.verdict == "failed"
    ]
    if checks:
        return checks
    done = sum(one.verdict == "ok" for one in found.checks)
    signed = next((one.message for one in found.checks if one.part == "signature"), "")
    return [Check.passed("integrity.chain", f"{done} checks; signature: {signed or 'none'}")]


def sidecar_checks(sidecar: ModelSidecar) -> Iterator[Check]:
    """What the sidecar says of the model's parity, ancestors and metrics."""
    yield _parity(sidecar.parity)
    random = [item.name for item in sidecar.inputs if item.feature_spec().random_seed is not None]
    if sidecar.descends_from_random_weights or random:
        yield Check.failed("integrity.weights", f"it descends from random weights: {', '.join(random) or 'it says so'}")
    else:
        yield Check.passed("integrity.weights", "no random weights among its ancestors")
    yield _metrics(sidecar)


def _parity(parity: Mapping[str, Any]) -> Check:
    sets = parity.get("sets") or []
    tolerance = parity.get("tolerance")
    if not sets or not isinstance(tolerance, int | float):
        return Check.not_run("integrity.parity", "the sidecar records no parity of torch and onnxruntime")
    rows = sum(int(one.get("rows", 0)) for one in sets)
    if not rows:
        return Check.not_run("integrity.parity", "the recorded parity rests on no row")
    found = [one.get("max_scaled_diff") for one in sets]
    # `max` passes over a NaN that is not the first.
    whole = all(isinstance(value, int | float) and math.isfinite(value) for value in found)
    worst = max(map(float, found)) if whole else math.nan
    return Check.at_most("integrity.parity", worst, float(tolerance), f"as export recorded it, {rows} rows")


def _metrics(sidecar: ModelSidecar) -> Check:
    """Recorded metrics must be of rows that the model did not see, unless they say that they are of its own."""
    name, metrics = "integrity.metrics", sidecar.metrics
    if metrics is None:
        return Check.passed(name, "the sidecar claims none")
    split = str(metrics.get("split"))
    if split in ("train", "val"):
        return Check.passed(name, f"of split {split!r}, as they say: a part of the fit")
    inputs = (metrics.get("run_provenance") or {}).get("inputs") or {}
    manifests = {
        key.removeprefix("dataset "): str(entry.get("sha256"))
        for key, entry in inputs.items()
        if key.startswith("dataset ")
    }
    if not manifests:
        manifests = dict.fromkeys(metrics.get("datasets") or [], "")
    if not manifests:
        return Check.not_run(name, "the recorded metrics do not say of which dataset they are")
    return unseen_check(name, sidecar, manifests, split)
