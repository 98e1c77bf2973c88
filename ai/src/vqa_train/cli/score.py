"""vqa-score (and vqa-train score): videos in, scores out, with onnxruntime alone."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vqa_train.cli import common

if TYPE_CHECKING:
    from threading import Event

    from vqa_train.cli.score_results import Results
    from vqa_train.pipelines.score.journal import Journal
    from vqa_train.pipelines.score.requests import Requests
    from vqa_train.pipelines.score.scorer import Scorer


def score(
    videos: Annotated[list[str], typer.Argument(metavar="VIDEO|URL|DIR|@LIST|-", help="What to score; - is stdin.")],
    model: Annotated[
        str, typer.Option(help="NAME, NAME:VERSION, NAME@ALIAS, a model's folder, a bundle; or dover, dover++, ...")
    ],
    prompt: Annotated[str | None, typer.Option(help="Text the videos were made from.")] = None,
    reference: Annotated[
        str | None, typer.Option(metavar="VIDEO|URL", help="Pristine video, for full-reference models.")
    ] = None,
    format_: Annotated[
        Literal["table", "json", "jsonl", "csv"],
        typer.Option("--format", help="Form of the result; jsonl comes line by line as videos are scored."),
    ] = "table",
    registry: Annotated[Path, typer.Option(help="Folder of registry.json.")] = Path("model"),
    output: Annotated[
        Path | None, typer.Option(help="Write the result there; an interrupted run then goes on where it stopped.")
    ] = None,
    timeline: Annotated[bool, typer.Option("--timeline", help="Scores second by second, too.")] = False,
    timeline_plot: Annotated[
        Path | None, typer.Option(metavar="SVG|DIR", help="Draw the curves: a file for one video, else a folder.")
    ] = None,
    threshold: Annotated[
        list[str] | None,
        typer.Option(metavar="TARGET<NUMBER", help="Exit code 3 where it holds, as 'overall<3.2'; again for more."),
    ] = None,
    threads: Annotated[int, typer.Option(min=0, help="Of decoders and graphs together; 0: all cores.")] = 0,
    workers: Annotated[int, typer.Option(min=0, help="Videos at once, sharing the threads; 0: chosen.")] = 0,
    provider: Annotated[
        str, typer.Option(help="Of the backbones: auto, cpu, cuda, tensorrt, openvino; auto: cuda if there, else cpu.")
    ] = "auto",
    require_signature: Annotated[
        list[str] | None, typer.Option(metavar="KEY", help="Public key (file or text) that must have signed the model.")
    ] = None,
) -> None:
    """Score videos with a registered model.

    @LIST is a text file with one path or URL per line and, after tabs, a prompt and a reference; or a .csv with the
    columns video, prompt, reference. Exit code: 0 all scored, 3 a threshold tripped, 4 some failed, 1 none could be
    scored.
    """
    from vqa_train.cli.score_results import Form, Results
    from vqa_train.cli.signals import stop_on_signals
    from vqa_train.pipelines.score.ready import ensure_ready
    from vqa_train.pipelines.score.requests import requests
    from vqa_train.pipelines.score.scorer import Scorer
    from vqa_train.pipelines.score.threshold import parse

    with stop_on_signals() as stop:
        items = requests(videos, prompt, reference, stop=stop)
        timeline = timeline or timeline_plot is not None
        if timeline_plot is not None:
            _check_plot(timeline_plot, items)
        ensure_ready(model, registry, log=common.log)
        with Scorer(
            model,
            registry=registry,
            threads=threads,
            # One video gets all threads; of many, each gets one.
            workers=1 if items.total == 1 and not workers else workers,
            provider=provider,
            isolated=True,
            require_signature=require_signature or (),
            log=common.log,
        ) as scorer:
            _check_use(scorer, items, prompt=prompt, reference=reference, timeline=timeline)
            form = Form(format_, output, timeline_plot, timeline=timeline)
            results = Results(scorer.sidecar, form, parse(threshold or [], scorer.sidecar))
            with _journal(output, scorer, timeline=timeline) as journal:
                _score_all(scorer, items, journal, results, stop, timeline=timeline)
    results.conclude()
    if stop.is_set():
        raise typer.Exit(common.EXIT_INTERRUPTED)
    if (code := results.exit_code) is not None:
        raise typer.Exit(code)


def _check_use(scorer: Scorer, items: Requests, *, prompt: str | None, reference: str | None, timeline: bool) -> None:
    """Refuse what would be wrong for every video."""
    from vqa_train.core.errors import Reason, UsageError

    name = scorer.sidecar.name
    listed = items.items if isinstance(items.items, list) else None
    if prompt is not None and not scorer.takes_prompt:
        raise UsageError(f"model {name!r} takes no prompt", hint="leave --prompt out")
    if reference is not None and not scorer.takes_reference:
        raise UsageError(f"model {name!r} takes no reference", hint="leave --reference out")
    if listed is not None and scorer.needs_prompt and not any(item.prompt for item in listed):
        raise UsageError(
            f"model {name!r} takes a prompt and got none",
            hint='add --prompt "TEXT", or a prompt column to the list',
            reason=Reason.NO_PROMPT,
        )
    if listed is not None and scorer.takes_reference and not any(item.reference for item in listed):
        raise UsageError(
            f"model {name!r} is full-reference and got no reference",
            hint="add --reference VIDEO, or a reference column to the list",
            reason=Reason.NO_REFERENCE,
        )
    if timeline:
        scorer.check_timeline()


def _check_plot(path: Path, items: Requests) -> None:
    from vqa_train.core.errors import UsageError

    if path.suffix.lower() == ".svg" and items.total != 1:
        raise UsageError(f"--timeline-plot {str(path)!r} is one file for several videos", hint="name a folder")


def _journal(output: Path | None, scorer: Scorer, *, timeline: bool) -> AbstractContextManager[Journal | None]:
    if output is None:
        return nullcontext()
    from vqa_train.pipelines.score.journal import Journal

    journal = Journal(output, scorer.sidecar, timeline=timeline)
    if journal.stale:
        common.log(f"note: {journal.path.name} is of another model or without timelines: everything is scored again")
    if journal.known:
        common.log(f"going on: {journal.known} scores are there, in {journal.path.name}")
    return journal


def _score_all(
    scorer: Scorer, items: Requests, journal: Journal | None, results: Results, stop: Event, *, timeline: bool
) -> None:
    """Score them one after the other; the first Ctrl-C lets those under way finish."""
    from vqa_train.core.progress import progress

    try:
        wanted = takewhile(lambda _: not stop.is_set(), items.items)
        with progress("scoring", items.total) as advance:
            for result in scorer.score_many(wanted, timeline=timeline, memory=journal):
                results.take(result)
                advance()
    except KeyboardInterrupt:
        stop.set()
    if journal is not None and journal.recalled:
        common.log(f"{journal.recalled} of {results.inputs} were not scored again")
    if journal is not None and stop.is_set():
        common.log(f"interrupted: {results.scored} scores are in {journal.path.name}; the same command goes on")
        return
    results.emit()
    # What failed is tried again by the same command; what has a score then still has it.
    if journal is not None and not results.failed:
        journal.remove()


def main() -> None:
    """Entry point of the console script vqa-score."""
    app = typer.Typer(name="vqa-score", add_completion=False, pretty_exceptions_enable=False)
    app.command()(score)
    common.run(app)
