"""vqa-train select-features: parse, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vqa_train.cli.common import JsonOption, emit_json, log, number, print_line, print_table
from vqa_train.cli.options import (
    DataRootOption,
    DatasetsOption,
    DeviceOption,
    ManifestsOption,
    StoreOption,
    ThreadsOption,
)

if TYPE_CHECKING:
    from vqa_train.pipelines.fit.config import FitConfig

_LISTED = 15


def select_features(
    features: StoreOption,
    dataset: DatasetsOption = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="NAME=SET[:OUTPUT][@reference]",
            help="Choose from these; by default all sets of recipe or store.",
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", metavar="YAML|NAME", help="Recipe of the heads that are trained; by default a small MLP."
        ),
    ] = None,
    objective: Annotated[str, typer.Option(metavar="METRIC", help="What forward selection goes by.")] = "srocc",
    protocol: Annotated[
        str, typer.Option(metavar="KIND[:name=value,...]", help="Folds over the training rows.")
    ] = "kfold:k=5",
    max_sets: Annotated[int | None, typer.Option(min=1, help="Sets at which forward selection ends.")] = None,
    output: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder for CSV tables and the picture.")] = None,
    picture: Annotated[str, typer.Option(metavar="svg|png|none", help="Kind of picture.")] = "svg",
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Heads per member and fold, instead of the recipe's.")
    ] = None,
    data_root: DataRootOption = None,
    manifests: ManifestsOption = None,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = 1,
    json: JsonOption = None,
) -> None:
    """Which feature sets repeat one another, what they tell of the labels, and which to take together."""
    from vqa_train.core.errors import UsageError
    from vqa_train.core.plugins import needs
    from vqa_train.core.progress import progress
    from vqa_train.datasets.protocols import parse_protocol

    if picture not in ("svg", "png", "none"):
        raise UsageError(f"--picture {picture!r} must be svg, png or none")
    with needs("vqa-train select-features", "train"):
        from vqa_train.pipelines.select_features import run as pipeline

    recipe = _recipe(config, inputs, dataset or [], features, data_root, manifests)
    if seeds is not None:
        recipe = recipe.model_copy(update={"seeds": seeds})
    options = pipeline.SelectOptions(
        protocol=parse_protocol(protocol, "--protocol"),
        objective=objective,
        max_sets=max_sets,
        output=output,
        picture=None if picture == "none" else picture,
        device=device,
        threads=threads,
    )
    count = len(recipe.features)
    last = min(max_sets or count, count)
    with progress("select-features", sum(count - step for step in range(last)) if count > 1 else None) as advance:
        report = pipeline.select_features(
            recipe,
            options,
            features=features,
            datasets=dataset or [],
            data_root=data_root,
            manifests_dir=manifests,
            on_score=advance,
            warn=lambda text: log(f"warning: {text}"),
        )
    emit_json(report, json)
    if json != "-":
        _print(report)


def _recipe(
    config: Path | None,
    inputs: list[str] | None,
    datasets: list[str],
    store: Path,
    data_root: Path | None,
    manifests: Path | None,
) -> FitConfig:
    """The recipe, with the inputs of the command line; without one, of these inputs or of all sets of the store."""
    from vqa_train.pipelines.fit.config import load_fit_config
    from vqa_train.pipelines.select_features.inputs import inputs_of_store, recipe_of
    from vqa_train.pipelines.table import parse_inputs

    chosen = parse_inputs(inputs) if inputs else None
    if config is not None:
        recipe = load_fit_config(config)
        return recipe if chosen is None else recipe.model_copy(update={"features": chosen})
    if chosen is None:
        chosen = inputs_of_store(
            store, datasets, data_root=data_root, manifests_dir=manifests, note=lambda text: log(f"note: {text}")
        )
    return recipe_of(chosen, datasets)


def _print(report: dict[str, Any]) -> None:
    names = report["redundancy"]["sets"]
    _print_sets(report)
    if len(names) > 1:
        rows = [
            [name, *(number(value, 3) for value in line)]
            for name, line in zip(names, report["redundancy"]["matrix"], strict=True)
        ]
        print_line()
        print_table("redundancy", ["set", *names], rows)
        print_line("debiased linear CKA: 1 the same up to rotation and scale, 0 unrelated")
    for target in report["sets"][0]["information"]:
        _print_columns(report, target)
    print_line()
    if len(names) > 1:
        _print_forward(report)
    elif report["few_columns"] is not None:
        _print_few(report)
    for path in report["files"]:
        print_line(f"written: {path}")


def _print_sets(report: dict[str, Any]) -> None:
    metric, targets = report["objective"]["metric"].upper(), list(report["sets"][0]["information"])
    rows = [
        [
            entry["name"],
            entry["columns"],
            entry["constant"],
            number(entry["alone"]["value"]),
            *(number(value, 3) for value in entry["information"].values()),
        ]
        for entry in report["sets"]
    ]
    folds, training = report["objective"]["folds"], report["rows"]["training"]
    print_line(f"{metric}: mean over {folds} folds of the {training} training rows")
    print_line("nats: mutual information with the label; of a set, that of its held-out predictions")
    if report["rows"]["without_features"]:
        print_line(f"records without features of every set, left out: {report['rows']['without_features']}")
    print_line()
    print_table(
        "each set alone", ["set", "columns", "constant", metric, *(f"nats of {target}" for target in targets)], rows
    )
    for entry in report["sets"]:
        if entry["alone"]["reason"] is not None:
            print_line(f"{entry['name']}: {entry['alone']['reason']}")


def _print_columns(report: dict[str, Any], target: str) -> None:
    found = [entry for entry in report["columns"] if entry["target"] == target]
    top = sorted(found, key=lambda entry: -(entry["information"] or 0))[:_LISTED]
    rows = [
        [
            entry["set"],
            _column(entry["column"], entry["name"]),
            number(entry["information"], 3),
            number(entry["srocc"], 3),
            "" if entry["nearest"] is None else f"{entry['nearest']} ({number(entry['nearest_srocc'], 2)})",
        ]
        for entry in top
    ]
    print_line()
    print_table(
        f"columns that tell most about {target}, {len(top)} of {len(found)}",
        ["set", "column", "nats", "SROCC", "nearest in its set (SROCC)"],
        rows,
    )


def _print_forward(report: dict[str, Any]) -> None:
    fields = ("value", "std", "gain", "gain_std")
    rows = [
        [place, step["added"], *("" if step[field] is None else number(step[field]) for field in fields)]
        for place, step in enumerate(report["forward"], 1)
    ]
    columns = ["step", "added", report["objective"]["metric"].upper(), "std", "gain", "std of gain"]
    print_table("forward selection", columns, rows)
    print_line(f"best: {' + '.join(report['best'])}")
    print_line(f"fewest within one standard error of it: {' + '.join(report['selected'])}")


def _print_few(report: dict[str, Any]) -> None:
    few = report["few_columns"]
    rows = [[entry["columns"], number(entry["value"])] for entry in few["counts"]]
    print_table("few columns", ["columns", report["objective"]["metric"].upper()], rows)
    print_line("chosen in each fold by stepwise regression on the rows that train it")
    chosen = few["selected"]
    if len(chosen) == report["sets"][0]["columns"]:
        print_line("fewest within one standard error of the best: all of them")
        return
    names = {entry["column"]: entry["name"] for entry in report["columns"]}
    told = ", ".join(_column(column, names[column]) for column in chosen[:_LISTED])
    more = f" and {len(chosen) - _LISTED} more, in --json" if len(chosen) > _LISTED else ""
    print_line(f"fewest within one standard error of the best: {len(chosen)}; on all rows these are {told}{more}")


def _column(column: int, name: str | None) -> str:
    return str(column) if name is None else f"{column} {name}"
