"""vqa-train import-features: parse, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vqa_train.cli.common import JsonOption, emit_json, log, print_line, print_table
from vqa_train.cli.options import ManifestsOption, StoreOutputOption
from vqa_train.core.errors import UsageError
from vqa_train.core.locations import location

if TYPE_CHECKING:
    from vqa_train.pipelines.importing.config import ImportReport

_SHOWN = 5


def import_features(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Parquet, CSV, npz or .mat (up to version 7).")],
    *,
    name: Annotated[str, typer.Option(help="Name of the feature set, as a backbone's name.")],
    output: StoreOutputOption,
    id_column: Annotated[str | None, typer.Option(help="Column of the videos' ids. (default: video_id)")] = None,
    number_rows: Annotated[
        bool, typer.Option("--number-rows", help="The file has no ids: its row numbers, from 1, are the ids.")
    ] = False,
    features_column: Annotated[
        str | None, typer.Option(help="Column of one vector per row. (default: features)")
    ] = None,
    dim_columns: Annotated[
        list[str] | None,
        typer.Option(metavar="'f_*'|FIRST..LAST|NAME", help="Columns of numbers that are the features; repeatable."),
    ] = None,
    feature_names: Annotated[str | None, typer.Option(metavar="A,B,...", help="Names of the dimensions.")] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(metavar="[NAME=]COLUMN", help="Opinion score; repeatable. (default: mos, if it is there)"),
    ] = None,
    std_column: Annotated[
        list[str] | None,
        typer.Option(metavar="[NAME=]COLUMN", help="Deviation of a label. (default: mos_std, if it is there)"),
    ] = None,
    group_column: Annotated[
        str | None,
        typer.Option(help="Content that must not straddle a split; '' for none. (default: content_id, if it is there)"),
    ] = None,
    split_column: Annotated[str | None, typer.Option(help="Column of train, val or test.")] = None,
    prompt_column: Annotated[str | None, typer.Option(help="Column of the text a video was made from.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Dataset that the ids are of. (default: the --name)")] = None,
    videos: Annotated[
        str | None, typer.Option(metavar="NAME|YAML", help="Dataset whose videos the ids name; keys are then theirs.")
    ] = None,
    data_root: Annotated[
        Path | None, typer.Option(metavar="DIR", parser=location, help="Where the paths of --videos start.")
    ] = None,
    manifests: ManifestsOption = None,
    lower_is_better: Annotated[bool, typer.Option("--lower-is-better", help="For DMOS.")] = False,
    mos_range: Annotated[
        list[str] | None,
        typer.Option(metavar="[NAME=]LOW,HIGH", help="The scale, as in 1,5. (default: what was observed)"),
    ] = None,
    license: Annotated[str | None, typer.Option(metavar="SPDX", help="Licence of the features.")] = None,
    label_license: Annotated[str | None, typer.Option(metavar="SPDX", help="Licence of the labels.")] = None,
    append: Annotated[
        bool, typer.Option("--append", help="The same features of other videos: put them into the set --name.")
    ] = False,
    overwrite_labels: Annotated[
        bool, typer.Option("--overwrite-labels", help="Replace other labels that the store has for the dataset.")
    ] = False,
    json: JsonOption = None,
) -> None:
    """Bring features and labels that another tool wrote into a feature store.

    The labels become a dataset of the store: `fit` and `eval` find it by its name. Importing a file again changes
    nothing. Exit code 4: done, but some rows have no features or no video.
    """
    from vqa_train.pipelines.importing import run as pipeline

    report = pipeline.import_features(
        pipeline.ImportConfig(
            file=file,
            name=name,
            output=output,
            id_column=id_column,
            number_rows=number_rows,
            features_column=features_column,
            dim_columns=tuple(dim_columns or ()),
            feature_names=tuple(part.strip() for part in feature_names.split(",")) if feature_names else (),
            labels=_pairs("--label", label) if label else None,
            std=_std(std_column, _pairs("--label", label) if label else {"mos": "mos"}) if std_column else None,
            group_column=group_column,
            split_column=split_column,
            prompt_column=prompt_column,
            dataset=dataset,
            videos=videos,
            data_root=data_root,
            manifests_dir=manifests,
            lower_is_better=lower_is_better,
            mos_range=_ranges(mos_range),
            license=license,
            label_license=label_license,
            append=append,
            overwrite_labels=overwrite_labels,
        )
    )
    emit_json(report.to_json(), json)
    if json != "-":
        _print(report, output)
    raise typer.Exit(report.exit_code)


def _pairs(option: str, given: list[str]) -> dict[str, str]:
    """NAME=COLUMN, or a column that is its own name."""
    pairs: dict[str, str] = {}
    for text in given:
        name, equals, column = text.partition("=")
        column = column if equals else name
        if not (name and column) or name in pairs:
            raise UsageError(f"{option} {text!r} is not a new [NAME=]COLUMN", hint=f"as in {option} overall=MOS")
        pairs[name] = column
    return pairs


def _std(given: list[str], labels: dict[str, str]) -> dict[str, str]:
    """A bare column belongs to the only label."""
    bare = [text for text in given if "=" not in text]
    if bare and (len(labels) != 1 or len(given) != 1):
        raise UsageError(
            f"--std-column {bare[0]!r} does not say of which of the labels {', '.join(labels)}",
            hint=f"as in --std-column {next(iter(labels))}={bare[0]}",
        )
    return {next(iter(labels)): bare[0]} if bare else _pairs("--std-column", given)


def _ranges(given: list[str] | None) -> dict[str, tuple[float, float]]:
    """LOW,HIGH for every label ("") or NAME=LOW,HIGH for one."""
    ranges = {}
    for text in given or ():
        name, equals, bounds = text.partition("=")
        low, comma, high = (bounds if equals else name).partition(",")
        try:
            ranges[name if equals else ""] = (float(low), float(high if comma else ""))
        except ValueError:
            raise UsageError(f"--mos-range {text!r} is not [NAME=]LOW,HIGH", hint="as in --mos-range 1,5") from None
    return ranges


def _print(report: ImportReport, store: Path) -> None:
    columns, data = report.columns, report.dataset
    features = columns["features"]
    shown = features[0] if len(features) == 1 else f"{features[0]} ... {features[-1]} ({len(features)} columns)"
    facts: list[tuple[str, Any]] = [
        ("file", f"{report.file['path']} ({report.file['format']}, {report.file['bytes']:,} bytes)"),
        ("rows", f"{report.rows:,}: {report.added:,} added, {report.known:,} there already"),
        ("features", f"{report.dims:,} dimensions from {shown}"),
        ("id", columns["id"] or "row number"),
        ("licence", report.license),
    ]
    if data is not None:
        facts.append(("dataset", f"{data['name']}, {data['videos']:,} videos, {data['state']}: {data['manifest']}"))
        facts += [("label", _label(target, columns)) for target in data["targets"]]
        groups = (
            f"{columns['group']}: {data['groups']:,} groups" if columns["group"] else "none: every video stands alone"
        )
        facts.append(("group", groups))
    facts += [(what, columns[what]) for what in ("split", "prompt") if columns[what]]
    unused = columns["unused"]
    if unused:
        more = f" and {len(unused) - _SHOWN} more" if len(unused) > _SHOWN else ""
        facts.append(("not read", ", ".join(unused[:_SHOWN]) + more))
    print_table(f"{report.set}{' (nothing new)' if report.no_op else ''}", ("", ""), facts)
    for note in report.notes:
        print_line(f"note: {note}")
    if data is not None:
        set_name = report.set.partition("@")[0]
        print_line(
            f"next: vqa-train fit --config features --input features={set_name} --dataset {data['name']} "
            f"--features {store} --output RUN"
        )
    for what, ids in (
        ("rows have no vector and were left out", report.without_features),
        ("ids are no video of the dataset and were left out", report.not_in_videos),
        ("ids are a video that an earlier row is of; the first row counts", report.same_video),
    ):
        if ids:
            more = f", and {len(ids) - _SHOWN:,} more (--json has all)" if len(ids) > _SHOWN else ""
            log(f"warning: {len(ids):,} {what}: {', '.join(ids[:_SHOWN])}{more}")


def _label(target: dict[str, Any], columns: dict[str, Any]) -> str:
    name = target["name"]
    column = columns["labels"][name]
    low, high = target["range"]
    direction = target["direction"].replace("_", " ")
    text = f"{name}{f' from {column}' if column != name else ''}: {target['labelled']:,} scores"
    text += f" ({target['missing']:,} rows without)" if target["missing"] else ""
    text += f", range {low:g} to {high:g} ({target['range_from']}), {direction}"
    return text + (f", deviation from {columns['std'][name]}" if name in columns["std"] else "")
