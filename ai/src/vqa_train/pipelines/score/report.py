"""Scores as JSON values and as rows of a table, and back from JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vqa_train.core.errors import Reason
from vqa_train.pipelines.score.threshold import Threshold
from vqa_train.pipelines.score.types import Score, ScoreFailure, Timeline
from vqa_train.registry.sidecar import LOW, SPREAD, ModelSidecar

SCORES_SCHEMA = "vqa-train/scores/1"
LINE_SCHEMA = "vqa-train/score/1"

Result = Score | ScoreFailure


@dataclass(frozen=True)
class Judged:
    """A result, and which thresholds it trips: threshold -> what holds, in words."""

    result: Result
    tripped: Mapping[str, str]


def judge(result: Result, thresholds: Sequence[Threshold]) -> Judged:
    """Which of `thresholds` a result trips; a failure trips none, it is a failure."""
    if not isinstance(result, Score):
        return Judged(result, {})
    return Judged(result, {t.text: words for t in thresholds if (words := t.trips(result)) is not None})


def report(sidecar: ModelSidecar, results: Sequence[Judged], thresholds: Sequence[Threshold]) -> dict[str, Any]:
    """The whole document of `--format json`."""
    scored = [found for found in results if isinstance(found.result, Score)]
    failed = [found for found in results if not isinstance(found.result, Score)]
    return {
        "schema": SCORES_SCHEMA,
        "model": model_facts(sidecar),
        "results": [entry(found) for found in scored],
        "failures": [entry(found) for found in failed],
        "thresholds": [threshold.text for threshold in thresholds],
        "counts": {
            "inputs": len(results),
            "scored": len(scored),
            "failed": len(failed),
            "tripped": sum(bool(found.tripped) for found in scored),
        },
    }


def model_facts(sidecar: ModelSidecar) -> dict[str, Any]:
    """What a reader of scores must know of the model."""
    return {
        "name": sidecar.name,
        "version": sidecar.version,
        "kind": sidecar.kind,
        "onnx_sha256": sidecar.onnx.sha256,
        "targets": sidecar.targets,
        "outputs": sidecar.output_names,
        "level": sidecar.calibration.level if sidecar.calibration and sidecar.calibration.bounded else None,
        "direction": sidecar.direction,
        "mos_range": {target: list(bounds) for target, bounds in sidecar.mos_range.items()},
        "expected_range": {target: list(bounds) for target, bounds in sidecar.expected_output_range.items()},
    }


def line(found: Judged, sidecar: ModelSidecar) -> dict[str, Any]:
    """The object of one line of `--format jsonl`, which speaks for itself."""
    status = "scored" if isinstance(found.result, Score) else "failed"
    facts = model_facts(sidecar)
    model = {key: facts[key] for key in ("name", "version", "onnx_sha256", "direction", "mos_range")}
    return {"schema": LINE_SCHEMA, "status": status, "model": model, **entry(found)}


def entry(found: Judged) -> dict[str, Any]:
    """One of `results` or `failures`."""
    r = found.result
    named = {"video": r.video, "prompt": r.prompt, "reference": r.reference}
    if not isinstance(r, Score):
        return {**named, "reason": r.reason.value, "message": r.message}
    return {
        **named,
        "scores": dict(r.scores),
        "spread": dict(r.spread),
        "interval": {target: list(ends) if ends else None for target, ends in r.interval.items()},
        "missing_inputs": list(r.missing),
        "outside_expected": list(r.outside_expected),
        "tripped": list(found.tripped),
        "provider": r.provider,
        "timeline": r.timeline.to_json() if r.timeline is not None else None,
    }


def restored(value: Mapping[str, Any], sidecar: ModelSidecar) -> Result:
    """Inverse of `entry`, for results of the model with this sidecar.

    Raises:
        KeyError, TypeError, ValueError: it is none.
    """
    named = {key: value[key] for key in ("video", "prompt", "reference")}
    if "reason" in value:
        return ScoreFailure(**named, reason=Reason(value["reason"]), message=value["message"])
    targets = sidecar.targets
    interval = {t: (ends[0], ends[1]) if (ends := value["interval"][t]) else None for t in targets}
    known = any(ends is not None for ends in interval.values())
    return Score(
        **named,
        scores={t: value["scores"][t] for t in targets},
        spread={t: value["spread"][t] for t in targets},
        interval=interval,
        level=sidecar.calibration.level if sidecar.calibration is not None and known else None,
        missing=tuple(value["missing_inputs"]),
        timeline=Timeline.from_json(value["timeline"]) if value["timeline"] is not None else None,
        mos_range=sidecar.mos_range,
        expected_range=sidecar.expected_output_range,
        direction=sidecar.direction,
        model=sidecar.name,
        version=sidecar.version,
        model_sha256=sidecar.onnx.sha256,
        provider=value["provider"],
    )


def csv_rows(sidecar: ModelSidecar, results: Sequence[Judged], *, timeline: bool) -> tuple[list[str], list[list[str]]]:
    """One line per video, failures too; the scale and direction stand in columns so that a row speaks for itself."""
    targets = sidecar.targets
    spread = [f"{t}_spread" for t in targets] if SPREAD in sidecar.output_names else []
    ends = [f"{t}_interval_{end}" for t in targets for end in ("low", "high")] if LOW in sidecar.output_names else []
    curve = [f"{t}_{what}" for t in targets for what in ("worst", "worst_at_s")] if timeline else []
    extra = [*spread, *ends, *curve]
    header = ["video", "prompt", *(["reference"] if sidecar.takes_reference else []), *targets]
    header += [f"{t}_{end}" for t in targets for end in ("low", "high")] + extra
    header += ["missing_inputs", "outside_expected", "tripped", "direction"]
    header += ["model", "version", "model_sha256", "provider", "reason", "message"]
    ranges = [f"{bound:g}" for target in targets for bound in sidecar.mos_range[target]]
    model = [sidecar.direction, sidecar.name, sidecar.version, sidecar.onnx.sha256]
    rows = []
    for found in results:
        r = found.result
        row = [r.video, r.prompt or "", *([r.reference or ""] if sidecar.takes_reference else [])]
        if isinstance(r, Score):
            known = [_digits(r.spread[t]) for t in targets] if spread else []
            for t in targets if ends else []:
                known += map(_digits, r.interval[t] or (None, None))
            for t in targets if curve else []:
                known += _worst(r, t)
            row += [*(_digits(r.scores[t]) for t in targets), *ranges, *known]
            row += [" ".join(r.missing), " ".join(r.outside_expected), " ".join(found.tripped), *model, r.provider]
            rows.append([*row, "", ""])
        else:
            row += [*[""] * len(targets), *ranges, *[""] * (len(extra) + 3), *model, ""]
            rows.append([*row, r.reason.value, r.message])
    return header, rows


def _worst(score: Score, target: str) -> list[str]:
    if score.timeline is None:
        return ["", ""]
    at, worst = score.timeline.worst(target, score.direction)
    return [_digits(worst), f"{at:g}"]


def _digits(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"
