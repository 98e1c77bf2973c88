"""vqa-train check drift: parse, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vqa_train.cli.common import JsonOption
from vqa_train.cli.gates import GatesOption, finish
from vqa_train.cli.options import DataRootOption, ManifestsOption, ModelArgument, RegistryOption
from vqa_train.core.locations import location

Number = float | None


def check_drift(
    model: ModelArgument,
    features: Annotated[
        Path | None,
        typer.Option(metavar="STORE", parser=location, help="Feature store: whole sets, or rows of --dataset."),
    ] = None,
    dataset: Annotated[
        list[str] | None, typer.Option(metavar="NAME|YAML", help="Rows of this dataset; again for further ones.")
    ] = None,
    set_tag: Annotated[
        str | None, typer.Option(metavar="TAG", help="Whole sets as this tag keeps them (default: as they are).")
    ] = None,
    rows: Annotated[
        int | None,
        typer.Option(min=0, help="Of whole sets, also read so many rows for ranges and scores; 0: all."),
    ] = None,
    scores: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What vqa-score wrote: JSON, JSON lines or CSV.")
    ] = None,
    min_rows: Annotated[
        int | None, typer.Option(min=2, help="Independent rows below which nothing is judged (default: 30).")
    ] = None,
    noise_sd: Annotated[
        Number, typer.Option(min=0, help="Standard errors of noise that limits allow for (default: 3).")
    ] = None,
    shift: Annotated[Number, typer.Option(help="Shift of a column's mean, in training sd (default: 0.5).")] = None,
    shift_share: Annotated[
        Number, typer.Option(min=0, max=1, help="Share of columns that may shift by more (default: 0.05).")
    ] = None,
    worst_shift: Annotated[Number, typer.Option(help="Shift of any column, in training sd (default: 2).")] = None,
    rms_shift: Annotated[Number, typer.Option(help="Root mean square of the shifts (default: 0.3).")] = None,
    variance_ratio: Annotated[
        Number, typer.Option(help="Of a column's variance to that of training, either way (default: 4).")
    ] = None,
    variance_share: Annotated[
        Number, typer.Option(min=0, max=1, help="Share of columns that may be further apart (default: 0.1).")
    ] = None,
    outside_share: Annotated[
        Number, typer.Option(min=0, max=1, help="Share of values outside the training range (default: 0.05).")
    ] = None,
    beyond_sd: Annotated[Number, typer.Option(help="What is far from the training mean, in sd (default: 6).")] = None,
    beyond_share: Annotated[
        Number, typer.Option(min=0, max=1, help="Share of values that far away (default: 0.03).")
    ] = None,
    frozen_moved: Annotated[
        int | None, typer.Option(min=0, help="Columns constant in training that may move (default: 0).")
    ] = None,
    missing_share: Annotated[
        Number, typer.Option(min=0, max=1, help="Share of values missing beyond that of training (default: 0.05).")
    ] = None,
    psi: Annotated[Number, typer.Option(help="Population stability index of scores (default: 0.25).")] = None,
    score_shift: Annotated[Number, typer.Option(help="Shift of the mean score, in training sd (default: 0.5).")] = None,
    score_outside: Annotated[
        Number, typer.Option(min=0, max=1, help="Share of scores outside the expected range (default: 0.05).")
    ] = None,
    failed_share: Annotated[
        Number, typer.Option(min=0, max=1, help="Share of rows or videos without a score (default: 0.05).")
    ] = None,
    data_root: DataRootOption = None,
    manifests: ManifestsOption = None,
    registry: RegistryOption = Path("model"),
    gates: GatesOption = None,
    json: JsonOption = None,
) -> None:
    """Are features or live scores like those that the model was fitted on? Exit code 3 where not, or not known.

    With --features alone whole feature sets are judged from the sums in their commit files, without reading a row;
    with --rows or --dataset rows are read, and the head's scores of them are judged too.
    """
    from vqa_train.pipelines.gates.config import resolve
    from vqa_train.pipelines.gates.drift import DriftInput
    from vqa_train.pipelines.gates.drift import check_drift as run
    from vqa_train.pipelines.gates.drift_limits import DriftLimits

    given = locals()
    limits = resolve(DriftLimits, "drift", gates, {name: given[name] for name in DriftLimits.model_fields})
    what = DriftInput(
        features=features,
        datasets=tuple(dataset or ()),
        tag=set_tag,
        rows=rows,
        scores=scores,
        data_root=data_root,
        manifests_dir=manifests,
    )
    finish(run(model, what, limits, registry=registry), json)
