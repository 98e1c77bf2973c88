"""Small datasets on disk: files whose bytes stand for videos, label tables, manifests made by a scan."""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from vqa_train.core.hashcache import HashCache
from vqa_train.datasets.draft import ScanConfig
from vqa_train.datasets.scan import ScanReport, scan


@pytest.fixture
def write_csv() -> Callable[..., Path]:
    """`write_csv(path, header, rows, bom=False, end="\\n")`."""

    def write(
        path: Path, header: Sequence[str], rows: Sequence[Sequence[object]], *, bom: bool = False, end: str = "\n"
    ) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8-sig" if bom else "utf-8", newline="") as handle:
            csv.writer(handle, lineterminator=end).writerows([header, *rows])
        return path

    return write


@pytest.fixture
def write_files() -> Callable[..., Path]:
    """`write_files(root, {path: content})`: files that were last changed an hour ago, so that hashes are remembered."""

    def write(root: Path, files: Mapping[str, str]) -> Path:
        for name, content in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
            os.utime(path, (time.time() - 3600,) * 2)
        return root

    return write


@pytest.fixture
def small(
    tmp_path: Path, write_csv: Callable[..., Path], write_files: Callable[..., Path]
) -> Callable[..., ScanReport]:
    """`small(rows=..., files=..., **ScanConfig fields)`: scan a csv dataset in tmp_path/data to tmp_path/small.yaml.

    The label table has the columns video, mos, scene, part; the scale is 1-5.
    """

    def make(
        rows: Sequence[Sequence[object]] = (("a", 1.5, "s1", "train"), ("b", 4, "s2", "test")),
        files: Mapping[str, str] | None = None,
        **changes: object,
    ) -> ScanReport:
        root = tmp_path / "data"
        write_csv(root / "labels.csv", ("video", "mos", "scene", "part"), rows)
        write_files(root, files if files is not None else {f"clips/{row[0]}.mp4": f"bytes of {row[0]}" for row in rows})
        config: dict[str, object] = {
            "root": root,
            "output": tmp_path / "small.yaml",
            "labels": (("labels.csv", None),),
            "columns": {"id": "video"},
            "targets": {"overall": "mos"},
            "mos_min": 1.0,
            "mos_max": 5.0,
            "license": "CC0-1.0",
        }
        return scan(ScanConfig(**{**config, **changes}), cache=HashCache())[1]

    return make


@pytest.fixture
def qualivision(tmp_path: Path, write_csv: Callable[..., Path], write_files: Callable[..., Path]) -> Path:
    """A folder laid out as the challenge publishes it: two videos per split, test labels without MOS."""
    root = tmp_path / "quali vision"
    header = [
        "video_name",
        "Prompt",
        "Traditional_MOS",
        "Alignment_MOS",
        "Aesthetic_MOS",
        "Temporal_MOS",
        "Overall_MOS",
    ]
    for split in ("train", "val", "test"):
        names = [f"{split}_{i} é.mp4" for i in range(2)]
        scores = [[1.5, 2, 3, 4, 5], [2.5, "", 3, "n/a", 4]]
        rows = [[name, f'a "cat", {name}', *values] for name, values in zip(names, scores, strict=True)]
        kept = slice(0, 2) if split == "test" else slice(None)
        write_csv(root / split / "labels" / f"{split}_labels.csv", header[kept], [r[kept] for r in rows], bom=True)
        write_files(root / split / "videos", {name: f"bytes of {name}" for name in names})
    return root
