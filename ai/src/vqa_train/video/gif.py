"""Whether a GIF file is whole: FFmpeg shows what a cut one lacks as garbage, without a word."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

_EXTENSION, _IMAGE, _TRAILER = 0x21, 0x2C, 0x3B


def ends_with_trailer(path: Path) -> bool:
    """Walk the blocks of a GIF (GIF89a specification, 1990, section 17 on); True when they end with the trailer.

    What follows the trailer does not count. A block of unknown kind ends the walk: that is damage, not a cut.
    """
    with path.open("rb") as file:
        header = file.read(13)
        if len(header) < 13:
            return False
        file.seek(_colours(header[10]), 1)
        while kind := file.read(1):
            if kind[0] == _TRAILER:
                return True
            if kind[0] == _EXTENSION:
                file.seek(1, 1)
            elif kind[0] == _IMAGE:
                descriptor = file.read(9)
                if len(descriptor) < 9:
                    return False
                # The local colour table and the code size.
                file.seek(_colours(descriptor[8]) + 1, 1)
            else:
                return True
            if not _skip_blocks(file):
                return False
    return False


def _colours(flags: int) -> int:
    """Bytes of the colour table that `flags` announces."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _skip_blocks(file: BinaryIO) -> bool:
    """Pass a chain of sub-blocks; False when the file ends inside it."""
    while length := file.read(1):
        if length[0] == 0:
            return True
        file.seek(length[0], 1)
    return False
