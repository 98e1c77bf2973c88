"""vqa-train store info|verify|failures|gc: parse, call, print; the verbs that change a store are in store_change."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vqa_train.cli import store_change
from vqa_train.cli.common import JsonOption, emit_json, log, print_line, print_table
from vqa_train.cli.options import DataRootOption, ManifestsOption
from vqa_train.cli.store_compact import compact
from vqa_train.core.errors import GateFailedError, Reason, UsageError
from vqa_train.core.locations import location

app = typer.Typer(no_args_is_help=True)

StoreArgument = Annotated[
    Path, typer.Argument(metavar="STORE", parser=location, help="Feature store: a folder or a URL (s3://...).")
]


@app.command()
def info(store: StoreArgument, json: JsonOption = None) -> None:
    """Feature sets with their rows, sizes, licences, numerics profiles and failures."""
    from vqa_train.pipelines.store import look as pipeline

    report = pipeline.info(store)
    emit_json(report, json)
    if json == "-":
        return
    if not report["sets"]:
        print_line(f"{store}: no feature sets")
    for feature_set in report["sets"]:
        print_table(feature_set["name"], ("", ""), _facts(feature_set))
        print_line()


def _facts(feature_set: dict[str, Any]) -> list[tuple[str, str]]:
    """Lines of one feature set's table."""
    duplicates, since = feature_set["duplicate_rows"], feature_set["shards_since_snapshot"]
    facts = [
        ("fingerprint", feature_set["fingerprint"]),
        ("modality", feature_set["modality"]),
        ("licence", feature_set["license"]),
        _origin(feature_set),
        ("outputs", ", ".join(f"{name} {tuple(shape)}" for name, shape in feature_set["outputs"].items())),
        ("complete keys", f"{feature_set['keys']:,}"),
        ("rows", f"{feature_set['rows']:,}" + (f" (and {duplicates:,} duplicates)" if duplicates else "")),
        ("shards", f"{feature_set['shards']:,}, {feature_set['bytes']:,} bytes"),
        ("snapshot", (feature_set["snapshot"] or "none") + (f" (and {since} shards since)" if since else "")),
    ]
    facts += _not_finite(feature_set)
    for profile in feature_set["profiles"]:
        text = ", ".join(f"{name}={value}" for name, value in sorted(profile["profile"].items()))
        facts.append(("profile", f"{profile['rows']:,} rows: {text or 'not recorded'}"))
    facts += [("failed", f"{count:,} {reason}") for reason, count in feature_set["failures"].items()]
    return facts


def _origin(feature_set: dict[str, Any]) -> tuple[str, str]:
    imported = feature_set["imported"]
    if imported is None:
        random = feature_set["random_weights"]
        return ("weights", "RANDOM (cannot be registered)" if random else "as in the fingerprint")
    columns = imported["columns"]
    shown = columns[0] if len(columns) == 1 else f"{columns[0]} ... {columns[-1]}"
    return ("imported", f"{shown} of a file with sha256 {imported['file_sha256'][:12]}")


def _not_finite(feature_set: dict[str, Any]) -> list[tuple[str, str]]:
    """Imported features may hold NaN and infinity; how many rows do."""
    if feature_set["imported"] is None:
        return []
    total = feature_set["rows"] + feature_set["duplicate_rows"]
    counts = {name: total - finite for name, finite in feature_set["finite_rows"].items()}
    return [("not finite", f"{count:,} rows of {name} hold NaN or infinity") for name, count in counts.items() if count]


@app.command()
def verify(
    store: StoreArgument,
    content: Annotated[
        bool, typer.Option("--content", help="Decode every row too, and compare it with what its commit says.")
    ] = False,
    deep: Annotated[bool, typer.Option("--deep", help="--content, and extract a sample of keys again.")] = False,
    dataset: Annotated[
        str | None, typer.Option(metavar="NAME|YAML", help="With --deep: the dataset whose videos are sampled.")
    ] = None,
    sample: Annotated[int, typer.Option(min=1, help="With --deep: keys per feature set.")] = 8,
    seed: Annotated[int, typer.Option(help="With --deep: another number takes other keys.")] = 0,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SET", help="With --deep: only this feature set; again for more."),
    ] = None,
    data_root: DataRootOption = None,
    manifests: ManifestsOption = None,
    device: Annotated[str, typer.Option(help="With --deep: auto, cpu, cuda, ...")] = "auto",
    json: JsonOption = None,
) -> None:
    """Read every byte again and name everything that is not as it was written; exit code 3 when something is."""
    from vqa_train.pipelines.store import look as pipeline

    config = None
    if deep:
        from vqa_train.pipelines.store.deep import DeepConfig

        if dataset is None:
            raise UsageError("--deep needs the videos", hint="name their dataset with --dataset")
        config = DeepConfig(
            dataset=dataset,
            sample=sample,
            seed=seed,
            sets=tuple(sets or ()),
            data_root=data_root,
            manifests_dir=manifests,
            device=device,
        )
    elif dataset is not None:
        raise UsageError("--dataset without --deep", hint="add --deep to extract a sample of its videos again")
    report = pipeline.verify(store, config, content=content, log=log)
    emit_json(report, json)
    if json != "-":
        for problem in report["problems"]:
            print_line(problem)
        for again in report["deep"]:
            print_line(_again(again))
        print_line(
            f"{'ok' if report['ok'] else 'DAMAGED'}: {report['sets']} feature sets, {report['shards']:,} shards, "
            f"{report['rows']:,} rows, {report['bytes']:,} bytes read"
        )
    if not report["ok"]:
        raise GateFailedError(f"{len(report['problems'])} problems in {str(store)!r}")


def _again(again: dict[str, Any]) -> str:
    """The line of one feature set's second extraction."""
    if again["unchecked"] is not None:
        return f"{again['name']}: not extracted again: {again['unchecked']}"
    gaps = [f"{name} {'inf' if gap is None else f'{gap:.2g}'}" for name, gap in again["largest"].items()]
    return f"{again['name']}: {again['checked']} rows extracted again; largest differences: {', '.join(gaps) or 'none'}"


@app.command()
def failures(
    store: StoreArgument,
    reason: Annotated[Reason | None, typer.Option(help="Only failures with this reason code.")] = None,
    json: JsonOption = None,
) -> None:
    """Inputs that have no features, with the reason."""
    from vqa_train.pipelines.store import look as pipeline

    report = pipeline.failures(store, reason)
    emit_json(report, json)
    if json == "-":
        return
    rows = [(f["set"], f["reason"], f["id"], f["path"], f["message"]) for f in report["failures"]]
    print_table(f"{len(rows):,} failures", ("feature set", "reason", "id", "path", "message"), rows)


@app.command()
def gc(
    store: StoreArgument,
    delete: Annotated[bool, typer.Option("--delete", help="Delete them; without it they are only listed.")] = False,
    grace: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="Leave what is younger: a writer may be at work on it.")
    ] = 3600.0,
    json: JsonOption = None,
) -> None:
    """Leftovers of crashes (temporary files, shards without a commit), shards that a compaction replaced, and derived
    caches; never what is read or what a tag keeps."""
    from vqa_train.pipelines.store import look as pipeline

    report = pipeline.gc(store, delete=delete, grace_s=grace)
    emit_json(report, json)
    if json == "-":
        return
    print_table("leftovers", ("why", "bytes", "path"), [(f["why"], f["bytes"], f["path"]) for f in report["files"]])
    verb = "deleted" if delete else "would be deleted with --delete"
    print_line(f"{len(report['files']):,} files, {report['bytes']:,} bytes {verb}")


store_change.add_to(app)
app.command()(compact)
