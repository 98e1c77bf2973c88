"""Writes labels of a feature file as an ordinary dataset manifest, joined with what an earlier file said."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vqa_train.core.config import parse
from vqa_train.core.errors import LabelError, Reason
from vqa_train.core.files import atomic_write_bytes, locked
from vqa_train.core.hashing import sha256_bytes
from vqa_train.core.types import Video
from vqa_train.datasets.external.keys import safe_path
from vqa_train.datasets.external.labels import FileLabels
from vqa_train.datasets.files_table import FileEntry, write_files_table
from vqa_train.datasets.load import has_videos, load_dataset
from vqa_train.datasets.manifest import DatasetManifest, Direction, MosRange, read_manifest, write_manifest

State = Literal["written", "unchanged", "extended", "replaced"]
_ID, _VIDEO, _GROUP, _SPLIT, _PROMPT = "id", "video", "group", "split", "prompt"
_RESERVED = (_ID, _VIDEO, _GROUP, _SPLIT, _PROMPT)
# Scores that went through float32 in one of two files are the same scores.
_SAME = 1e-6
_NONE: Mapping[str, float] = {}


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """What is written beside the labels.

    Attributes:
        name: of the dataset.
        folder: of its manifest.
        license: of the labels and videos; None keeps what is there, else "unknown".
        source: where the labels came from.
        direction: which end of the scale is the better one.
        ranges: target -> lowest and highest possible score; None takes what was observed.
        overwrite: replace labels that are there and differ.
    """

    name: str
    folder: Path
    license: str | None
    source: str
    direction: Direction
    ranges: Mapping[str, tuple[float, float]]
    overwrite: bool = False


@dataclass(frozen=True)
class WrittenDataset:
    """The manifest, whether it is new, and how many rows it has."""

    path: Path
    state: State
    videos: int
    manifest: DatasetManifest


def videos_of(labels: FileLabels, keys: Iterable[str]) -> list[Video]:
    """The rows of a feature file as records without files."""
    return [
        Video(
            id=name,
            path=safe_path(name),
            sha256=key,
            bytes=0,
            prompt=(labels.prompts[row] or None) if labels.prompts is not None else None,
            labels=_row(labels.targets, row),
            label_std=_row(labels.std, row) if labels.std else _NONE,
            split=(labels.splits[row] or None) if labels.splits is not None else None,
            group=(labels.groups[row] or None) if labels.groups is not None else None,
        )
        for row, (name, key) in enumerate(zip(labels.ids, keys, strict=True))
    ]


def _row(columns: Mapping[str, Any], row: int) -> dict[str, float]:
    return {name: float(values[row]) for name, values in columns.items() if not math.isnan(values[row])}


def write_dataset(videos: list[Video], targets: list[str], config: DatasetConfig) -> WrittenDataset:
    """Write `videos` as the dataset `config.name`; rows and labels that an earlier file gave stay.

    Readers see the old manifest or the new one, never a mixture. Nothing is written when nothing is new.

    Raises:
        LabelError: a row says something else than the dataset that is there, and `overwrite` is not set; a target whose
            scores are all the same and whose range is not known.
        ManifestError, ConfigError: the dataset that is there is damaged.
    """
    path = config.folder / f"{config.name}.yaml"
    with locked(config.folder / f".{config.name}.lock"):
        old = read_manifest(path)[0] if path.exists() and not config.overwrite else None
        if old is not None:
            _check_like(old, path, config)
            if set(targets) == set(old.target_names):
                same, _ = _draft(videos, list(old.target_names), config, old)
                if _same(old, same):
                    return WrittenDataset(path, "unchanged", len(videos), old)
            targets = [*old.target_names, *(target for target in targets if target not in old.target_names)]
            videos = _merged(load_dataset(str(path)).videos, videos, config.name)
        manifest, labels = _draft(videos, targets, config, old)
        if old is not None and _same(old, manifest):
            return WrittenDataset(path, "unchanged", len(videos), old)
        state: State = "extended" if old is not None else "replaced" if path.exists() else "written"
        entries = [FileEntry(video.path, video.sha256, 0) for video in videos]
        return WrittenDataset(path, state, len(videos), _write(path, manifest, labels, entries))


def _check_like(old: DatasetManifest, path: Path, config: DatasetConfig) -> None:
    """Refuse a dataset that is of another kind, or whose scale points the other way."""
    if has_videos(old):
        raise LabelError(
            f"dataset manifest {str(path)!r} was not written by import-features", hint="name another --dataset"
        )
    if old.mos.direction != config.direction:
        raise LabelError(
            f"dataset {config.name!r} is there as {old.mos.direction}, and {config.direction} was given",
            hint="give --lower-is-better as before, or --overwrite-labels",
        )


def _merged(before: Iterable[Video], videos: Iterable[Video], dataset: str) -> list[Video]:
    merged = {video.id: video for video in before}
    conflicts = []
    for video in videos:
        known = merged.get(video.id)
        if known is None or known == video:
            merged[video.id] = video
            continue
        difference = _difference(known, video)
        if difference is not None:
            conflicts.append(difference)
            continue
        merged[video.id] = Video(
            id=video.id,
            path=known.path,
            sha256=known.sha256,
            bytes=0,
            prompt=known.prompt or video.prompt,
            labels={**video.labels, **known.labels},
            label_std={**video.label_std, **known.label_std},
            split=known.split or video.split,
            group=known.group or video.group,
        )
    if conflicts:
        more = f" (and {len(conflicts) - 1} more rows)" if len(conflicts) > 1 else ""
        raise LabelError(
            f"dataset {dataset!r} is there with other labels: {conflicts[0]}{more}",
            hint="pass --overwrite-labels to replace them, or name another --dataset",
            reason=Reason.LABEL_MISMATCH,
        )
    return list(merged.values())


def _difference(known: Video, video: Video) -> str | None:
    """What two records of one id disagree about; what only one of them says is no disagreement."""
    pairs: list[tuple[str, Any, Any]] = [
        ("video", known.sha256, video.sha256),
        *((name, getattr(known, name), getattr(video, name)) for name in ("group", "split", "prompt")),
    ]
    pairs += [(name, known.labels.get(name), value) for name, value in video.labels.items()]
    pairs += [(f"std of {name}", known.label_std.get(name), value) for name, value in video.label_std.items()]
    for what, old, new in pairs:
        if old is None or new is None or old == new:
            continue
        if not (isinstance(old, float) and math.isclose(old, new, rel_tol=_SAME, abs_tol=_SAME)):
            return f"{what} of {video.id!r} is {old!r:.40} there and {new!r:.40} here"
    return None


def _draft(
    videos: list[Video], targets: list[str], config: DatasetConfig, old: DatasetManifest | None
) -> tuple[DatasetManifest, bytes]:
    """The manifest without its files, and the bytes of its label table."""
    columns, std_columns = _column_names(targets, videos)
    labels = _table(videos, columns, std_columns)
    # Names both tables, so that neither is ever written over one that a manifest points to.
    tag = sha256_bytes(labels + "".join(video.sha256 for video in videos).encode())[:12]
    ranges = {target: _range(target, videos, config, old) for target in targets}
    scale = ranges[targets[0]]
    optional = {name for name in (_GROUP, _SPLIT, _PROMPT) if any(getattr(v, name) is not None for v in videos)}
    value = {
        "schema": "vqa-train/dataset/1",
        "name": config.name,
        "license": config.license or (old.license if old is not None else "unknown"),
        "source": old.source if old is not None else config.source,
        "adapter": "imported",
        "root": config.name,
        "mos": scale.model_dump(),
        "targets": [t if ranges[t] == scale else {"name": t, "mos": ranges[t].model_dump()} for t in targets],
        "columns": {
            "id": _ID,
            "path": _VIDEO,
            **{name: name for name in sorted(optional)},
            "targets": {t: columns[t] for t in targets if columns[t] != t},
            "std": std_columns,
        },
        "labels": [{"path": f"labels.{tag}.csv", "sha256": sha256_bytes(labels), "bytes": len(labels)}],
    }
    return parse(DatasetManifest, value, f"dataset {config.name!r}"), labels


def _column_names(targets: list[str], videos: list[Video]) -> tuple[dict[str, str], dict[str, str]]:
    """Target -> column of its scores, and of its deviations where it has any; no two columns of one name."""
    taken = set(_RESERVED)

    def column(name: str) -> str:
        while name in taken:
            name += "_"
        taken.add(name)
        return name

    scores = {target: column(target) for target in targets}
    with_std = [target for target in targets if any(target in video.label_std for video in videos)]
    return scores, {target: column(f"{target}_std") for target in with_std}


def _table(videos: list[Video], scores: Mapping[str, str], stds: Mapping[str, str]) -> bytes:
    buffer = io.StringIO()
    # Quoted throughout where an id holds a carriage return, which the writer would leave bare.
    odd = any("\r" in text for video in videos for text in (video.id, video.group or "", video.prompt or ""))
    writer = csv.writer(buffer, lineterminator="\n", quoting=csv.QUOTE_ALL if odd else csv.QUOTE_MINIMAL)
    writer.writerow([_ID, _VIDEO, *scores.values(), *stds.values(), *_RESERVED[2:]])
    for video in videos:
        numbers = [_number(video.labels.get(t)) for t in scores] + [_number(video.label_std.get(t)) for t in stds]
        writer.writerow([video.id, video.path, *numbers, video.group or "", video.split or "", video.prompt or ""])
    return buffer.getvalue().encode("utf-8")


def _number(value: float | None) -> str:
    return "" if value is None else repr(float(value))


def _range(target: str, videos: list[Video], config: DatasetConfig, old: DatasetManifest | None) -> MosRange:
    scores = [video.labels[target] for video in videos if target in video.labels]
    low, high = config.ranges.get(target) or (min(scores, default=0.0), max(scores, default=0.0))
    if target not in config.ranges and old is not None and target in old.target_names:
        known = old.range_of(target)
        low, high = min(low, known.min), max(high, known.max)
    outside = next((score for score in scores if not low <= score <= high), None)
    if outside is not None:
        raise LabelError(
            f"dataset {config.name!r} holds a score {outside:g} of {target!r}, outside the range {low:g} to {high:g}",
            hint="give the whole scale as --mos-range",
        )
    if not low < high:
        got = f"all {len(scores)} scores are {low:g}" if scores else "there is no score"
        raise LabelError(f"the range of {target!r} is not known: {got}", hint="give the scale, as in --mos-range 1,5")
    return MosRange(min=low, max=high, direction=config.direction)


def _same(before: DatasetManifest, after: DatasetManifest) -> bool:
    return before.model_copy(update={"files": None}) == after


def _write(path: Path, manifest: DatasetManifest, labels: bytes, entries: list[FileEntry]) -> DatasetManifest:
    """Labels and files table under names that no older manifest points to, then the manifest, then the old ones go."""
    folder, table = path.parent / path.stem, manifest.labels[0]
    atomic_write_bytes(folder / table.path, labels)
    files = path.parent / f"{path.stem}.{table.path.split('.')[1]}.files.csv"
    older = re.compile(rf"{re.escape(path.stem)}\.[0-9a-f]{{12}}\.files\.csv")
    manifest = manifest.model_copy(update={"files": write_files_table(entries, files)})
    write_manifest(manifest, path)
    for old in [*folder.glob("labels.*.csv"), *(p for p in path.parent.iterdir() if older.fullmatch(p.name))]:
        if old not in (folder / table.path, files):
            with suppress(OSError):
                old.unlink()
    return manifest
