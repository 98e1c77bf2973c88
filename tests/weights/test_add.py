"""`add` takes local files over when they can be read and are the right ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from vqa_train.core.errors import WeightsError
from vqa_train.core.hashing import sha256_bytes
from vqa_train.weights import add as module
from vqa_train.weights.add import add
from vqa_train.weights.find import find_weights
from vqa_train.weights.pins import Pins

DATA = b"the weights"


def seven(path: Path) -> int:
    """Reads the file and finds seven tensors in it."""
    path.read_bytes()
    return 7


def refuse(path: Path) -> int:
    raise WeightsError(f"{path.name} is no checkpoint")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    (folder / "sub").mkdir(parents=True)
    (folder / "f.pth").write_bytes(DATA)
    (folder / "sub" / "c.json").write_bytes(b"{}")
    return folder


def test_a_file_is_taken_over_under_its_own_name_and_pinned(make_entry, folder, weights_folder) -> None:
    (folder / "f.pth").rename(folder / "downloaded (1).pth")
    entry = make_entry("f.pth")
    added = add(entry, folder / "downloaded (1).pth", count_tensors=seven)
    assert (added.tensors, added.changed) == (7, ())
    assert (weights_folder / "one" / "f.pth").read_bytes() == DATA
    pin = Pins().of("one")["f.pth"]
    assert (pin.sha256, pin.source) == (sha256_bytes(DATA), "local file")
    assert str(folder) not in Pins().path.read_text()
    assert find_weights(entry).checkpoint_sha256 == sha256_bytes(DATA)


def test_a_folder_is_taken_over_whole(make_entry, folder, weights_folder) -> None:
    (folder / "README.md").write_text("not listed")
    add(make_entry("f.pth", "sub/c.json"), folder, count_tensors=seven)
    taken = {path.relative_to(weights_folder / "one").as_posix() for path in (weights_folder / "one").rglob("*.*")}
    assert taken == {"f.pth", "sub/c.json"}


def test_the_taken_file_does_not_follow_a_link(make_entry, folder, weights_folder) -> None:
    (folder / "link.pth").symlink_to(folder / "f.pth")
    add(make_entry("f.pth"), folder / "link.pth", count_tensors=seven)
    assert not (weights_folder / "one" / "f.pth").is_symlink()


def test_where_links_cannot_be_made_it_is_copied(make_entry, folder, weights_folder, monkeypatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(module.os, "link", no_links)
    add(make_entry("f.pth"), folder / "f.pth", count_tensors=seven)
    copy = weights_folder / "one" / "f.pth"
    assert copy.read_bytes() == DATA
    assert not copy.samefile(folder / "f.pth")
    assert [path.name for path in copy.parent.iterdir()] == ["f.pth"]


def test_what_cannot_be_read_is_not_taken(make_entry, folder, weights_folder) -> None:
    with pytest.raises(WeightsError, match="f.pth is no checkpoint"):
        add(make_entry("f.pth"), folder / "f.pth", count_tensors=refuse)
    assert not weights_folder.exists()


@pytest.mark.parametrize(
    ("files", "path", "message"),
    [
        (("f.pth",), "nowhere", "mine/nowhere' does not exist"),
        (("f.pth", "sub/c.json"), "f.pth", "are a folder with f.pth, sub/c.json, got the file"),
        (("f.safetensors",), "f.pth", "are a .safetensors file, got"),
        (("f.pth", "sub/d.json"), "", r"has no d.json - it must hold all of f.pth, sub/d.json"),
    ],
)
def test_the_wrong_path_is_refused_with_what_is_wanted(make_entry, folder, files, path, message) -> None:
    with pytest.raises(WeightsError, match=message):
        add(make_entry(*files), folder / path, count_tensors=seven)


def test_another_file_than_at_first_use_needs_force(make_entry, folder, weights_folder) -> None:
    entry = make_entry("f.pth")
    add(entry, folder / "f.pth", count_tensors=seven)
    (folder / "g.pth").write_bytes(b"other")
    with pytest.raises(WeightsError, match=f"at first use .* it was {sha256_bytes(DATA)} - add --force"):
        add(entry, folder / "g.pth", count_tensors=seven)
    assert (weights_folder / "one" / "f.pth").read_bytes() == DATA
    added = add(entry, folder / "g.pth", count_tensors=seven, force=True)
    assert added.changed == ("f.pth",)
    assert find_weights(entry).checkpoint_sha256 == sha256_bytes(b"other")


def test_a_changed_file_is_accepted_where_it_lies(make_entry, folder, weights_folder) -> None:
    entry = make_entry("f.pth")
    add(entry, folder / "f.pth", count_tensors=seven)
    home = weights_folder / "one" / "f.pth"
    home.unlink()
    home.write_bytes(b"other")
    with pytest.raises(WeightsError, match="--force"):
        find_weights(entry)
    add(entry, home, count_tensors=seven, force=True)
    assert find_weights(entry).checkpoint_sha256 == sha256_bytes(b"other")


def test_no_force_makes_another_release_the_one_that_the_manifest_means(make_entry, folder) -> None:
    entry = make_entry(("f.pth", "0" * 64))
    with pytest.raises(WeightsError, match=f"the manifest says {'0' * 64} - it is another release"):
        add(entry, folder / "f.pth", count_tensors=seven, force=True)
