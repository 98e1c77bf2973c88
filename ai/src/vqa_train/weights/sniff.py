"""Recognises what often lies where a checkpoint should be: web pages, Git LFS pointers, empty files."""

from __future__ import annotations

from pathlib import Path


def not_a_checkpoint(path: Path) -> str | None:
    """What the file is instead of a checkpoint, for an error message; None when nothing speaks against it.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        start = file.read(512)
    if not start:
        return "is empty"
    if start.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the file it points to"
    if start.lstrip()[:9].lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "is a web page"
    return None
