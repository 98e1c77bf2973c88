"""What an extraction is asked for and what it reports."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vqa_train.core.errors import ExitCode
from vqa_train.core.files import display_path
from vqa_train.core.locations import is_place
from vqa_train.pipelines.extract.compute import PrecisionChoice
from vqa_train.pipelines.extract.shards import Shard
from vqa_train.video.job import DEFAULT_RECYCLE, DecodeLimits

EXTRACT_SCHEMA = "vqa-train/extract-report/1"


@dataclass(frozen=True, kw_only=True)
class ExtractConfig:
    """What to extract and how.

    Attributes:
        dataset: manifest name or path.
        output: the store's folder.
        backbones, text: registry names, with settings where wanted (`dover++:fragments=centre`); one at least.
        device, precision, batch, compiled: how the backbones compute (`pipelines.compute.resolve_compute`).
        random_weights: seed of random weights in place of the real ones; for tests and benchmarks.
        shard: takes this share of the videos and prompts, by their sha256; each process of several takes one.
        data_root, manifests_dir: where videos and manifests are; None as `load_dataset` finds them.
        decoder, engine: registry names.
        workers: decoding processes (0 decodes in this process, without isolation).
        limits: what one video may cost.
        recycle: videos after which a decoding process is replaced by a fresh one.
        shard_rows, shard_seconds: a shard is committed at whichever comes first.
        retry_failed: take up videos again that failed in an earlier run.
        limit: at most so many videos in this run.
    """

    dataset: str
    output: Path
    backbones: tuple[str, ...] = ()
    text: tuple[str, ...] = ()
    device: str = "auto"
    precision: PrecisionChoice = "auto"
    batch: int = 0
    compiled: bool = False
    random_weights: int | None = None
    shard: Shard = field(default_factory=Shard)
    data_root: Path | None = None
    manifests_dir: Path | None = None
    decoder: str = "pyav"
    engine: str = "local"
    workers: int = 2
    limits: DecodeLimits = field(default_factory=DecodeLimits)
    recycle: int = DEFAULT_RECYCLE
    shard_rows: int = 256
    shard_seconds: float = 60.0
    retry_failed: bool = False
    limit: int | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON values for provenance; paths without the home folder."""
        value = asdict(self)
        return {k: display_path(v) if is_place(v) else v for k, v in value.items()}


@dataclass
class SetReport:
    """Counts of one feature set in one run: `inputs`, references too, = known + done + failed + skipped + left."""

    name: str
    inputs: int = 0
    known: int = 0
    done: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    left: int = 0

    def to_json(self) -> dict[str, Any]:
        """Counts as JSON values."""
        return {**asdict(self), "failed": dict(self.failed), "skipped": dict(self.skipped)}


@dataclass
class ExtractReport:
    """What a run did.

    Attributes:
        run_id: names runs/<run_id>.json in every feature set of the run.
        sets: per feature set.
        references: pristine videos that rows are judged against and that are no row's video themselves; inputs too.
        duplicates: dataset rows whose bytes another row has too (extracted once).
        retried: videos that took their decoding process down and were decoded again, alone.
        recovered: those of them that gave features then.
        interrupted: the run was told to stop; what was committed is kept, and what was not begun counts as left.
        duration_s: wall time.
    """

    run_id: str
    sets: list[SetReport]
    references: int = 0
    duplicates: int = 0
    retried: int = 0
    recovered: int = 0
    interrupted: bool = False
    duration_s: float = 0.0

    @property
    def exit_code(self) -> int:
        """0, 4 when some inputs have no features, 130 when interrupted."""
        if self.interrupted:
            return 130
        failed = any(report.failed or report.skipped for report in self.sets)
        return ExitCode.SOME_INPUTS_FAILED if failed else ExitCode.DONE

    def to_json(self) -> dict[str, Any]:
        """The report under its versioned schema."""
        return {
            "schema": EXTRACT_SCHEMA,
            "run_id": self.run_id,
            "interrupted": self.interrupted,
            "references": self.references,
            "duplicates": self.duplicates,
            "retried": self.retried,
            "recovered": self.recovered,
            "duration_s": round(self.duration_s, 3),
            "sets": [report.to_json() for report in self.sets],
        }
