"""What the gate commands share: the gate file, a table of checks, exit code 3 unless the verdict is pass."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vqa_train.cli.common import emit_json, print_line, print_table

if TYPE_CHECKING:
    from vqa_train.pipelines.gates.result import GateReport, Value

GatesOption = Annotated[
    Path | None,
    typer.Option(
        "--gates",
        metavar="YAML|NAME",
        help="Gate file with limits, or one that comes along (release); flags go before it.",
    ),
]
_VERDICTS = {"pass": "PASS", "fail": "FAIL", "not_run": "NOT RUN"}


def finish(report: GateReport, json_path: str | None) -> None:
    """Print the checks, write the JSON, and leave with exit code 3 unless the verdict is pass."""
    emit_json(report.to_json(), json_path)
    if json_path != "-":
        show(report)
    leave(report)


def show(report: GateReport) -> None:
    """The checks as a table and the verdict as the last line."""
    rows = [
        [c.name, _VERDICTS[c.verdict], _text(c.value), f"{c.relation} {_text(c.limit)}".strip(), c.message]
        for c in report.checks
    ]
    if rows:
        print_table(f"{report.gate}: {report.model}", ["check", "verdict", "value", "limit", ""], rows)
    print_line(f"{report.gate}: {_VERDICTS[report.verdict]}")


def leave(report: GateReport) -> None:
    """Exit code 3 unless the verdict is pass: what could not run did not pass."""
    from vqa_train.core.errors import ExitCode

    if report.verdict != "pass":
        raise typer.Exit(ExitCode.GATE_FAILED)


def _text(value: Value) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
