"""The tables and the dataset manifest of a finished ladder."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vqa_train.core.files import atomic_write_bytes
from vqa_train.core.hashing import sha256_bytes, unit_interval
from vqa_train.datasets.files_table import FileEntry, write_files_table
from vqa_train.datasets.ladder.jobs import Clip
from vqa_train.datasets.ladder.pseudo_mos import HIGHEST, LOWEST, TARGET
from vqa_train.datasets.ladder.scenes import scene_prompt
from vqa_train.datasets.manifest import Columns, DatasetManifest, LabelTable, MosRange, Target, write_manifest

LABELS, FILES, MANIFEST = "labels.csv", "ladder.files.csv", "manifest.yaml"
_COLUMNS = ("id", "path", TARGET, "group", "split", "reference", "kind", "level", "parameter", "prompt")


def write_dataset(output: Path, name: str, clips: Sequence[Clip], record: Mapping[str, Any]) -> Path:
    """Write labels.csv, ladder.files.csv and manifest.yaml; returns the path of the manifest."""
    data = _labels(clips)
    atomic_write_bytes(output / LABELS, data)
    files = write_files_table((FileEntry(c.path, c.sha256, c.bytes) for c in clips), output / FILES)
    real = any(source["sha256"] is not None for source in record["sources"])
    made = "procedural clips CC0-1.0"
    manifest = DatasetManifest(
        name=name,
        version=f"{record['definition']}-{record['identity'][:12]}",
        license=f"{made}; others as their source" if real else "CC0-1.0",
        source=_description(record),
        adapter="csv",
        root=".",
        mos=MosRange(min=LOWEST, max=HIGHEST),
        targets=(Target(name=TARGET),),
        columns=Columns(
            id="id",
            path="path",
            split="split",
            group="group",
            reference="reference",
            prompt="prompt",
            attributes=("kind", "level", "parameter"),
        ),
        labels=(LabelTable(path=LABELS, sha256=sha256_bytes(data), bytes=len(data)),),
        files=files,
    )
    write_manifest(manifest, output / MANIFEST)
    return output / MANIFEST


def split_groups(groups: Iterable[str]) -> dict[str, str]:
    """train, val or test per group: ordered by hash, about 60, 20 and 20 percent, val and test with one at least.

    Drawing each group on its own would often leave a part of a small ladder empty. Two groups make train and test.
    """
    ordered = sorted(set(groups), key=lambda group: unit_interval("vqa-train/ladder/split", group))
    count = len(ordered)
    test = max(1, round(0.2 * count)) if count > 1 else 0
    val = max(1, round(0.2 * count)) if count > 2 else 0
    names = ["test"] * test + ["val"] * val + ["train"] * (count - test - val)
    return dict(zip(ordered, names, strict=True))


def _labels(clips: Sequence[Clip]) -> bytes:
    split = split_groups(clip.group for clip in clips)
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for clip in clips:
        parameter = "" if clip.parameter is None else f"{clip.parameter:g}"
        score = f"{clip.pseudo_mos:.4f}"
        writer.writerow(
            (
                clip.id,
                clip.path,
                score,
                clip.group,
                split[clip.group],
                clip.reference,
                clip.kind,
                clip.level,
                parameter,
                scene_prompt(clip.group) or "",
            )
        )
    return buffer.getvalue().encode("utf-8")


def _description(record: Mapping[str, Any]) -> str:
    text = (
        "Rendered by `vqa-train datasets make-ladder`. pseudo_mos is a full-reference measure by a fixed formula "
        "(docs/ladder.md), not an opinion score."
    )
    if record["absent_kinds"]:
        text += f" Kinds not in it: {', '.join(record['absent_kinds'])}."
    if record["refused_sources"]:
        text += f" Source files refused: {len(record['refused_sources'])} (ladder.json names them)."
    return text
