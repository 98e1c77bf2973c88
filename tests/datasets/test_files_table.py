"""The files table: written sorted, read back checked, and the look-up of a label's file in it."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqa_train.core.errors import ManifestError, Reason
from vqa_train.core.hashing import sha256_bytes
from vqa_train.datasets.files_table import FileEntry, FileIndex, climbs, read_files_table, write_files_table
from vqa_train.datasets.manifest import FilesRef

DIGEST = "ab" * 32


def entry(path: str) -> FileEntry:
    return FileEntry(path, DIGEST, 7)


def found(index: FileIndex, hint: str) -> list[str]:
    return [e.path for e in index.find(hint)]


def ref_of(path: Path, rows: int) -> FilesRef:
    return FilesRef(table=path.name, sha256=sha256_bytes(path.read_bytes()), rows=rows, bytes_total=0)


_part = st.text(st.characters(exclude_characters="/\\\x00", exclude_categories=["Cs"]), min_size=1, max_size=8)
_path = st.lists(_part.filter(lambda p: p not in (".", "..")), min_size=1, max_size=3).map("/".join)


@given(paths=st.lists(_path.filter(lambda p: not climbs(p)), unique=True, max_size=5))
def test_any_names_survive_the_table(tmp_path_factory: pytest.TempPathFactory, paths: list[str]) -> None:
    folder = tmp_path_factory.getbasetemp()
    entries = [FileEntry(path, sha256_bytes(path.encode()), len(path)) for path in paths]
    ref = write_files_table(entries, folder / "any.files.csv")
    assert read_files_table(ref, folder) == sorted(entries)
    assert (ref.rows, ref.bytes_total) == (len(paths), sum(len(path) for path in paths))


def test_the_order_of_the_entries_does_not_matter(tmp_path: Path) -> None:
    one = write_files_table([entry("b"), entry("a")], tmp_path / "t.csv")
    other = write_files_table([entry("a"), entry("b")], tmp_path / "t.csv")
    assert one == other


def test_a_changed_table_is_refused(tmp_path: Path) -> None:
    ref = write_files_table([entry("a.mp4")], tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text((tmp_path / "t.csv").read_text().replace("ab", "ba", 1))
    with pytest.raises(ManifestError, match=r"t\.csv.*sha256") as caught:
        read_files_table(ref, tmp_path)
    assert caught.value.reason == Reason.CHECKSUM_MISMATCH


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    ref = write_files_table([], tmp_path / "t.csv")
    (tmp_path / "t.csv").unlink()
    with pytest.raises(ManifestError, match=r"t\.csv.*cannot be read.*No such file"):
        read_files_table(ref, tmp_path)


@pytest.mark.parametrize(
    "row",
    [
        f"a.mp4,{DIGEST}",
        f",{DIGEST},7",
        "a.mp4,abc,7",
        f"a.mp4,{DIGEST},-7",
        f"a.mp4,{DIGEST},seven",
        f"a.mp4,{DIGEST},٣",
        f"a.mp4,{DIGEST},7\na.mp4,{DIGEST},7",
    ],
)
def test_a_malformed_row_is_named(tmp_path: Path, row: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f"path,sha256,bytes\n{row}\n")
    with pytest.raises(ManifestError, match=r"t\.csv' row [12]"):
        read_files_table(ref_of(path, row.count("\n") + 1), tmp_path)


@pytest.mark.parametrize("text", ["name,sha256,bytes\n", "", 'path,sha256,bytes\n"unclosed'])
def test_a_table_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(ManifestError, match=r"t\.csv"):
        read_files_table(ref_of(path, 0), tmp_path)


def test_the_number_of_rows_is_checked(tmp_path: Path) -> None:
    ref = write_files_table([entry("a.mp4")], tmp_path / "t.csv")
    with pytest.raises(ManifestError, match="1 rows, its manifest says 2"):
        read_files_table(ref.model_copy(update={"rows": 2}), tmp_path)


@pytest.mark.parametrize("path", ["../a.mp4", "x/../../a.mp4", "/etc/passwd", "..\\a.mp4", "C:\\a.mp4", "..", "c:/a"])
def test_a_climbing_path_is_refused(tmp_path: Path, path: str) -> None:
    assert climbs(path)
    table = tmp_path / "t.csv"
    table.write_text(f"path,sha256,bytes\n{path},{DIGEST},7\n")
    with pytest.raises(ManifestError, match="leaves the data root") as caught:
        read_files_table(ref_of(table, 1), tmp_path)
    assert caught.value.reason == Reason.PATH_ESCAPE


@pytest.mark.parametrize("path", ["a.mp4", "x/../a.mp4", "./a.mp4", "..a.mp4", "a..b/c", "x/..hidden", ""])
def test_a_path_that_stays_inside_does_not_climb(path: str) -> None:
    assert not climbs(path)


class TestIndex:
    index = FileIndex(entry(path) for path in ("a/x.mp4", "b/x.mp4", "b/y.mkv", "b/y.mp4", "z.mp4", "c/caf\u00e9.mp4"))

    def test_an_exact_path_wins(self) -> None:
        assert found(FileIndex([entry("x.mp4"), entry("a/x.mp4")]), "x.mp4") == ["x.mp4"]
        assert found(self.index, "./a/x.mp4") == ["a/x.mp4"]

    def test_the_end_of_a_path_is_enough_where_it_is_unique(self) -> None:
        assert found(self.index, "z") == ["z.mp4"]
        assert found(self.index, "a/x") == ["a/x.mp4"]
        assert found(self.index, "y.mkv") == ["b/y.mkv"]

    def test_an_ambiguous_name_gives_every_file(self) -> None:
        assert found(self.index, "x.mp4") == ["a/x.mp4", "b/x.mp4"]
        assert found(self.index, "y") == ["b/y.mkv", "b/y.mp4"]

    def test_part_of_a_name_is_not_enough(self) -> None:
        assert found(FileIndex([entry("big_x.mp4")]), "x.mp4") == []
        assert found(FileIndex([entry("ba/x.mp4")]), "a/x.mp4") == []
        assert found(self.index, "") == []

    def test_unicode_spellings_and_windows_separators_are_the_same_name(self) -> None:
        decomposed = unicodedata.normalize("NFD", "caf\u00e9")
        assert decomposed != "caf\u00e9"
        assert found(self.index, decomposed) == ["c/caf\u00e9.mp4"]
        assert found(FileIndex([entry(f"{decomposed}.mp4")]), "caf\u00e9.mp4") == [f"{decomposed}.mp4"]
        assert found(self.index, "a\\x.mp4") == ["a/x.mp4"]
