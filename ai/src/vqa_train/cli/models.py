"""vqa-train models list|show|verify|alias|remove, and the commands of models_keys.py and models_move.py."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vqa_train.cli import models_keys, models_move
from vqa_train.cli.common import JsonOption, emit_json, print_line, print_table
from vqa_train.cli.options import RegisteredArgument, RegistryOption, SignatureOption

if TYPE_CHECKING:
    from vqa_train.pipelines.models.listing import Signature
    from vqa_train.pipelines.models.verify import Verified

app = typer.Typer(no_args_is_help=True)

_MODELS = Path("model")
_VERDICTS = {"ok": "ok", "failed": "DIFFERS", "not_checked": "not checked"}


@app.command("list")
def list_(
    registry: RegistryOption = _MODELS, require_signature: SignatureOption = None, json: JsonOption = None
) -> None:
    """Every version of every model; the one that NAME alone means is marked with *.

    Exit code 4 where the description of one is not what registry.json says.
    """
    from vqa_train.core.errors import ExitCode
    from vqa_train.pipelines.models.listing import LIST_SCHEMA, list_models

    rows = list_models(registry, require_signature=require_signature or ())
    emit_json({"schema": LIST_SCHEMA, "models": [row.to_json() for row in rows]}, json)
    if json != "-":
        print_table(
            str(registry),
            ["name", "version", "aliases", "kind", "targets", "MB", "signed", "registered", "problem"],
            [
                [
                    row.name,
                    row.version + ("*" if row.champion_or_last else ""),
                    ", ".join(row.aliases),
                    row.kind,
                    ", ".join(row.targets or ()),
                    None if row.bytes is None else f"{row.bytes / 1e6:.2f}",
                    _signed(row.signature),
                    row.registered,
                    row.problem,
                ]
                for row in rows
            ],
        )
    if any(row.problem for row in rows):
        raise typer.Exit(ExitCode.SOME_INPUTS_FAILED)


@app.command("show")
def show(
    model: RegisteredArgument,
    registry: RegistryOption = _MODELS,
    require_signature: SignatureOption = None,
    json: JsonOption = None,
) -> None:
    """Everything of one model: what it predicts, its files with their hashes, how its aliases moved."""
    from vqa_train.pipelines.models.listing import show_model

    shown = show_model(model, registry, require_signature=require_signature or ())
    emit_json(shown.to_json(), json)
    if json == "-":
        return
    sidecar, row = shown.model.sidecar, shown.row
    dataset = f"{sidecar.dataset.name} {sidecar.dataset.version or ''}".strip() if sidecar.dataset else None
    facts: list[list[str | None]] = [
        ["model", shown.model.label],
        ["aliases", ", ".join(row.aliases)],
        ["kind", sidecar.kind],
        [
            "targets",
            ", ".join(f"{t} {sidecar.mos_range[t][0]:g}..{sidecar.mos_range[t][1]:g}" for t in sidecar.targets),
        ],
        ["inputs", ", ".join(f"{i.name} ({i.backbone}/{i.output})" for i in sidecar.inputs)],
        ["dataset", dataset],
        ["licence", sidecar.license],
        ["training commit", sidecar.train_commit],
        ["registered", row.registered],
        ["signed", _signed(row.signature)],
        ["sidecar sha256", shown.model.entry.sidecar_sha256],
    ]
    print_table("model", ["what", "value"], facts)
    print_line()
    files: list[list[object]] = [
        [part.name, part.what, "" if part.bytes is None else part.bytes, part.sha256] for part in shown.parts
    ]
    print_table("files", ["file", "what", "bytes", "sha256"], files)
    if shown.moves:
        print_line()
        rows = [[m["at"], m["alias"], m["previous"], m["version"], m["by"]] for m in shown.moves]
        print_table("moves of aliases", ["at", "alias", "from", "to", "by"], rows)


@app.command("verify")
def verify(
    model: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MODEL]...", help="NAME, NAME:VERSION, NAME@ALIAS, a folder or a .tar.zst bundle."),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every version of every model of the registry.")] = False,
    registry: RegistryOption = _MODELS,
    require_signature: SignatureOption = None,
    json: JsonOption = None,
) -> None:
    """Check every file of a model against the chain of hashes, its signature, and its graphs against its sidecar.

    Golden rows are replayed. Exit code 1 where anything differs, with what.
    """
    from vqa_train.core.errors import ExitCode, UsageError
    from vqa_train.pipelines.models.verify import SCHEMA, verify_models

    if bool(model) == all_:
        raise UsageError("give models, or --all")
    found = verify_models(None if all_ else model, registry, require_signature=require_signature or ())
    ok = bool(found) and all(one.ok for one in found)
    emit_json({"schema": SCHEMA, "ok": ok, "models": [one.to_json() for one in found]}, json)
    if json != "-":
        for one in found:
            _show_checks(one)
        print_line(f"{sum(one.ok for one in found)} of {len(found)} models are what they claim to be")
    if not ok:
        raise typer.Exit(ExitCode.ERROR)


def _show_checks(found: Verified) -> None:
    rows = [[check.part, _VERDICTS[check.verdict], check.file, check.message] for check in found.checks]
    print_table(found.model, ["part", "verdict", "file", ""], rows)
    print_line()


@app.command("alias")
def alias(
    model: Annotated[str, typer.Argument(metavar="NAME:VERSION", help="Where it is to point; with --remove NAME.")],
    alias: Annotated[str, typer.Argument(metavar="ALIAS", help="champion is the one that NAME alone means.")],
    remove: Annotated[bool, typer.Option("--remove", help="Take the alias away.")] = False,
    registry: RegistryOption = _MODELS,
    require_signature: SignatureOption = None,
    json: JsonOption = None,
) -> None:
    """Point an alias to a version; every move is recorded in registry.json."""
    from vqa_train.pipelines.models.change import remove_alias, set_alias

    if remove:
        change = remove_alias(model, alias, registry)
    else:
        change = set_alias(model, alias, registry, require_signature=require_signature or ())
    emit_json(change.to_json(), json)
    if json != "-":
        was = f" (was {change.previous})" if change.previous is not None and change.changed else ""
        where = "is removed" if change.version is None else f"-> {change.name}:{change.version}"
        print_line(f"{change.name}@{change.alias} {where}{was}{'' if change.changed else ', as before'}")


@app.command("remove")
def remove(
    model: Annotated[str, typer.Argument(metavar="NAME:VERSION")],
    force: Annotated[
        bool, typer.Option("--force", help="Also when an alias points to it; the alias goes too.")
    ] = False,
    registry: RegistryOption = _MODELS,
    json: JsonOption = None,
) -> None:
    """Take one version out of the registry and delete its folder; backbones in the cache stay."""
    from vqa_train.pipelines.models.change import remove_model

    removed = remove_model(model, registry, force=force)
    emit_json(removed.to_json(), json)
    if json != "-":
        aliases = f", with the alias {', '.join(removed.aliases)}" if removed.aliases else ""
        print_line(f"removed {removed.name}:{removed.version}{aliases}")


def _signed(signature: Signature | None) -> str:
    if signature is None:
        return ""
    if signature.key_id is None:
        return "NO" if signature.verified is False else "no"
    verified = {None: "not verified", True: "verified", False: "NOT BY A REQUIRED KEY"}[signature.verified]
    return f"{signature.key_id} ({verified})"


app.command("export-bundle")(models_move.export_bundle)
app.command("push")(models_move.push)
app.command("pull")(models_move.pull)
app.command("keygen")(models_keys.keygen)
app.command("sign")(models_keys.sign)
