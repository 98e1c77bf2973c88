"""The sidecar of an exported run: everything that run.json and protocol.json know of the model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vqa_train.core.config import load_json, parse
from vqa_train.core.errors import RunError
from vqa_train.heads import HEADS
from vqa_train.heads.ensemble import Ensemble
from vqa_train.onnx.parity import ParityReport
from vqa_train.pipelines import runs
from vqa_train.pipelines.fit.training_statistics import STATISTICS_SCHEMA
from vqa_train.registry.facts import Calibration, MemberFacts, ProtocolSummary, TrainingStatistics
from vqa_train.registry.sidecar import DatasetRef, GoldenRows, ModelInput, ModelSidecar, OnnxFile


def run_sidecar(
    folder: Path,
    record: runs.RunRecord,
    ensemble: Ensemble,
    *,
    name: str,
    onnx: OnnxFile,
    output_names: Sequence[str],
    calibration: Calibration | None,
    parity: ParityReport,
    golden: GoldenRows,
) -> ModelSidecar:
    """The unregistered sidecar of a run's heads.

    Args:
        folder, record: the run.
        ensemble: its heads.
        name, onnx, output_names: of the graph.
        calibration, parity, golden: of the graph.

    Raises:
        RunError: the heads are not those that the record lists.
        ConfigError: protocol.json or statistics.json does not follow its schema.
    """
    members = _members(folder, record, ensemble)
    clips = sorted({head.config.clip_sd for head in ensemble.heads})
    return ModelSidecar(
        name=name,
        onnx=onnx,
        inputs=[_input(item) for item in record.inputs],
        output_names=list(output_names),
        optional_inputs=_optional_inputs(record),
        targets=record.targets,
        input_normalization=(
            f"inside the graph: training rows' mean and standard deviation per column, clipped at "
            f"+-{' or '.join(f'{clip:g}' for clip in clips)} standard deviations, NaN and infinity as the mean"
        ),
        expected_output_range=record.expected_output_range,
        direction=record.direction,
        mos_range=record.mos_range,
        dataset=DatasetRef(**record.dataset),
        datasets=[
            DatasetRef(name=found.name, version=found.version, manifest_sha256=found.manifest_sha256)
            for found in record.datasets
        ]
        if len(record.datasets) > 1
        else None,
        members=members,
        calibration=calibration,
        protocol=_protocol(folder, record),
        scales=record.scales or None,
        training_statistics=_statistics(folder, record),
        train_config_hash=record.config_sha256,
        inherited_licenses={
            f"dataset {record.dataset['name']}": record.dataset_license,
            **{f"dataset {found.name}": found.license for found in record.datasets},
            **{f"features {item.spec['backbone']}": item.license for item in record.inputs},
        },
        descends_from_random_weights=any(item.spec["weights"]["random_seed"] is not None for item in record.inputs),
        parity=parity.to_json(),
        golden_rows=golden,
        run_provenance=record.run_provenance,
    )


def _input(item: runs.RunInput) -> ModelInput:
    return ModelInput(
        name=item.name,
        modality=item.spec["modality"],
        backbone=item.spec["backbone"],
        fingerprint=item.fingerprint,
        output=item.output,
        of=item.of,
        dim=item.dim,
        shape=tuple(item.shape) if len(item.shape) > 1 else None,
        spec=item.spec,
        license=item.license,
    )


def _members(folder: Path, record: runs.RunRecord, ensemble: Ensemble) -> list[MemberFacts]:
    """What is averaged, the record's names beside the heads' own facts."""
    claimed = [(member.config["head"]["kind"], len(member.seeds)) for member in record.members]
    found = [(head.config.kind, head.models) for head in ensemble.heads]
    shapes = {item.name: tuple(item.shape) for item in record.inputs}
    if claimed != found or shapes != ensemble.inputs or list(ensemble.targets) != record.targets:
        raise RunError(
            f"{str(folder / runs.HEAD_FILE)!r} holds heads {found} of inputs {ensemble.inputs} and targets "
            f"{list(ensemble.targets)}, run.json says {claimed}, {shapes} and {record.targets}",
            hint="fit again with --overwrite",
        )
    total = sum(ensemble.member_weights)
    return [
        MemberFacts(
            name=member.name,
            kind=head.config.kind,
            output=head.config.output,
            models=head.models,
            weight=weight / total,
        )
        for member, head, weight in zip(record.members, ensemble.heads, ensemble.member_weights, strict=True)
    ]


def _optional_inputs(record: runs.RunRecord) -> list[str] | None:
    """Inputs that may be absent: all of several, where every member met rows without them in training."""
    names = [item.name for item in record.inputs]
    survives = all(
        member.config["drop_sets"] > 0 and not HEADS.get(member.config["head"]["kind"]).closed_form
        for member in record.members
    )
    return names if survives and len(names) > 1 else None


def _statistics(folder: Path, record: runs.RunRecord) -> TrainingStatistics | None:
    """None for a run of before statistics were kept."""
    if runs.STATISTICS_FILE not in record.files:
        return None
    path = folder / runs.STATISTICS_FILE
    value = load_json(path, "training statistics")
    if not isinstance(value, dict) or value.pop("schema", None) != STATISTICS_SCHEMA:
        raise RunError(f"training statistics {str(path)!r} are not of schema {STATISTICS_SCHEMA!r}", hint="fit again")
    return parse(TrainingStatistics, value, str(path))


def _protocol(folder: Path, record: runs.RunRecord) -> ProtocolSummary | None:
    if runs.PROTOCOL_FILE not in record.files:
        return None
    path = folder / runs.PROTOCOL_FILE
    report = load_json(path, "protocol report")
    try:
        summary = {
            "protocol": report["protocol"],
            "splits_sha256": report["splits_sha256"],
            "folds": len(report["folds"]),
            "metrics": {
                target: {
                    metric: {key: values[key] for key in ("median", "std", "n")} for metric, values in metrics.items()
                }
                for target, metrics in report["summary"].items()
            },
            "warnings": report.get("warnings", []),
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise RunError(f"protocol report {str(path)!r} is malformed: {error!r}") from error
    return parse(ProtocolSummary, summary, str(path))
