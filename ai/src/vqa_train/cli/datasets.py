"""`vqa-train datasets`: list, show, scan, verify, make-ladder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from vqa_train.cli.common import JsonOption, emit_json, log, print_line, print_table
from vqa_train.core.errors import ExitCode, UsageError
from vqa_train.core.locations import location

app = typer.Typer(no_args_is_help=True)

DatasetArgument = Annotated[str, typer.Argument(metavar="NAME|MANIFEST.yaml", help="A name in the manifests folder.")]
ManifestsOption = Annotated[Path, typer.Option("--manifests", metavar="DIR", help="Where names are looked up.")]
DataRootOption = Annotated[
    Path | None,
    typer.Option(
        "--data-root", metavar="DIR", parser=location, help="Where the data is, when not where the manifest says."
    ),
]
WorkersOption = Annotated[int | None, typer.Option("--workers", min=1, help="Default: one per core.")]

_MANIFESTS = Path("manifests")
_SHOWN = 5


@app.command("list")
def list_command(manifests: ManifestsOption = _MANIFESTS, json: JsonOption = None) -> None:
    """The datasets that have a manifest."""
    from vqa_train.pipelines.datasets import list_datasets

    result = list_datasets(manifests)
    emit_json(result, json)
    if json != "-":
        rows = [
            (d["name"], d.get("version"), d.get("files"), ", ".join(d.get("targets", ())), d.get("license"), d["error"])
            for d in result["datasets"]
        ]
        print_table(f"datasets in {manifests}", ("name", "version", "files", "targets", "license", "error"), rows)
    if any(d["error"] for d in result["datasets"]):
        raise typer.Exit(ExitCode.SOME_INPUTS_FAILED)


@app.command()
def show(
    dataset: DatasetArgument,
    manifests: ManifestsOption = _MANIFESTS,
    data_root: DataRootOption = None,
    missing_mos: Annotated[Literal["mask", "drop", "neutral"], typer.Option(help="For a missing score.")] = "mask",
    json: JsonOption = None,
) -> None:
    """What a dataset is and, where its data is there, how its labels and files fit together."""
    from vqa_train.pipelines.datasets import show_dataset

    result = show_dataset(dataset, data_root=data_root, manifests_dir=manifests, missing_mos=missing_mos)
    emit_json(result, json)
    if json == "-":
        return
    data = result["data"] or {}
    facts = ("version", "license", "source", "citation", "adapter", "files", "bytes_total", "manifest", "sha256")
    print_table(result["name"], ("fact", "value"), [(fact, result[fact]) for fact in facts])
    labelled = data.get("labelled", {})
    missing = data.get("labels", {}).get("missing_mos", {})
    rows = [
        (name, mos["min"], mos["max"], mos["direction"], labelled.get(name), missing.get(name))
        for name, mos in result["targets"].items()
    ]
    print_table("targets", ("target", "min", "max", "direction", "labelled", "missing"), rows)
    if result["note"]:
        log(f"note: {result['note']}")
        return
    splits = [(name, count) for name, count in data["splits"].items()]
    print_table(f"{data['videos']} videos", ("split", "videos"), splits)
    _log_findings(data["labels"])


@app.command()
def scan(
    folder: Annotated[
        Path, typer.Argument(parser=location, help="The data root: videos and label tables lie under it.")
    ],
    *,
    labels: Annotated[
        list[str] | None,
        typer.Option(metavar="[SPLIT=]FILE", help="Label table, CSV or Parquet; repeatable. A split holds for it all."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Manifest to write or bring up to date. Default: manifests/NAME.yaml.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the dataset.")] = None,
    adapter: Annotated[str | None, typer.Option(help="csv, qualivision or a plug-in's. Default: csv.")] = None,
    id_column: Annotated[str | None, typer.Option(help="Column of the video's id.")] = None,
    path_column: Annotated[str | None, typer.Option(help="Column of its file. Default: the id names it.")] = None,
    target: Annotated[
        list[str] | None, typer.Option(metavar="NAME=COLUMN", help="A target and the column of its MOS; repeatable.")
    ] = None,
    std: Annotated[
        list[str] | None, typer.Option(metavar="NAME=COLUMN", help="Column of a target's standard deviation.")
    ] = None,
    mos_min: Annotated[float | None, typer.Option(help="Lowest possible MOS.")] = None,
    mos_max: Annotated[float | None, typer.Option(help="Highest possible MOS.")] = None,
    direction: Annotated[
        Literal["higher_is_better", "lower_is_better"] | None, typer.Option(help="Default: higher_is_better.")
    ] = None,
    group_column: Annotated[str | None, typer.Option(help="Column of content that must not straddle a split.")] = None,
    split_column: Annotated[str | None, typer.Option(help="Column of train, val or test.")] = None,
    prompt_column: Annotated[str | None, typer.Option(help="Column of the text a video was made from.")] = None,
    reference_column: Annotated[
        str | None, typer.Option(help="Column of the pristine video: a row's id, or a path.")
    ] = None,
    attribute: Annotated[list[str] | None, typer.Option(help="A further column to keep; repeatable.")] = None,
    fractions: Annotated[
        str | None, typer.Option(metavar="train=0.7,val=0.1,test=0.2", help="Splits by hash of the group.")
    ] = None,
    salt: Annotated[str | None, typer.Option(help="Changes the draw of --fractions.")] = None,
    extension: Annotated[list[str] | None, typer.Option(help="File endings that count as videos.")] = None,
    version: Annotated[str | None, typer.Option(help="Version of the dataset. Default: 1.")] = None,
    license: Annotated[str | None, typer.Option(help="SPDX id or name; travels into every model.")] = None,
    source: Annotated[str | None, typer.Option(help="Where it is published.")] = None,
    citation: Annotated[str | None, typer.Option(help="How to cite it.")] = None,
    workers: WorkersOption = None,
    json: JsonOption = None,
) -> None:
    """Write a manifest: the hash of every video and label table under FOLDER, and what the columns mean.

    An output that exists is brought up to date: what is not given here keeps its value.
    """
    from vqa_train.datasets.draft import ScanConfig
    from vqa_train.pipelines.datasets import scan_dataset

    if output is None and name is None:
        raise UsageError("neither --name nor --output was given", hint="pass --name NAME")
    columns = {
        "id": id_column,
        "path": path_column,
        "prompt": prompt_column,
        "split": split_column,
        "group": group_column,
        "reference": reference_column,
    }
    config = ScanConfig(
        root=folder,
        output=output or _MANIFESTS / f"{name}.yaml",
        name=name,
        version=version,
        license=license,
        source=source,
        citation=citation,
        adapter=adapter,
        labels=tuple(_label(given) for given in labels or ()),
        columns={field: column for field, column in columns.items() if column is not None},
        targets=_pairs("--target", target),
        std=_pairs("--std", std),
        attributes=tuple(attribute or ()),
        mos_min=mos_min,
        mos_max=mos_max,
        direction=direction,
        fractions=_fractions(fractions),
        salt=salt,
        extensions=tuple(e if e.startswith(".") else f".{e}" for e in extension or ()),
    )
    report, result = scan_dataset(config, workers=workers)
    emit_json(result, json)
    if json != "-":
        print_line(f"{report.manifest}: {report.files} files, {report.bytes_total} bytes ({report.read} newly hashed)")
        print_table("label tables", ("table", "rows"), list(report.labels.tables.items()))
        print_table("scores", ("target", "missing"), list(report.labels.missing_mos.items()))
    if report.license == "unknown":
        log("note: the licence is unknown; pass --license, it travels into every model trained on this dataset")
    for failure in report.failed:
        log(f"failed: {failure.path}: {failure.reason}: {failure.message}")
    _log_findings(result["labels"])
    if report.some_failed:
        raise typer.Exit(ExitCode.SOME_INPUTS_FAILED)


@app.command()
def verify(
    dataset: DatasetArgument,
    manifests: ManifestsOption = _MANIFESTS,
    data_root: DataRootOption = None,
    workers: WorkersOption = None,
    json: JsonOption = None,
) -> None:
    """Read every file again and name each that is missing, changed or not listed; exit code 3 if there is any."""
    from vqa_train.pipelines.datasets import verify_dataset

    report = verify_dataset(dataset, data_root=data_root, manifests_dir=manifests, workers=workers)
    emit_json(report.to_json(), json)
    if json != "-":
        rows = [
            *(("missing", path, "") for path in report.missing),
            *(
                ("changed", c["path"], f"{c['expected']['bytes']} -> {c['found']['bytes']} bytes")
                for c in report.changed
            ),
            *(("unlisted", path, "") for path in report.unlisted),
            *(("unreadable", f.path, f"{f.reason}: {f.message}") for f in report.unreadable),
        ]
        if rows:
            print_table(f"{report.name}: {len(rows)} differences", ("what", "path", "detail"), rows)
        print_line(
            f"{report.name}: {report.checked} listed files checked, {'all as listed' if report.ok else 'FAILED'}"
        )
    if not report.ok:
        raise typer.Exit(ExitCode.GATE_FAILED)


@app.command("make-ladder")
def make_ladder(
    *,
    output: Annotated[Path, typer.Option(help="Folder for the clips, their labels and the manifest.")],
    sources: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of source clips, beside the procedural scenes.")
    ] = None,
    scenes: Annotated[int | None, typer.Option(min=0, help="Number of procedural scenes.")] = None,
    seconds: Annotated[float | None, typer.Option(min=0.1, help="Length of each clip.")] = None,
    size: Annotated[
        str | None, typer.Option(metavar="WxH", help="Size in pixels; sources are scaled down into it.")
    ] = None,
    workers: WorkersOption = None,
    json: JsonOption = None,
) -> None:
    """Make the built-in labelled set: distortion ladders of source clips, with a pseudo_mos in 1-5 (not a MOS)."""
    from vqa_train.pipelines.datasets import build_ladder

    options = {"scenes": scenes, "seconds": seconds, "size": _size(size) if size else None}
    given = {key: value for key, value in options.items() if value is not None}
    result = build_ladder(output, sources=sources, options=given, workers=workers)
    emit_json(result, json)
    if json != "-":
        print_line(f"{result['manifest']}: {result['files']} clips, {result['bytes_total']} bytes")
    if result["refused_sources"]:
        raise typer.Exit(ExitCode.SOME_INPUTS_FAILED)


def _label(given: str) -> tuple[str, str | None]:
    """[SPLIT=]FILE; a file whose name holds "=" is taken whole."""
    split, equals, path = given.partition("=")
    return (path, split) if equals and not Path(given).exists() else (given, None)


def _pairs(option: str, given: list[str] | None) -> dict[str, str]:
    pairs = {}
    for text in given or ():
        name, equals, column = text.partition("=")
        if not (name and equals and column) or name in pairs:
            raise UsageError(f"{option} {text!r} is not a new NAME=COLUMN", hint=f"as in {option} overall=Overall_MOS")
        pairs[name] = column
    return pairs


def _fractions(text: str | None) -> dict[str, float]:
    try:
        return {
            name: float(share) for name, _, share in (part.partition("=") for part in (text or "").split(",") if part)
        }
    except ValueError:
        raise UsageError(f"--fractions {text!r} is not a list of SPLIT=SHARE") from None


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise UsageError(f"--size {text!r} is not WIDTHxHEIGHT", hint="as in --size 640x360")
    return int(width), int(height)


def _log_findings(labels: dict[str, Any]) -> None:
    from vqa_train.datasets.labels import FINDINGS

    for field, meaning in FINDINGS.items():
        found = labels[field]
        if found:
            shown = [item if isinstance(item, str) else " ".join(str(v) for v in item.values()) for item in found]
            more = f", and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
            log(f"warning: {len(found)} {meaning}: {', '.join(shown[:_SHOWN])}{more}")
