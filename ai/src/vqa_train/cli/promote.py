"""vqa-train promote: parse, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vqa_train.cli.common import EXIT_INTERRUPTED, JsonOption, emit_json, log, number, print_line, print_table
from vqa_train.cli.gates import leave, show
from vqa_train.cli.options import (
    DataRootOption,
    DatasetsOption,
    DeviceOption,
    ManifestsOption,
    StoreOption,
    ThreadsOption,
)

if TYPE_CHECKING:
    from vqa_train.pipelines.gates.promote import Promotion


def promote(
    model: Annotated[str, typer.Argument(metavar="NAME[:VERSION]", help="NAME alone: the version registered last.")],
    features: StoreOption,
    gates: Annotated[
        Path, typer.Option("--gates", metavar="YAML|NAME", help="Gate file: a file, or one that comes along (release).")
    ],
    dataset: DatasetsOption = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="How often the recipe is fitted. (default: 3)")] = None,
    protocol: Annotated[
        str | None,
        typer.Option(metavar="KIND[:name=value,...]", help="Folds, instead of the gate file's or the recipe's."),
    ] = None,
    runs: Annotated[
        list[Path] | None,
        typer.Option("--runs", metavar="RUN", help="Finished run folder of the recipe, one per seed; again for more."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="DIR", help="For the run folders. (default: runs/promote/NAME-VERSION)"),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Decide, but move no alias and write no document.")
    ] = False,
    registry: Annotated[Path, typer.Option(help="Folder of registered models.")] = Path("model"),
    data_root: DataRootOption = None,
    manifests: ManifestsOption = None,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = 1,
    json: JsonOption = None,
) -> None:
    """Seeds x folds against a gate file: PROMOTE moves the alias champion, HOLD is exit code 3."""
    from vqa_train.core.files import display_path
    from vqa_train.pipelines.gates.config import gate_file, resolve
    from vqa_train.pipelines.gates.promote import PromoteRequest
    from vqa_train.pipelines.gates.promote import promote as gate
    from vqa_train.pipelines.gates.promote_limits import PromoteLimits

    if runs and (seeds is not None or protocol is not None):
        from vqa_train.core.errors import UsageError

        raise UsageError("--runs are fitted already", hint="leave out --seeds and --protocol")
    request = PromoteRequest(
        model=model,
        features=features,
        registry=registry,
        datasets=dataset or (),
        data_root=data_root,
        manifests_dir=manifests,
        runs=runs or (),
        output=output,
        gates=gate_file(gates),
        dry_run=dry_run,
        device=device,
        threads=threads,
    )
    limits = resolve(PromoteLimits, "promote", gates, {"seeds": seeds, "protocol": protocol})
    try:
        promotion = gate(request, limits, say=log)
    except KeyboardInterrupt:
        log("interrupted: finished seeds are kept, and no alias was moved; the same command goes on")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    report = promotion.report
    emit_json(report.to_json(), json)
    if json != "-":
        show(report)
        _seeds(report.details)
        _say(promotion, display_path(promotion.document) if promotion.document is not None else None)
    leave(report)


def _seeds(details: Any) -> None:
    """Every seed's numbers, and what they come to."""
    if "seeds" not in details:
        return
    rows = []
    for seed in details["seeds"]:
        for target, metrics in seed["metrics"].items():
            cells = [f"{number(m['median'])} ± {number(m['std'])}" for m in metrics.values()]
            rows.append([seed["name"], target, *cells])
    for target, metrics in details["over_seeds"].items():
        cells = [f"{number(m['median'])} ± {number(m['std'])}" for m in metrics.values()]
        rows.append(["over seeds", target, *cells])
    folds = details["seeds"][0]["folds"]
    print_table(
        f"median ± std over {folds} folds; corpus {details['corpus']['sha256'][:12]}, "
        f"splits {details['splits_sha256'][:12]}",
        ["seed", "target", "SROCC", "PLCC", "RMSE"],
        rows,
    )


def _say(promotion: Promotion, document: str | None) -> None:
    report = promotion.report
    words = promotion.decision
    if promotion.moved:
        words += f": champion is {report.model}"
    elif promotion.decision == "PROMOTE":
        words += f": {report.model}" + (", dry run, no alias moved" if document is None else " is the champion already")
    print_line(words if document is None else f"{words} ({document})")
