"""vqa-train quantize: parse, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vqa_train.cli.common import JsonOption, emit_json, print_line
from vqa_train.cli.gates import GatesOption, leave, show
from vqa_train.cli.options import DataRootOption, ManifestsOption, ModelArgument, RegistryOption, StoreOption


def quantize(
    model: ModelArgument,
    features: StoreOption,
    output: Annotated[Path, typer.Option(metavar="X.onnx", help="The int8 file; X.json is written beside it.")],
    method: Annotated[
        str, typer.Option(help="dynamic, or static: ranges fixed by training rows of the store.")
    ] = "dynamic",
    dataset: Annotated[
        list[str] | None, typer.Option(metavar="NAME|YAML", help="May be repeated. (default: the ones trained on)")
    ] = None,
    split: Annotated[str, typer.Option(help="Held-out rows: test or val.")] = "test",
    max_srocc_drop: Annotated[
        float | None, typer.Option(metavar="NUMBER", help="Per target, float minus int8. (default: 0.002)")
    ] = None,
    max_plcc_drop: Annotated[float | None, typer.Option(metavar="NUMBER", help="Likewise. (default: 0.002)")] = None,
    max_rmse_rise: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Share of the MOS range. (default: 0.002)")
    ] = None,
    max_coverage_drop: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Of the intervals. (default: no limit)")
    ] = None,
    max_size: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Of the float file's size. (default: 0.5)")
    ] = None,
    min_rows: Annotated[
        int | None, typer.Option(metavar="N", help="Labelled held-out rows per target. (default: 20)")
    ] = None,
    calibration_rows: Annotated[
        int | None, typer.Option(metavar="N", help="Training rows for static, at most. (default: 512)")
    ] = None,
    allow_seen_rows: Annotated[
        bool | None,
        typer.Option("--allow-seen-rows", help="Measure on rows that it may have been fitted on.", show_default=False),
    ] = None,
    data_root: DataRootOption = None,
    manifests: ManifestsOption = None,
    registry: RegistryOption = Path("model"),
    gates: GatesOption = None,
    json: JsonOption = None,
) -> None:
    """Make an int8 version of a head and keep it if its accuracy on held-out rows stays within a budget.

    Exit code 3, and no file, where it does not; 1 where there is nothing worth quantising.
    """
    from vqa_train.core.errors import UsageError
    from vqa_train.core.plugins import needs
    from vqa_train.pipelines.gates.config import resolve

    if json is not None and Path(json).absolute() == output.with_suffix(".json").absolute():
        raise UsageError(f"--json {json!r} would take the place of the sidecar", hint="name another file")
    with needs("vqa-train quantize", "train"):
        from vqa_train.pipelines.gates.quantize import QuantizeConfig, QuantizeLimits
        from vqa_train.pipelines.gates.quantize import quantize as run

    flags = {
        "max_srocc_drop": max_srocc_drop,
        "max_plcc_drop": max_plcc_drop,
        "max_rmse_rise": max_rmse_rise,
        "max_coverage_drop": max_coverage_drop,
        "max_size": max_size,
        "min_rows": min_rows,
        "calibration_rows": calibration_rows,
        "allow_seen_rows": allow_seen_rows,
    }
    report = run(
        QuantizeConfig(
            model=model,
            features=features,
            output=output,
            method=method,
            datasets=tuple(dataset or ()),
            split=split,
            data_root=data_root,
            manifests_dir=manifests,
            registry=registry,
        ),
        resolve(QuantizeLimits, "quantize", gates, flags),
    )
    emit_json(report.to_json(), json)
    if json != "-":
        show(report)
        speed = report.details["milliseconds"]
        for batch in speed["float"]:
            rows = "one row" if batch == "1" else f"{batch} rows"
            print_line(f"{rows}: {speed['float'][batch]:.3f} ms in float, {speed['int8'][batch]:.3f} ms in int8")
        if report.details["intervals"]:
            print_line(f"intervals: {report.details['intervals']}")
        print_line(f"written: {output}" if report.details["written"] else f"not written: {output}")
    leave(report)
