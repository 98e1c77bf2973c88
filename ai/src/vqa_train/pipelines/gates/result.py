"""What a gate found: checks with their values and limits, and the verdict that follows from them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

GATE_SCHEMA = "vqa-train/gate/1"
Verdict = Literal["pass", "fail", "not_run"]
Value = float | int | str | bool | None


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: stable, for programs: `scores.shift`.
        verdict: `not_run` where it could not be looked at, which is no pass.
        message: what a reader needs to understand it; for a failure, what is wrong.
        value: what was found.
        limit: what it was held against.
        relation: how: `<=`, `>=` or `==`.
    """

    name: str
    verdict: Verdict
    message: str = ""
    value: Value = None
    limit: Value = None
    relation: Literal["<=", ">=", "==", ""] = ""

    @classmethod
    def at_most(cls, name: str, value: float, limit: float, message: str = "") -> Check:
        """Passes where `value` <= `limit`; NaN fails."""
        return cls(name, "pass" if value <= limit else "fail", message, value, limit, "<=")

    @classmethod
    def at_least(cls, name: str, value: float, limit: float, message: str = "") -> Check:
        """Passes where `value` >= `limit`; NaN fails."""
        return cls(name, "pass" if value >= limit else "fail", message, value, limit, ">=")

    @classmethod
    def equal(cls, name: str, value: Value, expected: Value, message: str = "") -> Check:
        """Passes where both are the same; NaN fails."""
        return cls(name, "pass" if value == expected else "fail", message, value, expected, "==")

    @classmethod
    def passed(cls, name: str, message: str = "", value: Value = None) -> Check:
        """Passes: what was looked at has no limit."""
        return cls(name, "pass", message, value)

    @classmethod
    def failed(cls, name: str, message: str, value: Value = None) -> Check:
        """Fails, for the reason in `message`."""
        return cls(name, "fail", message, value)

    @classmethod
    def not_run(cls, name: str, why: str) -> Check:
        """Could not be looked at."""
        return cls(name, "not_run", why)

    def to_json(self) -> dict[str, Any]:
        """JSON values; NaN is null, infinity a string."""
        return {
            "name": self.name,
            "verdict": self.verdict,
            "value": _json(self.value),
            "relation": self.relation,
            "limit": _json(self.limit),
            "message": self.message,
        }


@dataclass(frozen=True)
class GateReport:
    """What one gate found of one model.

    Attributes:
        gate: its name: `parity`, `drift`, ...
        model: as it was named, with its version.
        model_sha256: of the head's ONNX file.
        checks: in the order in which they were made.
        details: what else is worth keeping, JSON values.
        provenance: run_provenance of the check.
    """

    gate: str
    model: str
    model_sha256: str | None
    checks: Sequence[Check]
    details: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        """`fail` where any check fails; else `not_run` where one could not run, or there is none; else `pass`."""
        verdicts = {check.verdict for check in self.checks}
        if "fail" in verdicts:
            return "fail"
        return "pass" if verdicts == {"pass"} else "not_run"

    def to_json(self) -> dict[str, Any]:
        """The document of schema `vqa-train/gate/1`; JSON values only, no NaN."""
        return {
            "schema": GATE_SCHEMA,
            "gate": self.gate,
            "model": self.model,
            "model_sha256": self.model_sha256,
            "verdict": self.verdict,
            "checks": [check.to_json() for check in self.checks],
            "details": dict(self.details),
            "run_provenance": dict(self.provenance),
        }


def _json(value: Value) -> Value:
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value
