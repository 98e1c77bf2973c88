"""vqa-train profile: parse, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vqa_train.cli.common import JsonOption, emit_json, print_line, print_table
from vqa_train.cli.gates import GatesOption, leave, show
from vqa_train.cli.options import ModelArgument, RegistryOption

if TYPE_CHECKING:
    from vqa_train.pipelines.gates.result import GateReport

_LATENCY = "Limits of the head"
_VIDEO = "With a video"


def profile(
    model: ModelArgument,
    batches: Annotated[str, typer.Option(metavar="N,N,...", help="Rows at once, for the throughput.")] = "1,8,64,512",
    threads: Annotated[
        str, typer.Option(metavar="N,N,...", help="Threads of onnxruntime; latency limits hold for the first.")
    ] = "1,2",
    runs: Annotated[int, typer.Option(min=1, help="Of one row, for the percentiles.")] = 2000,
    max_p50_us: Annotated[float | None, typer.Option(metavar="US", help="One row.", rich_help_panel=_LATENCY)] = None,
    max_p95_us: Annotated[float | None, typer.Option(metavar="US", help="One row.", rich_help_panel=_LATENCY)] = None,
    max_p99_us: Annotated[float | None, typer.Option(metavar="US", help="One row.", rich_help_panel=_LATENCY)] = None,
    min_rows_per_s: Annotated[
        float | None, typer.Option(metavar="N", help="Best of all batches and threads.", rich_help_panel=_LATENCY)
    ] = None,
    max_rss_mb: Annotated[
        float | None, typer.Option(metavar="MB", help="Peak of a process.", rich_help_panel=_LATENCY)
    ] = None,
    max_size_mb: Annotated[
        float | None, typer.Option(metavar="MB", help="All files of the model.", rich_help_panel=_LATENCY)
    ] = None,
    max_load_s: Annotated[
        float | None, typer.Option(metavar="S", help="Opening, hash included.", rich_help_panel=_LATENCY)
    ] = None,
    video: Annotated[
        Path | None, typer.Option(metavar="CLIP", help="Also the whole path, cold and warm.", rich_help_panel=_VIDEO)
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="Where the model takes one.", rich_help_panel=_VIDEO)] = None,
    reference: Annotated[
        Path | None, typer.Option(metavar="CLIP", help="For full-reference models.", rich_help_panel=_VIDEO)
    ] = None,
    max_cold_s: Annotated[
        float | None, typer.Option(metavar="S", help="From the start of a process.", rich_help_panel=_VIDEO)
    ] = None,
    max_warm_s: Annotated[
        float | None, typer.Option(metavar="S", help="With everything open.", rich_help_panel=_VIDEO)
    ] = None,
    max_video_rss_mb: Annotated[
        float | None, typer.Option(metavar="MB", help="Peak of a process.", rich_help_panel=_VIDEO)
    ] = None,
    registry: RegistryOption = Path("model"),
    gates: GatesOption = None,
    json: JsonOption = None,
) -> None:
    """How fast and how large is a model? Measured in fresh processes; exit code 3 where a limit does not hold."""
    from vqa_train.pipelines.gates.config import resolve
    from vqa_train.pipelines.gates.profile import ProfileConfig, ProfileLimits
    from vqa_train.pipelines.gates.profile import profile as run

    flags = {
        "max_p50_us": max_p50_us,
        "max_p95_us": max_p95_us,
        "max_p99_us": max_p99_us,
        "min_rows_per_s": min_rows_per_s,
        "max_rss_mb": max_rss_mb,
        "max_size_mb": max_size_mb,
        "max_load_s": max_load_s,
        "max_cold_s": max_cold_s,
        "max_warm_s": max_warm_s,
        "max_video_rss_mb": max_video_rss_mb,
    }
    report = run(
        ProfileConfig(
            model=model,
            batches=_numbers("batches", batches),
            threads=_numbers("threads", threads),
            runs=runs,
            video=video,
            prompt=prompt,
            reference=reference,
            registry=registry,
        ),
        resolve(ProfileLimits, "profile", gates, flags),
    )
    emit_json(report.to_json(), json)
    if json != "-":
        _show(report)
    leave(report)


def _numbers(flag: str, text: str) -> tuple[int, ...]:
    from vqa_train.core.errors import UsageError

    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"--{flag} {text!r} is not a list of numbers", hint=f"such as --{flag} 1,8") from error


def _show(report: GateReport) -> None:
    heads, video, sizes = report.details["head"], report.details["video"], report.details["bytes"]
    machine = report.details["machine"]
    print_line(f"{machine['processor']}, {machine['cores']} cores")
    batches = list(next(iter(heads.values()))["rows_per_s"])
    columns = ["threads", "p50 us", "p95 us", "p99 us", *(f"rows/s at {b}" for b in batches), "load s", "peak MB"]
    print_table(f"{report.model}: head", columns, [_row(threads, head) for threads, head in heads.items()])
    if video:
        peak = _megabytes(video["peak_rss_bytes"])
        warm = f"{video['warm_s']:.3f}" if video["warm_s"] is not None else ""
        row = [video["video"], *(f"{video[n]:.3f}" for n in ("cold_s", "import_s", "open_s", "first_s")), warm, peak]
        columns = ["video", "cold s", "imports", "open", "first", "warm s", "peak MB"]
        print_table(f"{report.model}: from a video to its scores", columns, [row])
    print_table(f"{report.model}: files", ["file", "MB"], [[name, _megabytes(size)] for name, size in sizes.items()])
    show(report)


def _row(threads: str, head: dict[str, Any]) -> list[str]:
    latency = head["latency_us"]
    return [
        threads,
        *(f"{latency[name]:.1f}" for name in ("p50", "p95", "p99")),
        *(f"{value:,.0f}" for value in head["rows_per_s"].values()),
        f"{head['load_s']:.3f}",
        _megabytes(head["rss_bytes"]["peak"]),
    ]


def _megabytes(value: int | None) -> str:
    return "not known" if value is None else f"{value / 1e6:,.2f}"
