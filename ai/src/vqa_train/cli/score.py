"""vqa-score (and vqa-train score): videos in, scores out, with onnxruntime alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vqa_train.cli import common

if TYPE_CHECKING:
    from vqa_train.pipelines.score import Score, ScoreFailure
    from vqa_train.registry.sidecar import ModelSidecar

SCORES_SCHEMA = "vqa-train/scores/1"


def score(
    videos: Annotated[list[str], typer.Argument(metavar="VIDEO|DIR|@LIST", help="Files, folders, lists of paths.")],
    model: Annotated[str, typer.Option(help="Registered model or its folder, or dover, dover++, dover-mobile.")],
    prompt: Annotated[str | None, typer.Option(help="Text the videos were made from.")] = None,
    format_: Annotated[Literal["table", "json", "csv"], typer.Option("--format", help="Form of the result.")] = "table",
    registry: Annotated[Path, typer.Option(help="Folder of registry.json.")] = Path("model"),
    output: Annotated[Path | None, typer.Option(help="Write the result there instead of to stdout.")] = None,
    threads: Annotated[int, typer.Option(min=0, help="For decoding and for each graph; 0: all cores.")] = 0,
) -> None:
    """Score videos with a registered model.

    @LIST is a text file with one path per line and an optional prompt after a tab, or a .csv with the columns
    video and prompt. Exit code: 0 all scored, 4 some failed, 1 none could be scored.
    """
    from vqa_train.core.errors import ExitCode, Reason, UsageError
    from vqa_train.core.progress import progress
    from vqa_train.pipelines.score import Score, Scorer
    from vqa_train.pipelines.score_list import requests
    from vqa_train.pipelines.score_ready import ensure_ready

    items = requests(videos, prompt)
    ensure_ready(model, registry, log=common.log)
    with Scorer(model, registry=registry, threads=threads, isolated=True) as scorer:
        name = scorer.sidecar.name
        if prompt is not None and not scorer.takes_prompt:
            raise UsageError(f"model {name!r} takes no prompt", hint="leave --prompt out")
        if scorer.needs_prompt and not any(item.prompt for item in items):
            raise UsageError(
                f"model {name!r} takes a prompt and got none",
                hint='add --prompt "TEXT", or a prompt column to the list',
                reason=Reason.NO_PROMPT,
            )
        results: list[Score | ScoreFailure] = []
        with progress("scoring", len(items)) as advance:
            for result in scorer.score_many(items):
                results.append(result)
                if not isinstance(result, Score):
                    common.log(f"error: {result.video}: {result.reason}: {result.message}")
                advance()
    _emit(scorer.sidecar, results, format_, output)
    incomplete = [result for result in results if isinstance(result, Score) and result.missing]
    if incomplete:
        inputs = ", ".join(dict.fromkeys(name for result in incomplete for name in result.missing))
        common.log(
            f"note: {len(incomplete)} of {len(results)} videos are scored without {inputs}, which counts as usual"
        )
    unlike = sum(isinstance(result, Score) and bool(result.outside_expected) for result in results)
    if unlike:
        common.log(f"note: {unlike} of {len(results)} videos score outside the range to expect: extrapolation")
    scored = sum(isinstance(result, Score) for result in results)
    if scored < len(results):
        raise typer.Exit(ExitCode.SOME_INPUTS_FAILED if scored else ExitCode.ERROR)


def _emit(sidecar: ModelSidecar, results: list[Score | ScoreFailure], format_: str, output: Path | None) -> None:
    if format_ == "json":
        common.emit_json(_report(sidecar, results), str(output) if output else "-")
        return
    header, rows = _rows(sidecar, results)
    text = _csv(header, rows) if format_ == "csv" else None
    if output is not None:
        from vqa_train.core.files import atomic_write_bytes

        # A table in a file would be read by a program next; CSV is what it can read.
        atomic_write_bytes(output, (text or _csv(header, rows)).encode("utf-8"))
    elif text is not None:
        import sys

        sys.stdout.write(text)
    else:
        _print_table(sidecar, results)


def _report(sidecar: ModelSidecar, results: list[Score | ScoreFailure]) -> dict[str, Any]:
    from vqa_train.pipelines.score import Score

    scored = [r for r in results if isinstance(r, Score)]
    failed = [r for r in results if not isinstance(r, Score)]
    return {
        "schema": SCORES_SCHEMA,
        "model": {
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
        },
        "results": [
            {
                "video": r.video,
                "prompt": r.prompt,
                "scores": dict(r.scores),
                "spread": dict(r.spread),
                "interval": {target: list(ends) if ends else None for target, ends in r.interval.items()},
                "missing_inputs": list(r.missing),
                "outside_expected": list(r.outside_expected),
            }
            for r in scored
        ],
        "failures": [
            {"video": r.video, "prompt": r.prompt, "reason": r.reason.value, "message": r.message} for r in failed
        ],
        "counts": {"inputs": len(results), "scored": len(scored), "failed": len(failed)},
    }


def _rows(sidecar: ModelSidecar, results: list[Score | ScoreFailure]) -> tuple[list[str], list[list[str]]]:
    """One line per video, failures too; the scale and direction stand in columns so that a row speaks for itself."""
    from vqa_train.pipelines.score import Score
    from vqa_train.registry.sidecar import LOW, SPREAD

    targets = sidecar.targets
    spread = [f"{t}_spread" for t in targets] if SPREAD in sidecar.output_names else []
    ends = [f"{t}_interval_{end}" for t in targets for end in ("low", "high")] if LOW in sidecar.output_names else []
    header = ["video", "prompt", *targets, *(f"{t}_{end}" for t in targets for end in ("low", "high"))]
    header += [*spread, *ends, "missing_inputs"]
    header += ["outside_expected", "direction", "model", "model_sha256", "reason", "message"]
    ranges = [f"{bound:g}" for target in targets for bound in sidecar.mos_range[target]]
    tail = [sidecar.direction, sidecar.name, sidecar.onnx.sha256]
    rows = []
    for r in results:
        if isinstance(r, Score):
            scores = [f"{r.scores[t]:.6f}" for t in targets]
            known = [_digits(r.spread[t]) for t in targets] if spread else []
            for t in targets if ends else []:
                known += map(_digits, r.interval[t] or (None, None))
            notes = [" ".join(r.missing), " ".join(r.outside_expected)]
            rows.append([r.video, r.prompt or "", *scores, *ranges, *known, *notes, *tail, "", ""])
        else:
            blank, unknown = [""] * len(targets), [""] * (len(spread) + len(ends) + 2)
            rows.append([r.video, r.prompt or "", *blank, *ranges, *unknown, *tail, r.reason.value, r.message])
    return header, rows


def _digits(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"


def _cell(score: Score, target: str) -> str:
    """`3.412 ±0.081 [2.91, 3.92]`: score, spread and interval, as far as there are any."""
    spread, interval = score.spread[target], score.interval[target]
    around = "" if spread is None else f" ±{spread:.3f}"
    return f"{score.scores[target]:.3f}{around}" + ("" if interval is None else " [{:.3f}, {:.3f}]".format(*interval))


def _csv(header: list[str], rows: list[list[str]]) -> str:
    import csv
    import io

    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return buffer.getvalue()


def _print_table(sidecar: ModelSidecar, results: list[Score | ScoreFailure]) -> None:
    from vqa_train.pipelines.score import Score
    from vqa_train.registry.sidecar import SPREAD

    ranges = {t: "{:g} to {:g}".format(*sidecar.mos_range[t]) for t in sidecar.targets}
    shared = len(set(ranges.values())) == 1
    scale = next(iter(ranges.values())) if shared else ", ".join(f"{t} {r}" for t, r in ranges.items())
    columns = ["video", *sidecar.targets]
    if any(not isinstance(result, Score) for result in results):
        columns.append("failure")
    rows: list[list[str]] = []
    for r in results:
        cells = [_cell(r, t) for t in sidecar.targets] if isinstance(r, Score) else ["-"] * len(sidecar.targets)
        note = [] if len(columns) == len(cells) + 1 else ["" if isinstance(r, Score) else r.reason.value]
        rows.append([r.video, *cells, *note])
    direction = sidecar.direction.replace("_", " ")
    legend = f"range {scale}, {direction}"
    if SPREAD in sidecar.output_names:
        legend += ", ±: spread of the heads"
    if sidecar.calibration is not None and sidecar.calibration.bounded:
        legend += f", [ ]: interval for {100 * sidecar.calibration.level:g}% of labels"
    common.print_table(f"{sidecar.name} ({legend})", columns, rows)


def main() -> None:
    """Entry point of the console script vqa-score."""
    app = typer.Typer(name="vqa-score", add_completion=False, pretty_exceptions_enable=False)
    app.command()(score)
    common.run(app)
