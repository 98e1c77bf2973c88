"""The pieces of work that render and label a ladder; each runs in any process and can be taken up again after a crash.

A job writes its clips, then its row file under jobs/. It is done when its row file is there with all the clips in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from vqa_train.core.config import load_json
from vqa_train.core.errors import ConfigError
from vqa_train.core.files import atomic_write_bytes, atomic_write_json
from vqa_train.core.hashing import seed_from, sha256_bytes
from vqa_train.datasets.ladder.config import LadderConfig
from vqa_train.datasets.ladder.distortions import KINDS
from vqa_train.datasets.ladder.frames import encode_near_lossless, read_frames
from vqa_train.datasets.ladder.pseudo_mos import HIGHEST, Reference
from vqa_train.datasets.ladder.sources import Source, read_source

PRISTINE = "pristine"
VIDEOS, JOBS = "videos", "jobs"


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One row of the label table and of the files table.

    Attributes:
        id: "<source>.<kind>.<level>"; the pristine clip is "<source>.pristine.0".
        path: relative to the ladder's folder.
        pseudo_mos: 1 to 5, four decimals.
        group: the source.
        reference: id of the pristine clip; the pristine clip is its own.
        kind, level: the distortion; "pristine" and 0 for the pristine clip.
        parameter: the distortion's amount in the unit of its kind; None for the pristine clip.
        sha256, bytes: of the file.
    """

    id: str
    path: str
    pseudo_mos: float
    group: str
    reference: str
    kind: str
    level: int
    parameter: float | None
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Job:
    """The pristine clip of a source (kind "pristine"), or the rungs of one kind made from that clip."""

    output: Path
    source: Source
    kind: str
    config: LadderConfig

    @property
    def clip_count(self) -> int:
        """Clips that the job makes."""
        return 1 if self.kind == PRISTINE else self.config.levels

    @property
    def row_file(self) -> Path:
        """Where the rows of the finished job are kept."""
        return self.output / JOBS / f"{self.source.id}.{self.kind}.json"


def run_job(job: Job) -> list[Clip]:
    """The clips of `job`, rendered and labelled now.

    Raises:
        MediaError: the source cannot be decoded or an encoder refuses.
        OSError: the disk is full, ...
    """
    clips = list(_pristine(job) if job.kind == PRISTINE else _rungs(job))
    atomic_write_json(job.row_file, [asdict(clip) for clip in clips])
    return clips


def finished(job: Job) -> list[Clip] | None:
    """The clips of a job that was done before; None when a clip or the row file is missing or damaged."""
    if not job.row_file.exists():
        return None
    try:
        clips = [Clip(**row) for row in load_json(job.row_file, "ladder rows")]
        whole = all((job.output / clip.path).stat().st_size == clip.bytes for clip in clips)
    except (ConfigError, TypeError, OSError):
        return None
    return clips if whole and len(clips) == job.clip_count else None


def _pristine(job: Job) -> Iterator[Clip]:
    data = encode_near_lossless(read_source(job.source, job.config))
    yield _write(job, 0, "mp4", data, parameter=None, pseudo_mos=HIGHEST)


def _rungs(job: Job) -> Iterator[Clip]:
    kind = KINDS[job.kind]
    pristine = read_frames(job.output / _path(job.source, PRISTINE, 0, "mp4"))
    reference = Reference(pristine)
    for level in range(1, job.config.levels + 1):
        # The same draw at every level: a level adds to the one below it.
        rng = np.random.default_rng(seed_from("vqa-train/ladder/distortion", job.source.id, job.kind))
        data = kind.render(pristine, level, rng)
        pseudo_mos = round(reference.score(read_frames(data)).pseudo_mos, 4)
        yield _write(job, level, kind.container, data, parameter=kind.values[level - 1], pseudo_mos=pseudo_mos)


def _write(job: Job, level: int, container: str, data: bytes, *, parameter: float | None, pseudo_mos: float) -> Clip:
    path = _path(job.source, job.kind, level, container)
    atomic_write_bytes(job.output / path, data)
    return Clip(
        id=f"{job.source.id}.{job.kind}.{level}",
        path=path,
        pseudo_mos=pseudo_mos,
        group=job.source.id,
        reference=f"{job.source.id}.{PRISTINE}.0",
        kind=job.kind,
        level=level,
        parameter=parameter,
        sha256=sha256_bytes(data),
        bytes=len(data),
    )


def _path(source: Source, kind: str, level: int, container: str) -> str:
    return f"{VIDEOS}/{source.id}.{kind}.{level}.{container}"
