"""What there is to score: files, folders and @lists with an optional prompt column, as requests in order."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from vqa_train.core.errors import UsageError
from vqa_train.pipelines.score import ScoreRequest

SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".flv", ".ts", ".mpg", ".mpeg", ".wmv", ".y4m"})
_VIDEO, _PROMPT = "video", "prompt"


def requests(arguments: Iterable[str], prompt: str | None) -> list[ScoreRequest]:
    """Requests for every argument: a video file, a folder (its videos, recursively, sorted) or @LIST.

    A list is UTF-8 text with one path per line and, after a tab, an optional prompt; or, when its name ends in
    .csv, a table with the columns `video` and optionally `prompt`. Relative paths are relative to the working
    folder. `prompt` goes to every video without one of its own.

    Raises:
        UsageError: a list that cannot be read, or an argument that gives no video.
    """
    found: list[ScoreRequest] = []
    for argument in arguments:
        some = _read_list(Path(argument[1:])) if argument.startswith("@") else _paths(Path(argument))
        if not some:
            raise UsageError(f"{argument!r} has no videos in it", hint=f"looked for {', '.join(sorted(SUFFIXES))}")
        found += some
    return [ScoreRequest(video=r.video, prompt=r.prompt or prompt) for r in found]


def _paths(path: Path) -> list[ScoreRequest]:
    if not path.is_dir():
        return [ScoreRequest(video=path)]
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
    return [ScoreRequest(video=file) for file in files]


def _read_list(path: Path) -> list[ScoreRequest]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not UTF-8 text"
        raise UsageError(f"list {str(path)!r} cannot be read: {why}") from error
    if path.suffix.lower() == ".csv":
        return _from_csv(path, text)
    rows = (line.partition("\t") for line in text.splitlines() if line.strip())
    return [ScoreRequest(video=Path(video.strip()), prompt=prompt.strip() or None) for video, _, prompt in rows]


def _from_csv(path: Path, text: str) -> list[ScoreRequest]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    columns = list(reader.fieldnames or [])
    if _VIDEO not in columns or set(columns) - {_VIDEO, _PROMPT}:
        raise UsageError(f"list {str(path)!r} has columns {columns}, expected {_VIDEO!r} and optionally {_PROMPT!r}")
    found = []
    for row in reader:
        if None in row or not row[_VIDEO]:
            raise UsageError(f"list {str(path)!r} line {reader.line_num}: expected {len(columns)} columns, got {row}")
        found.append(ScoreRequest(video=Path(row[_VIDEO]), prompt=(row.get(_PROMPT) or "").strip() or None))
    return found
