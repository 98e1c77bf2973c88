"""vqa-train tune: parse, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vqa_train.cli.common import EXIT_INTERRUPTED, JsonOption, emit_json, log, number, print_line, print_table
from vqa_train.cli.options import (
    DataRootOption,
    DatasetsOption,
    DeviceOption,
    InputsOption,
    ManifestsOption,
    StoreOption,
    ThreadsOption,
)

if TYPE_CHECKING:
    from vqa_train.core.progress import Advance
    from vqa_train.pipelines.tune.run import Standing


def tune(
    config: Annotated[Path, typer.Option("--config", metavar="YAML|NAME", help="Recipe whose settings are searched.")],
    features: StoreOption,
    study: Annotated[Path, typer.Option("--study", metavar="FILE.db", help="SQLite study; one there is gone on with.")],
    inputs: InputsOption = None,
    dataset: DatasetsOption = None,
    param: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=RANGE",
            help="lr=float:1e-4:1e-2:log, epochs=int:20:80 or hidden=categorical:[64,32]|[128]|[]; again for others.",
        ),
    ] = None,
    space: Annotated[Path | None, typer.Option(metavar="YAML", help="Search space; --param wins over it.")] = None,
    trials: Annotated[int, typer.Option(min=1, help="Trials the study is to have, earlier ones included.")] = 50,
    batch: Annotated[int, typer.Option(min=1, help="Trials that are asked, and trained at once.")] = 16,
    objective: Annotated[str, typer.Option(metavar="METRIC", help="What is optimised.")] = "srocc",
    protocol: Annotated[
        str, typer.Option(metavar="KIND[:name=value,...]", help="Folds over the training rows.")
    ] = "kfold:k=5",
    output: Annotated[
        Path | None, typer.Option(metavar="YAML", help="Write the best recipe, for `fit --config`.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Of the study in its file; by default the datasets and the objective.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the search; the recipe keeps its own.")] = 0,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Heads per member and fold, instead of the recipe's.")
    ] = None,
    data_root: DataRootOption = None,
    manifests: ManifestsOption = None,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = 1,
    json: JsonOption = None,
) -> None:
    """Search a recipe's settings by cross-validation on training rows; the study resumes."""
    from vqa_train.core.plugins import needs
    from vqa_train.core.progress import progress
    from vqa_train.datasets.protocols import parse_protocol
    from vqa_train.pipelines.fit.config import load_fit_config
    from vqa_train.pipelines.table import parse_inputs

    with needs("vqa-train tune", "tune"):
        from vqa_train.pipelines.tune import run as pipeline

    recipe = load_fit_config(config)
    if inputs:
        recipe = recipe.model_copy(update={"features": parse_inputs(inputs)})
    if seeds is not None:
        recipe = recipe.model_copy(update={"seeds": seeds})
    options = pipeline.TuneOptions(
        study=study,
        name=name,
        trials=trials,
        batch=batch,
        params=param or [],
        space=space,
        objective=objective,
        protocol=parse_protocol(protocol, "--protocol"),
        seed=seed,
        output=output,
        device=device,
        threads=threads,
    )
    try:
        with progress("tune", trials) as advance:
            report = pipeline.tune(
                recipe,
                options,
                features=features,
                datasets=dataset or [],
                data_root=data_root,
                manifests_dir=manifests,
                on_trials=lambda standing: _told(standing, trials, advance),
                warn=lambda text: log(f"warning: {text}"),
            )
    except KeyboardInterrupt:
        there = f"finished trials are in {study}; the same command goes on from there"
        log(f"interrupted: {there if study.is_file() else 'no trial had begun'}")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    emit_json(report, json)
    if json != "-":
        _print(report)


def _told(standing: Standing, trials: int, advance: Advance) -> None:
    """Where the study stands, as a line on stderr; nothing for one that begins."""
    advance(standing.added or standing.finished)
    if not standing.finished:
        return
    best = "none has a value yet"
    if standing.value is not None:
        best = f"best {number(standing.value)} (trial {standing.number})"
    here = "" if standing.added else "the study has "
    more = "" if standing.added or standing.finished < trials else "; for more, raise --trials"
    log(f"{here}{standing.finished} of {trials} trials, {best}{more}")


def _print(report: dict[str, Any]) -> None:
    objective, best, itself = report["objective"], report["best"], report["recipe_itself"]
    paths = list(report["space"])
    rows = [
        [
            entry["number"],
            number(entry["value"]),
            "" if entry["std"] is None else number(entry["std"]),
            *(_shown(entry["settings"].get(path)) for path in paths),
        ]
        for entry in report["top"]
    ]
    said = {"complete": "trials with a value", "pruned": "without", "fail": "cut off"}
    counts = ", ".join(f"{count} {said[state]}" for state, count in report["trials"].items() if count)
    metric = objective["metric"].upper()
    print_line(f"study {report['study']['name']}: {counts}")
    print_line(f"{metric}: mean and deviation over {objective['folds']} folds of the {objective['rows']} training rows")
    if objective["without_features"]:
        print_line(f"records without features, left out: {objective['without_features']}")
    print_line()
    print_table("best trials", ["trial", metric, "std", *paths], rows)
    if report["importances"]:
        print_line()
        shares = [[path, number(share, 2)] for path, share in report["importances"].items()]
        print_table("what the value depends on (fANOVA)", ["setting", "share"], shares)
    print_line()
    for reason, count in report["reasons"].items():
        print_line(f"without value, {count} x: {reason}")
    if itself is not None and itself["number"] == best["number"]:
        print_line(f"best: the recipe itself, {number(best['value'])}; no trial beat it")
    else:
        own = "" if itself is None else f"; the recipe itself has {number(itself['value'])}"
        print_line(f"best: trial {best['number']}, {number(best['value'])}{own}")
    if report["output"] is not None:
        print_line(f"written: {report['output']}; next: vqa-train fit --config {report['output']}")


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
