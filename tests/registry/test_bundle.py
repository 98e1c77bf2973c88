"""A bundle's bytes depend on its contents alone, and unpacking one can neither leave its folder nor fill the disk."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from backports import zstd

from vqa_train.core.errors import ModelError
from vqa_train.core.hashing import sha256_bytes, sha256_file
from vqa_train.registry import bundle
from vqa_train.registry.bundle import pack, unpacked

FILES: dict[str, Path | bytes] = {
    "registry.json": b'{"schema": "any"}',
    "m/1/model.onnx": bytes(range(256)) * 5000,
    "m/1/backbones/tiny@0123456789ab.onnx": b"graph",
    "onnx/empty.weights": b"",
}


def write(path: Path, files: dict[str, Path | bytes] | None = None) -> Path:
    with path.open("wb") as handle:
        pack(handle, FILES if files is None else files)
    return path


def archive(path: Path, *entries: tuple[tarfile.TarInfo, bytes], format: int = tarfile.USTAR_FORMAT) -> Path:
    """A `.tar.zst` by the standard library, which knows nothing of our rules."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as tar:
        for entry, data in entries:
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    path.write_bytes(zstd.compress(buffer.getvalue()))
    return path


def entry(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_what_was_packed_is_unpacked(tmp_path: Path) -> None:
    path = write(tmp_path / "b.tar.zst")
    assert tree(unpacked(path)) == FILES


def test_the_archive_is_one_that_tar_reads(tmp_path: Path) -> None:
    path = write(tmp_path / "b.tar.zst")
    with tarfile.open(fileobj=io.BytesIO(zstd.decompress(path.read_bytes()))) as tar:
        members = tar.getmembers()
        assert [m.name for m in members] == sorted(FILES)
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {(0, 0, 0, "", "", 0o644)}
        assert {m.name: tar.extractfile(m).read() for m in members} == FILES  # type: ignore[union-attr]


def test_the_bytes_depend_on_the_contents_alone(tmp_path: Path) -> None:
    on_disk = {}
    for i, (name, data) in enumerate(reversed(list(FILES.items()))):
        assert isinstance(data, bytes)
        on_disk[name] = tmp_path / f"f{i}"
        on_disk[name].write_bytes(data)
        on_disk[name].chmod(0o600)
        os.utime(on_disk[name], (i, i))
    first, second = write(tmp_path / "a.tar.zst"), write(tmp_path / "b.tar.zst", dict(on_disk))
    assert first.read_bytes() == second.read_bytes()
    with (tmp_path / "c").open("wb") as handle:
        assert pack(handle, FILES) == {name: sha256_bytes(bytes(data)) for name, data in FILES.items()}  # type: ignore[arg-type]


def test_it_is_unpacked_once_under_its_hash(tmp_path: Path, own_cache: Path) -> None:
    path = write(tmp_path / "b.tar.zst")
    folder = unpacked(path)
    assert folder == own_cache / "bundles" / sha256_file(path)
    stamp = (folder / "registry.json").stat().st_mtime_ns
    path.rename(tmp_path / "elsewhere.tar.zst")
    assert unpacked(tmp_path / "elsewhere.tar.zst") == folder
    assert (folder / "registry.json").stat().st_mtime_ns == stamp
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize(
    "name",
    [
        "../out", "/out", "m/../../out", "m//out", "./out", ".hidden", "m/.hidden", "a/b/c/d/e/f", "m\\out", "c:out",
        "m/ü", "m\nout", "m/", "-rf", "x" * 99 + "\x01",
    ],
)  # fmt: skip
def test_a_name_that_could_lead_elsewhere_is_refused(tmp_path: Path, own_cache: Path, name: str) -> None:
    path = archive(tmp_path / "b.tar.zst", (entry("registry.json"), b"{}"), (entry(name), b"evil"))
    with pytest.raises(ModelError, match="cannot hold a file named|not a plain file"):
        unpacked(path)
    assert list((own_cache / "bundles").iterdir()) == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.tar.zst"]
    with pytest.raises(ModelError, match="cannot hold a file named"), (tmp_path / "out").open("wb") as handle:
        pack(handle, {name: b""})


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE,
             tarfile.CONTTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_SPARSE, tarfile.XHDTYPE]
)  # fmt: skip
def test_what_is_no_plain_file_is_refused(tmp_path: Path, own_cache: Path, kind: bytes) -> None:
    path = archive(tmp_path / "b.tar.zst", (entry("m", kind, "/etc/passwd"), b""), (entry("registry.json"), b"{}"))
    with pytest.raises(ModelError, match="not a plain file"):
        unpacked(path)
    assert list((own_cache / "bundles").iterdir()) == []


def test_long_names_of_other_formats_are_refused(tmp_path: Path) -> None:
    for format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        path = archive(tmp_path / f"{format}.tar.zst", (entry("m/" + "x" * 150), b""), format=format)
        with pytest.raises(ModelError, match="extended header, not a plain file"):
            unpacked(path)


def test_a_name_twice_is_refused(tmp_path: Path) -> None:
    files = [(entry("registry.json"), b"{}"), (entry("Registry.json"), b"[]")]
    with pytest.raises(ModelError, match="has 'Registry.json' twice"):
        unpacked(archive(tmp_path / "b.tar.zst", *files))


def test_a_bomb_is_refused_before_it_fills_the_disk(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "_FREE_GROWTH", 1 << 20)
    bomb = archive(tmp_path / "b.tar.zst", (entry("registry.json"), b"{}"), (entry("onnx/a.onnx"), bytes(40 << 20)))
    assert bomb.stat().st_size < 20_000
    with pytest.raises(ModelError, match="it unpacks to over 200 times its size"):
        unpacked(bomb)
    monkeypatch.setattr(bundle, "_MOST_FILES", 20)
    many = archive(tmp_path / "m.tar.zst", *((entry(f"m/{i}"), b"") for i in range(21)))
    with pytest.raises(ModelError, match="or 20 files"):
        unpacked(many)
    assert list((own_cache / "bundles").iterdir()) == []


def test_a_header_that_lies_about_its_size_is_refused(tmp_path: Path) -> None:
    info = entry("registry.json")
    info.size = 5000
    path = tmp_path / "b.tar.zst"
    path.write_bytes(zstd.compress(info.tobuf(tarfile.USTAR_FORMAT) + b"{}"))
    with pytest.raises(ModelError, match="it is cut off|ended before"):
        unpacked(path)
    negative = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    negative[124:136] = b"\xff" * 12
    negative[148:156] = b" " * 8
    negative[148:156] = b"%06o\0 " % sum(negative)
    path.write_bytes(zstd.compress(bytes(negative)))
    with pytest.raises(ModelError, match="negative size"):
        unpacked(path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda data: b"", "no zstd archive"),
        (lambda data: b"PK\x03\x04" * 100, "no zstd archive"),
        (lambda data: zstd.compress(b"no tar" * 500), "no tar archive"),
        (lambda data: data[: len(data) // 2], "no zstd archive, or damaged"),
        (lambda data: data[:-1], "no zstd archive, or damaged"),
        (lambda data: zstd.compress(zstd.decompress(data)[:-1024]), "it is cut off"),
        (lambda data: zstd.compress(zstd.decompress(data) + b"more"), "it goes on after its end"),
    ],
)
def test_a_damaged_archive_is_refused_and_leaves_nothing(
    tmp_path: Path, own_cache: Path, spoil: Callable[[bytes], bytes], message: str
) -> None:
    path = write(tmp_path / "b.tar.zst")
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(ModelError, match=f"bundle .*b.tar.zst.*{message}"):
        unpacked(path)
    assert list((own_cache / "bundles").iterdir()) == []


def test_an_archive_without_a_registry_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"is no bundle: it has no registry\.json"):
        unpacked(write(tmp_path / "b.tar.zst", {"m/1/model.onnx": b"x"}))
    with pytest.raises(ModelError, match="cannot be read: No such file"):
        unpacked(tmp_path / "none.tar.zst")


def test_processes_at_once_unpack_one_bundle(tmp_path: Path, own_cache: Path) -> None:
    path = write(tmp_path / "b.tar.zst")
    code = (
        "import sys\nfrom pathlib import Path\nfrom vqa_train.registry.bundle import unpacked\n"
        "sys.stdin.read()\nprint(unpacked(Path(sys.argv[1])))"
    )
    command = [sys.executable, "-c", code, str(path)]
    ran = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    for process in ran:
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
    found = {process.communicate(timeout=60)[0].strip() for process in ran}
    assert [process.returncode for process in ran] == [0, 0, 0]
    assert found == {str(own_cache / "bundles" / sha256_file(path))}
    assert tree(Path(found.pop())) == FILES


def test_what_a_killed_process_left_is_not_used(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "b.tar.zst")

    class KilledError(BaseException):
        pass

    def kill(*_: object) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(bundle, "_extract", kill)
        # A killed process cleans nothing up.
        patch.setattr(bundle.shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(KilledError):
            unpacked(path)
    (left,) = (own_cache / "bundles").iterdir()
    assert left.name.startswith(".")
    assert tree(unpacked(path)) == FILES
    os.utime(left, (0, 0))
    unpacked(write(tmp_path / "c.tar.zst", {"registry.json": b"{}"}))
    assert not left.exists()
