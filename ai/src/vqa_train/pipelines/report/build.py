"""report: a run folder or a model becomes one self-contained HTML page."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from vqa_train.core.errors import ModelError, UsageError
from vqa_train.core.files import atomic_write_bytes
from vqa_train.pipelines import runs
from vqa_train.pipelines.report.config import Advance, ReportConfig, silent
from vqa_train.pipelines.report.page import Page, render

REPORT_SCHEMA = "vqa-train/report/1"
_SUFFIXES = (".html", ".htm")


@dataclass(frozen=True, kw_only=True)
class ReportResult:
    """What was written.

    Attributes:
        output: the page.
        kind: "run" or "model".
        bytes: its size.
        sections: titles of its parts.
        notes: what could not be shown and why.
    """

    output: Path
    kind: str
    bytes: int
    sections: tuple[str, ...]
    notes: tuple[str, ...] = field(default=())

    def to_json(self) -> dict[str, object]:
        """The document of schema `vqa-train/report/1`."""
        return {
            "schema": REPORT_SCHEMA,
            "output": str(self.output),
            "kind": self.kind,
            "bytes": self.bytes,
            "sections": list(self.sections),
            "notes": list(self.notes),
        }


def write_report(config: ReportConfig, *, advance: Advance = silent) -> ReportResult:
    """Read, draw, write.

    The same source, data and package versions give the same bytes: the page holds no time of its own.

    Args:
        config: what to report.
        advance: shows the progress of long steps.

    Raises:
        RunError, ModelError: the source is missing, unfinished or changed.
        UsageError: an output that is no .html, or rows that the source does not have.
        DependencyError: matplotlib, Jinja2 or Pillow is not installed.
        OSError: the page cannot be written.
    """
    if config.output.suffix.lower() not in _SUFFIXES:
        raise UsageError(f"--output {str(config.output)!r} must end in .html")
    kind, page = _page(config, advance)
    html = render(page).encode("utf-8", "replace")
    atomic_write_bytes(config.output, html)
    shown = [section for section in page.sections if not section.empty]
    notes = tuple(note for section in shown for note in section.notes)
    return ReportResult(
        output=config.output, kind=kind, bytes=len(html), sections=tuple(s.title for s in shown), notes=notes
    )


def _page(config: ReportConfig, advance: Advance) -> tuple[str, Page]:
    source = Path(config.source)
    if (source / runs.RUN_FILE).is_file() or source.is_dir():
        from vqa_train.pipelines.report.run import run_page

        return "run", run_page(source, config, advance)
    from vqa_train.pipelines.report.model import model_page

    try:
        return "model", model_page(config, advance)
    except ModelError as error:
        if config.source.endswith(".onnx"):
            raise
        raise ModelError(f"{config.source!r} is no run folder; {error.message}", hint=error.hint) from error
