"""Lists the video files under a folder, without leaving it through symbolic links."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from vqa_train.core.errors import ManifestError, Reason, VqaError
from vqa_train.core.files import confined

_EXTENSIONS = """
    .3gp .asf .avi .flv .gif .h264 .h265 .hevc .ivf .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .mxf .ogv .ts .vob
    .webm .wmv .y4m
"""
VIDEO_EXTENSIONS = frozenset(_EXTENSIONS.split())


@dataclass(frozen=True)
class FileFailure:
    """A file that could not be taken in: `path` relative to the root, reason code, message."""

    path: str
    reason: Reason
    message: str

    def to_json(self) -> dict[str, str]:
        """JSON form."""
        return {"path": self.path, "reason": self.reason.value, "message": self.message}


@dataclass
class Walk:
    """Video files found, relative to the root and sorted, and what was refused."""

    paths: list[str] = field(default_factory=list)
    failed: list[FileFailure] = field(default_factory=list)


def list_videos(root: Path, extensions: Iterable[str] = VIDEO_EXTENSIONS, listing: Iterable[str] | None = None) -> Walk:
    """Every file under `root` with one of `extensions` (with the dot, any case).

    `listing` are the paths of everything under a root that is a URL, which has neither folders nor links.

    Hidden files and folders (a leading dot) are passed over. A link to a file inside the root counts as a file; a link
    to a folder inside is passed over, since that folder is listed itself; a link that leaves the root is refused.

    Raises:
        ManifestError: `root` or a folder in it does not exist or cannot be read.
    """
    wanted = frozenset(extension.lower() for extension in extensions)
    if listing is not None:
        return Walk([path for path in sorted(listing) if _is_listed_video(path, wanted)])
    walk = Walk()
    folders = [""]
    while folders:
        folder = folders.pop()
        for entry in _scan(root, folder):
            if entry.name.startswith("."):
                continue
            path = f"{folder}/{entry.name}" if folder else entry.name
            is_video = posixpath.splitext(entry.name)[1].lower() in wanted
            if entry.is_dir(follow_symlinks=False):
                folders.append(path)
            elif entry.is_symlink():
                problem = _link_problem(root, path)
                if problem is not None and (is_video or problem.reason == Reason.PATH_ESCAPE):
                    walk.failed.append(problem)
                elif problem is None and is_video and entry.is_file():
                    walk.paths.append(path)
            elif is_video and entry.is_file(follow_symlinks=False):
                if _is_utf8(path):
                    walk.paths.append(path)
                else:
                    shown = os.fsencode(path).decode("utf-8", "backslashreplace")
                    walk.failed.append(FileFailure(shown, Reason.UNREADABLE, "the file's name is not UTF-8"))
    walk.paths.sort()
    walk.failed.sort(key=lambda failure: failure.path)
    return walk


def _is_listed_video(path: str, extensions: frozenset[str]) -> bool:
    hidden = any(part.startswith(".") for part in path.split("/"))
    return not hidden and posixpath.splitext(path)[1].lower() in extensions


def _scan(root: Path, folder: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(root / folder) as entries:
            yield from entries
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        raise ManifestError(
            f"folder {str(root / folder)!r} cannot be read: {error.strerror}",
            hint="check the path" if missing else "its videos would be left out; give it read permission",
            reason=Reason.MISSING_FILE if missing else Reason.UNREADABLE,
        ) from error


def _link_problem(root: Path, path: str) -> FileFailure | None:
    try:
        confined(root, path).stat()
    except VqaError:
        return FileFailure(path, Reason.PATH_ESCAPE, "symbolic link that leaves the data root")
    except (OSError, RuntimeError):  # RuntimeError: a loop of links
        return FileFailure(path, Reason.MISSING_FILE, "symbolic link that leads nowhere")
    return None


def _is_utf8(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
