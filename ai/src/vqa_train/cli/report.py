"""vqa-train report: parse, call, print."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from vqa_train.cli.common import JsonOption, emit_json, print_line
from vqa_train.cli.options import ManifestsOption
from vqa_train.core.locations import location


def report(
    source: Annotated[
        str, typer.Argument(metavar="RUN|MODEL", help="Run folder, ONNX file with its sidecar, or a registered name.")
    ],
    output: Annotated[Path, typer.Option("--output", metavar="HTML", help="Page to write; it needs no other file.")],
    features: Annotated[
        Path | None,
        typer.Option(
            "--features",
            metavar="STORE",
            parser=location,
            help="Feature store: adds permutation importance; evaluates a model.",
        ),
    ] = None,
    data_root: Annotated[
        Path | None,
        typer.Option(help="Folder of the videos, if not the manifest's own: for pictures of the worst clips."),
    ] = None,
    dataset: Annotated[
        list[str] | None, typer.Option(metavar="NAME|YAML", help="Dataset, instead of the recorded; may be repeated.")
    ] = None,
    manifests: ManifestsOption = None,
    registry: Annotated[Path, typer.Option(help="Folder of registered models.")] = Path("model"),
    rows: Annotated[
        str | None,
        typer.Option(metavar="held-out|test|val|train|all", help="Rows to draw. (default: the first that there are)"),
    ] = None,
    worst: Annotated[int, typer.Option(min=0, max=100, help="Worst clips to show per target.")] = 8,
    json: JsonOption = None,
) -> None:
    """Make one HTML page of a run or a model: predictions, splits, residuals, calibration, worst clips, provenance."""
    from vqa_train.core.progress import progress
    from vqa_train.pipelines.report.build import write_report
    from vqa_train.pipelines.report.config import ReportConfig

    with ExitStack() as stack:
        result = write_report(
            ReportConfig(
                source=source,
                output=output,
                features=features,
                data_root=data_root,
                datasets=tuple(dataset or ()),
                manifests_dir=manifests,
                registry=registry,
                rows=rows,
                worst=worst,
            ),
            advance=lambda name, count: stack.enter_context(progress(name, count)),
        )
    emit_json(result.to_json(), json)
    if json == "-":
        return
    print_line(f"{output}: {result.kind}, {result.bytes / 1e6:.2f} MB, {', '.join(result.sections)}")
    for note in result.notes:
        print_line(f"note: {note}")
