"""vqa-train models export-bundle|push|pull: a model to where it is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vqa_train.cli.common import JsonOption, emit_json, log, print_line
from vqa_train.cli.options import RegisteredArgument, RegistryOption, SignatureOption

_PLACE = "hf://ORG/REPO[@REVISION], s3://... or another URL, or a folder."


def export_bundle(
    model: RegisteredArgument,
    output: Annotated[Path, typer.Argument(metavar="OUT", help="A path that ends in .tar.zst, or a folder.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle that is there.")] = False,
    registry: RegistryOption = Path("model"),
    require_signature: SignatureOption = None,
    json: JsonOption = None,
) -> None:
    """Write a model with all its backbones as one file or folder, which `vqa-score --model OUT` takes as it is."""
    from vqa_train.pipelines.models.export import export_bundle as run

    done = run(model, output, registry, overwrite=overwrite, require_signature=require_signature or ())
    emit_json(done.to_json(), json)
    if json != "-":
        digest = f", sha256 {done.sha256}" if done.sha256 else ""
        print_line(f"{done.model} -> {done.output}: {done.files} files, {done.bytes / 1e6:.2f} MB{digest}")


def push(
    model: RegisteredArgument,
    destination: Annotated[str, typer.Argument(metavar="DEST", help=_PLACE)],
    alias: Annotated[str | None, typer.Option(metavar="ALIAS", help="Point this alias there to it.")] = None,
    registry: RegistryOption = Path("model"),
    require_signature: SignatureOption = None,
    json: JsonOption = None,
) -> None:
    """Copy a model, verified first, into a registry elsewhere; its registry.json is written last."""
    from vqa_train.pipelines.models.push import push_model

    done = push_model(model, destination, registry, alias=alias, require_signature=require_signature or ())
    emit_json(done.to_json(), json)
    if json != "-":
        print_line(f"{done.model} -> {done.destination}: {len(done.files)} files that were not there")


def pull(
    source: Annotated[str, typer.Argument(metavar="SRC", help=_PLACE)],
    model: Annotated[
        str | None, typer.Argument(metavar="[MODEL]", help="NAME, NAME:VERSION or NAME@ALIAS there, if it has several.")
    ] = None,
    alias: Annotated[str | None, typer.Option(metavar="ALIAS", help="Point this alias here to it.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace another model of that version.")] = False,
    registry: RegistryOption = Path("model"),
    require_signature: SignatureOption = None,
    json: JsonOption = None,
) -> None:
    """Copy a model out of a registry elsewhere; nothing of it is here before all of it was verified."""
    from vqa_train.pipelines.models.pull import pull_model

    done = pull_model(
        source,
        model,
        registry,
        alias=alias,
        overwrite=overwrite,
        require_signature=require_signature or (),
        log=log,
    )
    emit_json(done.to_json(), json)
    if json != "-":
        signed = f", signed by {done.signed_by}" if done.signed_by else ""
        what = f"{done.files} files, {done.bytes / 1e6:.2f} MB" if done.changed else "here already"
        print_line(f"{done.source} -> {registry}: {done.model}, {what}{signed}")
