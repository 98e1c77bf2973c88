"""Checks and verdicts: NaN never passes, what could not run is no pass, JSON has no NaN."""

from __future__ import annotations

import json
import math

import pytest

from vqa_train.pipelines.gates.result import Check, GateReport


@pytest.mark.parametrize(
    ("check", "verdict"),
    [
        (Check.at_most("x", 1.0, 1.0), "pass"),
        (Check.at_most("x", 1.1, 1.0), "fail"),
        (Check.at_most("x", math.nan, 1.0), "fail"),
        (Check.at_most("x", math.inf, 1.0), "fail"),
        (Check.at_least("x", 1.0, 1.0), "pass"),
        (Check.at_least("x", 0.9, 1.0), "fail"),
        (Check.at_least("x", math.nan, 1.0), "fail"),
        (Check.equal("x", "a", "a"), "pass"),
        (Check.equal("x", "a", "b"), "fail"),
        (Check.equal("x", math.nan, math.nan), "fail"),
        (Check.passed("x"), "pass"),
        (Check.failed("x", "broken"), "fail"),
        (Check.not_run("x", "no data"), "not_run"),
    ],
)
def test_a_check_passes_only_where_its_relation_holds(check: Check, verdict: str) -> None:
    assert check.verdict == verdict


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ("pp", "pass"), ("pf", "fail"), ("pn", "not_run"), ("fn", "fail"), ("n", "not_run"), ("", "not_run"),
    ],
)  # fmt: skip
def test_the_worst_check_decides(verdicts: str, expected: str) -> None:
    kinds = {"p": Check.passed("p"), "f": Check.failed("f", "why"), "n": Check.not_run("n", "why")}
    report = GateReport("parity", "m:1", "a" * 64, [kinds[v] for v in verdicts])
    assert report.verdict == expected
    assert report.to_json()["verdict"] == expected


def test_the_document_is_json_without_nan() -> None:
    checks = [Check.at_most("nan", math.nan, 1.0), Check.at_most("inf", math.inf, 1.0)]
    document = GateReport("drift", "m:1", None, checks, {"rows": 3}).to_json()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert [check["value"] for check in document["checks"]] == [None, "inf"]
