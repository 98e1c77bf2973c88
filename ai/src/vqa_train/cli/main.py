"""The vqa-train command: mounts one file per command. Only typer is imported before a command runs."""

from __future__ import annotations

from typing import Annotated

import typer

from vqa_train import __version__
from vqa_train.cli import (
    bisect,
    check,
    common,
    compare,
    compare_models,
    datasets,
    evaluate,
    export,
    export_backbone,
    extract,
    fit,
    import_features,
    lineage,
    models,
    profile,
    promote,
    quantize,
    register,
    report,
    score,
    select_features,
    status,
    store,
    tune,
    weights,
)

app = typer.Typer(
    name="vqa-train",
    help="Extract features of videos once, fit small heads in seconds, score anywhere with ONNX alone.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"vqa-train {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error; may stand anywhere in the command.")
    ] = False,
) -> None:
    """Options before the command; `--debug` is taken out of the arguments by `common.run`."""


app.add_typer(datasets.app, name="datasets", help="List, scan and verify datasets; make the built-in ladder.")
app.command("extract-features")(extract.extract_features)
app.command("import-features")(import_features.import_features)
app.command("status")(status.status)
app.add_typer(store.app, name="store", help="Look into a feature store, verify it, tidy it.")
app.command("fit")(fit.fit)
app.command("tune")(tune.tune)
app.command("select-features")(select_features.select_features)
app.command("export")(export.export)
app.command("export-backbone")(export_backbone.export_backbone)
app.command("eval")(evaluate.evaluate)
app.command("compare")(compare.compare)
app.command("compare-models")(compare_models.compare_models)
app.command("bisect")(bisect.bisect)
app.command("promote")(promote.promote)
app.add_typer(models.app, name="models", help="List, verify, alias, sign, bundle, push and pull registered models.")
app.command("register")(register.register)
app.command("profile")(profile.profile)
app.command("quantize")(quantize.quantize)
app.add_typer(check.app, name="check", help="Gates: is a model fit for release? Exit code 3 where not.")
app.command("report")(report.report)
app.command("lineage")(lineage.lineage)
app.command("score")(score.score)
app.add_typer(weights.app, name="weights", help="List, fetch, verify and add the weights that backbones need.")


def main() -> None:
    """Entry point of the console script."""
    common.run(app)
