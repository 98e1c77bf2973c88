"""What there is to score: files, URLs, folders, lists and standard input, as requests in order."""

from __future__ import annotations

import csv
import io
import os
import select
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from threading import Event

from vqa_train.core.errors import UsageError
from vqa_train.pipelines.score.types import ScoreRequest

SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".flv", ".ts", ".mpg", ".mpeg", ".wmv", ".y4m"})
STDIN = "-"
_VIDEO, _PROMPT, _REFERENCE = "video", "prompt", "reference"
_LOOK_AGAIN_S = 0.2


@dataclass(frozen=True)
class Requests:
    """Requests in order, to be read once, and how many there are; None for standard input, which may have no end."""

    items: Iterable[ScoreRequest]
    total: int | None


def requests(
    arguments: Iterable[str], prompt: str | None, reference: str | None = None, *, stop: Event | None = None
) -> Requests:
    """Requests for every argument: a video file, a URL, a folder (its videos, recursively, sorted), @LIST or `-`.

    A list is UTF-8 text with one path or URL per line and, after tabs, an optional prompt and an optional reference;
    or, when its name ends in .csv, a table with the columns `video` and optionally `prompt` and `reference`. `-` is
    such text on standard input, of which every line is a request as soon as it is there. A URL that ends in a slash is
    a folder. Relative paths are relative to the working folder. `prompt` and `reference` go to every video without
    one of its own.

    Args:
        stop: ends the reading of standard input.

    Raises:
        UsageError: a list that cannot be read, or an argument that gives no video.
        OSError: a folder behind a URL that cannot be listed.
    """
    parts: list[Iterable[ScoreRequest]] = []
    total: int | None = 0
    for argument in arguments:
        if argument == STDIN:
            parts.append(_from_stdin(stop or Event()))
            total = None
            continue
        some = _read_list(Path(argument[1:])) if argument.startswith("@") else _paths(argument)
        if not some:
            raise UsageError(f"{argument!r} has no videos in it", hint=f"looked for {', '.join(sorted(SUFFIXES))}")
        parts.append(some)
        total = None if total is None else total + len(some)
    items = (
        ScoreRequest(video=r.video, prompt=r.prompt or prompt, reference=r.reference or reference)
        for r in chain.from_iterable(parts)
    )
    return Requests(items if total is None else list(items), total)


def _paths(argument: str) -> list[ScoreRequest]:
    if "://" in argument:
        return _objects(argument) if argument.endswith("/") else [ScoreRequest(video=argument)]
    path = Path(argument)
    if not path.is_dir():
        return [ScoreRequest(video=path)]
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
    return [ScoreRequest(video=file) for file in files]


def _objects(url: str) -> list[ScoreRequest]:
    from vqa_train.core import remote
    from vqa_train.core.locations import is_remote, location

    if url.startswith(("http://", "https://")):
        raise UsageError(f"a web server has no folders to look into: {url!r}", hint="give a @LIST of addresses")
    place = location(url)
    if not is_remote(place):
        return _paths(str(place))
    names = sorted(name for name in remote.find(place) if Path(name).suffix.lower() in SUFFIXES)
    return [ScoreRequest(video=url + name) for name in names]


def _read_list(path: Path) -> list[ScoreRequest]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not UTF-8 text"
        raise UsageError(f"list {str(path)!r} cannot be read: {why}") from error
    if path.suffix.lower() == ".csv":
        return _from_csv(path, text)
    return [_from_line(line) for line in text.splitlines() if line.strip()]


def _from_line(line: str) -> ScoreRequest:
    video, prompt, reference, *_ = [*(part.strip() for part in line.split("\t")), "", ""]
    return ScoreRequest(video=_named(video), prompt=prompt or None, reference=_named(reference) if reference else None)


def _named(text: str) -> str | Path:
    """URLs stay as they are: what is wrong with one is a failure of that video, not of the list."""
    return text if "://" in text else Path(text)


def _from_csv(path: Path, text: str) -> list[ScoreRequest]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    columns = list(reader.fieldnames or [])
    if _VIDEO not in columns or set(columns) - {_VIDEO, _PROMPT, _REFERENCE}:
        raise UsageError(
            f"list {str(path)!r} has columns {columns}, expected {_VIDEO!r} and optionally {_PROMPT!r}, {_REFERENCE!r}"
        )
    found = []
    for row in reader:
        if None in row or not row[_VIDEO]:
            raise UsageError(f"list {str(path)!r} line {reader.line_num}: expected {len(columns)} columns, got {row}")
        prompt, reference = ((row.get(name) or "").strip() for name in (_PROMPT, _REFERENCE))
        found.append(
            ScoreRequest(
                video=_named(row[_VIDEO]), prompt=prompt or None, reference=_named(reference) if reference else None
            )
        )
    return found


def _from_stdin(stop: Event) -> Iterator[ScoreRequest]:
    return (_from_line(line) for line in lines_of(0, stop) if line.strip())


def lines_of(descriptor: int, stop: Event) -> Iterator[str]:
    """Lines of UTF-8 text, each as soon as it is there; ends with the text, or soon after `stop` is set."""
    rest, ended = b"", False
    while not ended:
        ready, _, _ = select.select([descriptor], [], [], _LOOK_AGAIN_S)
        if stop.is_set():
            return
        if ready:
            block = os.read(descriptor, 1 << 16)
            ended = not block
            *lines, rest = (rest + block).split(b"\n")
            if ended and rest:
                lines.append(rest)
            # What is no UTF-8 stays a path of such bytes.
            yield from (os.fsdecode(line).rstrip("\r").removeprefix("\ufeff") for line in lines)
