import errno
import json
import os
from pathlib import Path
from typing import IO

import pytest

from vqa_train.core.errors import Reason, VqaError
from vqa_train.core.files import atomic_write, atomic_write_bytes, atomic_write_json, confined


def test_write_replaces_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "f"
    atomic_write_bytes(path, b"old")
    atomic_write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert [p.name for p in path.parent.iterdir()] == ["f"]


def test_failing_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "f"
    atomic_write_bytes(path, b"old")

    def write(handle: IO[bytes]) -> None:
        handle.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No space left"):
        atomic_write(path, write)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_nan_is_refused_in_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        atomic_write_json(tmp_path / "f", {"x": float("inf")})
    assert not (tmp_path / "f").exists()


@pytest.mark.parametrize("relative", ["../x", "a/../../x", "/etc/passwd", "a/\x00b", "link/x"])
def test_paths_that_leave_the_root_are_refused(tmp_path: Path, relative: str) -> None:
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    (root / "link").symlink_to(tmp_path)
    with pytest.raises(VqaError, match="leaves its root") as caught:
        confined(root, relative)
    assert caught.value.reason is Reason.PATH_ESCAPE


def test_paths_inside_the_root_are_given_back(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    assert confined(tmp_path, "a/b ü.mp4") == tmp_path / "a/b ü.mp4"
    assert confined(tmp_path, "a/../b") == tmp_path / "a/../b"


def test_loop_of_links_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(OSError, match="symbolic links"):
        confined(tmp_path, "loop/x")


def test_numbers_take_one_line_where_asked_and_nothing_else_changes(tmp_path: Path) -> None:
    value = {"a": [1, -2.5e-7, None], "rows": [[1], [2, 3]], "texts": ["[\n  1\n]", "x"], "none": [], "mixed": [1, "2"]}
    atomic_write_json(tmp_path / "long.json", value)
    atomic_write_json(tmp_path / "short.json", value, numbers_inline=True)
    long, short = ((tmp_path / f"{name}.json").read_text(encoding="utf-8") for name in ("long", "short"))
    assert json.loads(long) == json.loads(short) == value
    assert '"a": [1, -2.5e-07, null],\n' in short
    assert "    [2, 3]\n" in short
    assert short.count("\n") == long.count("\n") - 4 - 2 - 3
