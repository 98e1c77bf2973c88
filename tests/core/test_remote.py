"""Reads, writes and listings behind a URL, on fsspec's memory."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from vqa_train.core import remote
from vqa_train.core.locations import location
from vqa_train.core.remote import Listed


@pytest.fixture
def place(tmp_path: Path) -> Any:
    """A folder in fsspec's memory."""
    return location(f"memory://{tmp_path}")


def test_an_upload_that_arrived_in_part_is_made_again(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, broken = MemoryFileSystem.pipe_file, [True]

    def pipe_file(self: Any, path: str, value: bytes, **kwargs: Any) -> Any:
        return whole(self, path, value[: len(value) // 2] if broken and broken.pop() else value, **kwargs)

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", pipe_file)
    remote.write(place / "x", b"content")
    assert not broken and remote.read(place / "x") == b"content"


def test_a_range_that_arrived_in_part_is_asked_for_again(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    remote.write(place / "x", b"0123456789")
    whole, broken = MemoryFileSystem.cat_file, [True]

    def cat_file(self: Any, path: str, **kwargs: Any) -> bytes:
        data: bytes = whole(self, path, **kwargs)
        return data[:-1] if broken and broken.pop() else data

    monkeypatch.setattr(MemoryFileSystem, "cat_file", cat_file)
    assert remote.range_of(place / "x", 2, 6) == b"2345"
    assert not broken


def test_errors_of_libraries_become_os_errors(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class NoCredentialsError(Exception):
        """Looks like botocore's."""

    def cat_file(self: Any, path: str, **kwargs: Any) -> bytes:
        raise NoCredentialsError("Unable to locate credentials")

    monkeypatch.setattr(MemoryFileSystem, "cat_file", cat_file)
    with pytest.raises(OSError, match="NoCredentialsError: Unable to locate credentials") as found:
        remote.read(place / "x")
    assert "check the credentials" in (remote.hint(found.value, place) or "")


def test_names_are_those_right_below(place: Any) -> None:
    for name in ("a/b/c", "a/d", "e"):
        remote.write(place / name, b"x")
    assert sorted(remote.names(place)) == ["a", "e"]
    assert sorted(remote.names(place / "a")) == ["b", "d"]
    with pytest.raises(FileNotFoundError):
        remote.names(place / "nothing")
    assert (remote.is_dir(place / "a"), remote.is_dir(place / "e"), remote.is_dir(place / "nothing")) == (
        True,
        False,
        False,
    )


def test_find_goes_all_the_way_down(place: Any) -> None:
    remote.write(place / "a/b/c", b"123")
    remote.write(place / "d", b"")
    found = remote.find(place)
    assert {name: listed.bytes for name, listed in found.items()} == {"a/b/c": 3, "d": 0}
    assert found["d"] == Listed(0, remote.state(place / "d"))


def test_the_state_changes_with_the_object(place: Any) -> None:
    remote.write(place / "x", b"one")
    before = remote.state(place / "x")
    assert remote.state(place / "x") == before
    remote.write(place / "x", b"two")
    assert remote.state(place / "x") != before


@pytest.mark.parametrize(
    "value",
    [
        datetime(2026, 1, 2, tzinfo=UTC),
        datetime(2026, 1, 2),  # noqa: DTZ001  # what some libraries give
        "2026-01-02T00:00:00+00:00",
        "2026-01-02T00:00:00Z",
        1767312000,
    ],
)
def test_times_are_read_as_the_libraries_give_them(value: object) -> None:
    assert remote.moment(value) == datetime(2026, 1, 2, tzinfo=UTC)


def test_what_is_no_time_is_none() -> None:
    assert remote.moment(None) is None and remote.moment("yesterday") is None


def test_an_age_counts_from_the_servers_time(place: Any) -> None:
    remote.write(place / "x", b"one")
    assert 0 <= remote.age_s(place / "x") < 600


def test_removing_what_is_gone_is_fine(place: Any) -> None:
    remote.write(place / "x", b"one")
    remote.remove(place / "x")
    remote.remove(place / "x")
    assert not remote.exists(place / "x")


def test_one_failure_of_many_is_raised(place: Any) -> None:
    remote.write(place / "x", b"one")
    with pytest.raises(FileNotFoundError):
        remote.together(remote.read, [place / "x", place / "gone", place / "x"])
