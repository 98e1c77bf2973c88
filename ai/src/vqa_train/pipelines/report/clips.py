"""The videos that a model gets most wrong, each with a picture where its file is at hand."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.errors import DependencyError, MediaError, Reason, VqaError
from vqa_train.core.types import Sampling, Video
from vqa_train.datasets.load import Dataset
from vqa_train.pipelines.report.figure import printable
from vqa_train.pipelines.report.rows import ScoredRows
from vqa_train.video.workers import DecodeJob, decode_many

_SIZE = (320, 180)
_QUALITY = 72
_WIDE_SCALE = 20

Record = tuple[Dataset, Video]


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One video of the page.

    Attributes:
        name: id, with its dataset where there are several.
        prompt: the text that it was made from, or None.
        label, predicted: on the scale of the labels.
        digits: to show after the point.
        image: data URI of its middle frame, or None.
        missing: why there is no image.
    """

    name: str
    prompt: str | None
    label: float
    predicted: float
    digits: int
    image: str | None
    missing: str | None

    @property
    def residual(self) -> float:
        """Prediction less label."""
        return self.predicted - self.label

    def shown(self, value: float) -> str:
        """A score as the page has it."""
        return f"{value:.{self.digits}f}"


def worst_rows(rows: ScoredRows, target: int, most: int) -> NDArray[np.int64]:
    """Numbers of the rows with the largest residuals, the largest first; ties by key."""
    known = np.flatnonzero(rows.known(target))
    size = np.abs(rows.predicted[known, target] - rows.label[known, target])
    keys = rows.keys
    order = sorted(range(len(known)), key=lambda i: (-size[i], keys[known[i]]))
    return known[np.asarray(order[:most], dtype=np.int64)]


def worst_clips(
    rows: ScoredRows,
    target: int,
    numbers: Sequence[int],
    records: Mapping[str, Record],
    images: Mapping[str, str],
    missing: Mapping[str, str],
) -> list[Clip]:
    """The clips of these rows, with the pictures and failures that `middle_frames` gave by key."""
    several = len(set(rows.datasets.tolist())) > 1
    keys = rows.keys

    label = rows.label[:, target]
    digits = 2 if np.ptp(label[np.isfinite(label)]) < _WIDE_SCALE else 1

    def prompt(key: str) -> str | None:
        found = records[key][1].prompt if key in records else None
        return printable(found) if found else None

    return [
        Clip(
            name=printable(f"{rows.datasets[i]}/{rows.ids[i]}" if several else str(rows.ids[i])),
            prompt=prompt(keys[i]),
            label=float(rows.label[i, target]),
            predicted=float(rows.predicted[i, target]),
            digits=digits,
            image=images.get(keys[i]),
            missing=missing.get(keys[i]),
        )
        for i in numbers
    ]


def middle_frames(
    rows: ScoredRows, numbers: Sequence[int], records: Mapping[str, Record]
) -> tuple[dict[str, str], dict[str, str]]:
    """Row key -> data URI of a small JPEG of the middle frame, and row key -> why there is none.

    A file is decoded in a worker process, which may crash, and only if its bytes are those that the run saw.

    Raises:
        DependencyError: Pillow is not installed.
    """
    keys = rows.keys
    wanted: dict[DecodeJob, list[str]] = {}
    missing: dict[str, str] = {}
    for i in dict.fromkeys(numbers):
        try:
            job = _job(records.get(keys[i]), str(rows.sha256[i]))
        except VqaError as error:
            missing[keys[i]] = error.message
        else:
            wanted.setdefault(job, []).append(keys[i])
    images: dict[str, str] = {}
    for outcome in decode_many(list(wanted), [Sampling(mode="uniform", n=1)], workers=1) if wanted else ():
        with outcome:
            for key in wanted[outcome.job]:
                if outcome.reason is not None:
                    # The message names the file by its whole path, which is nobody else's business.
                    missing[key] = f"the file cannot be read ({outcome.reason.value.replace('_', ' ')})"
                else:
                    images[key] = _jpeg(outcome.clips[0][0].frames[0])
    return images, missing


def _job(record: Record | None, sha256: str) -> DecodeJob:
    if record is None:
        raise MediaError("not in the dataset", reason=Reason.MISSING_FILE)
    dataset, video = record
    path = dataset.path_of(video)
    if not path.is_file():
        raise MediaError("the file is not there", reason=Reason.MISSING_FILE)
    return DecodeJob(key=sha256, path=path, verify=True)


def _jpeg(frame: NDArray[np.uint8]) -> str:
    """Data URI of an RGB frame (H, W, 3) at no more than 320 x 180."""
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise DependencyError(
            "thumbnails need the package 'PIL', which is not installed", hint="pip install 'vqa-train[report]'"
        ) from error
    image = Image.fromarray(np.ascontiguousarray(frame))
    image.thumbnail(_SIZE)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
