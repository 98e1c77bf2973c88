"""The run folder that `fit` writes: its schema, and opening it again with every file's hash checked.

How to bump the version: change the number in RUN_SCHEMA and in the Literal of RunRecord; make `open_run` convert the
older record or refuse it with what to do; write the change into docs/formats/run.md and CHANGELOG.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field

from vqa_train.core.config import StrictModel, load_json, parse
from vqa_train.core.errors import RunError
from vqa_train.core.hashing import sha256_file

RUN_SCHEMA = "vqa-train/run/2"
RUN_FILE = "run.json"
HEAD_FILE = "head.safetensors"
ROWS_FILE = "rows.safetensors"
PREDICTIONS_FILE = "predictions.parquet"
METRICS_FILE = "metrics.json"
HISTORY_FILE = "history.json"
SPLITS_FILE = "splits.json"
FEATURES_FILE = "features.json"
HELD_OUT_FILE = "heldout.parquet"
PROTOCOL_FILE = "protocol.json"
CALIBRATION_FILE = "calibration.json"
STATISTICS_FILE = "statistics.json"

_SCHEMA_PREFIX = "vqa-train/run/"


class RunInput(StrictModel):
    """One named input of the head and the identity of its features.

    Attributes:
        of: "reference" where the features are those of each record's reference; left out of the file otherwise.
        dim: length of the last axis.
        shape: of one row: (D,) or (T, D).
    """

    name: str
    output: str
    of: Literal["reference"] | None = Field(default=None, exclude_if=lambda value: value is None)
    dim: int
    shape: list[int]
    fingerprint: str
    spec: dict[str, Any]
    license: str


class RunMember(StrictModel):
    """One recipe of the ensemble.

    Attributes:
        weight: relative to the other members.
        seeds: of its heads, in the order of the models in head.safetensors.
        config: the recipe (heads.config.TrainConfig).
    """

    name: str
    weight: float
    seeds: list[int]
    config: dict[str, Any]


class RunDataset(StrictModel):
    """One dataset of the run."""

    name: str
    version: str
    manifest_sha256: str
    license: str
    rows: int


class RunRecord(StrictModel):
    """run.json: written last, so a folder without it is an unfinished run.

    Attributes:
        inputs: in the order of the head's arguments.
        mos_range: target -> [lowest, highest] of the scale of the predictions.
        expected_output_range: target -> [lowest, highest] score to expect (a score outside is no error).
        dataset, dataset_license: the first of `datasets`, whose scale the predictions have.
        datasets: all of them.
        rows: counts of train, validation and test rows, and of records left out by reason.
        best_epoch: of the first head; history.json has them all.
        training: counts of the trainer, and NaN or infinite values, constant columns and rows without features per
            input, of the first head.
        members: recipes of the ensemble.
        protocol: resolved.
        splits_sha256: identity of the split plan.
        calibration: summary of calibration.json, or None.
        scales: dataset -> target -> its map from the scale of the predictions, where several datasets were joined.
        warnings: what whoever reports the numbers must know.
        files: name in this folder -> sha256.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    schema_: Literal["vqa-train/run/2"] = Field(default="vqa-train/run/2", alias="schema")
    inputs: list[RunInput]
    targets: list[str]
    mos_range: dict[str, tuple[float, float]]
    expected_output_range: dict[str, tuple[float, float]]
    direction: Literal["higher_is_better", "lower_is_better"]
    dataset: dict[str, str]
    dataset_license: str
    datasets: list[RunDataset]
    config: dict[str, Any]
    config_sha256: str
    rows: dict[str, int]
    best_epoch: int
    training: dict[str, dict[str, int]]
    members: list[RunMember]
    protocol: dict[str, Any]
    splits_sha256: str
    calibration: dict[str, Any] | None = None
    scales: dict[str, dict[str, dict[str, Any]]] = Field(default_factory=dict)
    warnings: list[str] = Field(default_factory=list)
    files: dict[str, str]
    run_provenance: dict[str, Any]


def open_run(folder: Path) -> RunRecord:
    """The record of a finished run whose files are what they were when it was written.

    Raises:
        RunError: no such folder, an unfinished run, another version, or a file that is missing or changed.
        ConfigError: run.json does not follow its schema.
    """
    path = folder / RUN_FILE
    if not path.is_file():
        what = "is not a run folder" if folder.is_dir() else "does not exist"
        raise RunError(f"{str(folder)!r} {what}", hint="name the --output folder of a finished `vqa-train fit`")
    value = load_json(path, "run record")
    schema = value.get("schema") if isinstance(value, dict) else None
    if schema != RUN_SCHEMA and isinstance(schema, str) and schema.startswith(_SCHEMA_PREFIX):
        raise RunError(
            f"run folder {str(folder)!r} has schema {schema!r}, expected {RUN_SCHEMA!r}",
            hint="fit again, or install the version of vqa-train that wrote it",
        )
    record = parse(RunRecord, value, str(path))
    for name, expected in record.files.items():
        file = folder / name
        if not file.is_file():
            raise RunError(f"run file {str(file)!r} is missing", hint="fit again with --overwrite")
        found = sha256_file(file)
        if found != expected:
            raise RunError(
                f"run file {str(file)!r} has sha256 {found[:12]}, run.json says {expected[:12]}",
                hint="it was changed after the run; fit again with --overwrite",
            )
    return record
