"""vqa-train weights list|pull|verify|add: parse, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vqa_train.cli.common import EXIT_INTERRUPTED, JsonOption, emit_json, log, print_line, print_table

app = typer.Typer(no_args_is_help=True)


@app.command("list")
def list_command(json: JsonOption = None) -> None:
    """The weights that backbones need: where they are, how large, under which licence, and whether they are here."""
    from vqa_train.pipelines import weights as pipeline

    report = pipeline.list_weights()
    emit_json(report, json)
    if json == "-":
        return
    rows = [
        (
            w["name"],
            w["state"],
            f"{w['bytes'] / 1e6:,.0f} MB" if w["bytes"] else None,
            w["license"] + ("" if w["license_checked"] else " (unchecked)"),
            "yes" if w["commercial_use"] else "NO",
            (w["pinned_sha256"] or "at first use")[:12],
            w["path"] or w["source"],
        )
        for w in report["weights"]
    ]
    columns = ("name", "state", "size", "licence", "commercial", "sha256", "where")
    print_table(f"weights in {report['folder']}", columns, rows)
    for w in report["weights"]:
        if w["error"]:
            log(f"{w['state']}: {w['error']}")


@app.command()
def pull(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="As `weights list` shows them.")],
    json: JsonOption = None,
) -> None:
    """Fetch weights and verify them. Ctrl-C keeps what has arrived: the same command goes on from there.

    From Hugging Face through HF_ENDPOINT where it is set, and not at all with HF_HUB_OFFLINE. Exit code: 0 all are
    here, 4 some failed, 1 none could be fetched.
    """
    from vqa_train.pipelines import weights as pipeline

    try:
        report, code = pipeline.pull_weights(names, log=log)
    except KeyboardInterrupt:
        log("interrupted: what has arrived is kept; the same command goes on from there")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    emit_json(report, json)
    if json != "-":
        rows = [(w["name"], w["state"], w["license"], w.get("path")) for w in report["weights"]]
        print_table(f"{len(rows)} weights", ("name", "state", "licence", "where"), rows)
    raise typer.Exit(code)


@app.command()
def verify(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME...]", help="Default: all that are here.")] = None,
    json: JsonOption = None,
) -> None:
    """Read every byte again and name what is not as the manifest or the first use says; exit code 3 if anything is."""
    from vqa_train.pipelines import weights as pipeline

    report = pipeline.verify_weights(names or ())
    emit_json(report, json)
    if json != "-":
        for w in report["weights"]:
            print_line(
                f"{w['state']}: {w['name']}" + (f": {w['error']}" if w["error"] else f" {w['path'] or ''}".rstrip())
            )
        print_line(f"{len(report['weights'])} read")
    pipeline.refuse_changed(report)


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="As `weights list` shows it.")],
    path: Annotated[Path, typer.Argument(help="The file, or a folder with all files.")],
    force: Annotated[bool, typer.Option("--force", help="Accept other bytes than at first use.")] = False,
    json: JsonOption = None,
) -> None:
    """Take weights from a local file or folder: checked to be readable, copied into the weights folder, pinned."""
    from vqa_train.pipelines import weights as pipeline

    report = pipeline.add_weights(name, path, force=force)
    emit_json(report, json)
    if json == "-":
        return
    print_line(f"{name}: {report['tensors']} tensors in {report['path']}")
    for file, sha256 in report["files"].items():
        print_line(f"{sha256}  {file}")
    for file in report["replaced_pins"]:
        log(f"note: {file} differs from the one used before; features of both have different fingerprints")
    if not report["commercial_use"]:
        log(f"note: {report['license']}: no commercial use; this travels into every model that descends from {name}")
