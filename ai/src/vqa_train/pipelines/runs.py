"""The run folder that `fit` writes: its schema, and opening it again with every file's hash checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field

from vqa_train.core.config import StrictModel, load_json, parse
from vqa_train.core.errors import RunError
from vqa_train.core.hashing import sha256_file

RUN_SCHEMA = "vqa-train/run/1"
RUN_FILE = "run.json"
HEAD_FILE = "head.safetensors"
ROWS_FILE = "rows.safetensors"
PREDICTIONS_FILE = "predictions.parquet"
METRICS_FILE = "metrics.json"
HISTORY_FILE = "history.json"


class RunInput(StrictModel):
    """One named input of the head and the identity of its features."""

    name: str
    output: str
    dim: int
    fingerprint: str
    spec: dict[str, Any]
    license: str


class RunRecord(StrictModel):
    """run.json: written last, so a folder without it is an unfinished run.

    Attributes:
        inputs: in the order of the head's arguments.
        mos_range: target -> [lowest, highest] of the dataset's scale.
        expected_output_range: target -> [lowest, highest] score to expect (a score outside is no error).
        rows: counts of train, validation and test rows, and of records left out by reason.
        training: counts of the trainer, and NaN or infinite values and constant columns per input.
        files: name in this folder -> sha256.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    schema_: Literal["vqa-train/run/1"] = Field(default="vqa-train/run/1", alias="schema")
    inputs: list[RunInput]
    targets: list[str]
    mos_range: dict[str, tuple[float, float]]
    expected_output_range: dict[str, tuple[float, float]]
    direction: Literal["higher_is_better", "lower_is_better"]
    dataset: dict[str, str]
    dataset_license: str
    config: dict[str, Any]
    config_sha256: str
    rows: dict[str, int]
    best_epoch: int
    training: dict[str, dict[str, int]]
    files: dict[str, str]
    run_provenance: dict[str, Any]


def open_run(folder: Path) -> RunRecord:
    """The record of a finished run whose files are what they were when it was written.

    Raises:
        RunError: no such folder, an unfinished run, or a file that is missing or changed.
        ConfigError: run.json does not follow its schema.
    """
    path = folder / RUN_FILE
    if not path.is_file():
        what = "is not a run folder" if folder.is_dir() else "does not exist"
        raise RunError(f"{str(folder)!r} {what}", hint="name the --output folder of a finished `vqa-train fit`")
    record = parse(RunRecord, load_json(path, "run record"), str(path))
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
