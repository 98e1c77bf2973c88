"""A model goes to a registry elsewhere and back whole; what is not whole is refused and leaves nothing here."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from vqa_train.core import remote
from vqa_train.core.errors import ConfigError, ModelError, UsageError, VqaError
from vqa_train.core.hashing import sha256_file
from vqa_train.core.locations import location
from vqa_train.pipelines.models import folder_registry, url_registry
from vqa_train.pipelines.models import pull as pull_module
from vqa_train.pipelines.models.change import set_alias, sign_model
from vqa_train.pipelines.models.open_remote import open_remote
from vqa_train.pipelines.models.pull import Pulled, pull_model
from vqa_train.pipelines.models.push import push_model
from vqa_train.pipelines.models.remotes import Contents
from vqa_train.pipelines.models.verify import verify_models
from vqa_train.registry.minisign_keys import SecretKey
from vqa_train.registry.registry import ModelRegistry
from vqa_train.scoring import Scorer

KEY = SecretKey(b"test key", bytes(range(32)))
PUBLIC = [KEY.public.text]
ALL = ("large:1", "m:1", "m:2", "text:1")


@pytest.fixture
def memory() -> Iterator[str]:
    """A URL of an empty object store without conditional writes."""
    yield "memory://bucket/models"
    fsspec.filesystem("memory").store.clear()


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Each kind of registry elsewhere: a folder, a store without conditional writes, one with them."""
    if request.param == "folder":
        return (tmp_path / "elsewhere").as_uri()
    if request.param == "s3":
        request.getfixturevalue("s3")
        return "s3://bucket/models"
    return str(request.getfixturevalue("memory"))


each_place = pytest.mark.parametrize("place", ["folder", "memory", "s3"], indirect=True)


@pytest.fixture
def other_machine(tiny_registry: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Pulled]:
    """`pull` into a registry that begins empty, with a cache that does."""

    def pull(source: str, model: str | None = None, **options: Any) -> Pulled:
        with monkeypatch.context() as patch:
            patch.setenv("VQA_TRAIN_CACHE", str(tmp_path / "there" / "cache"))
            return pull_model(source, model, tmp_path / "there" / "model", **options)

    return pull


def tree(folder: Path) -> dict[str, str]:
    found = {p.relative_to(folder).as_posix(): sha256_file(p) for p in folder.rglob("*") if p.is_file()}
    return {name: digest for name, digest in found.items() if not name.endswith((".lock", ".sqlite3"))}


def read(place: str, name: str) -> bytes:
    path = location(place) / name
    return path.read_bytes()


def write(place: str, name: str, data: bytes) -> None:
    path = location(place) / name
    if isinstance(path, Path):
        path.write_bytes(data)
    else:
        remote.write(path, data)


@each_place
def test_what_was_pushed_is_pulled_whole(
    tiny_registry: Any, place: str, other_machine: Callable[..., Pulled], tmp_path: Path
) -> None:
    pytest.importorskip("cryptography", reason="cryptography is not installed")
    sign_model("large", KEY, tiny_registry.root, comment="ours")
    pushed = push_model("large", place, tiny_registry.root, alias="champion", require_signature=PUBLIC)
    assert pushed.files[-1] == "large/1/model.json"
    assert len(pushed.files) == 6
    pulled = other_machine(place, require_signature=PUBLIC, alias="stable")
    assert (pulled.model, pulled.changed, pulled.files) == ("large:1", True, 6)
    assert pulled.signed_by == KEY.public.key_id
    there = tmp_path / "there"
    here = {name: digest for name, digest in tree(tiny_registry.root).items() if name.startswith("large/")}
    assert {n: d for n, d in tree(there / "model").items() if n != "registry.json"} == here
    assert tree(there / "cache") == tree(tiny_registry.cache)
    assert ModelRegistry(there / "model").models()["large"].aliases == {"stable": "1"}
    assert open_remote(place).read().models["large"].aliases == {"champion": "1"}
    # Both again: nothing is left to do.
    assert push_model("large", place, tiny_registry.root, alias="champion").files == []
    before = tree(there)
    assert not other_machine(place).changed
    assert tree(there) == before


@each_place
def test_pushes_at_once_lose_nothing(tiny_registry: Any, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writers that all read registry.json before any of them writes it."""
    barrier, original, met = threading.Barrier(len(ALL)), url_registry.registry_bytes, threading.local()

    def slow(models: Any) -> bytes:
        if not getattr(met, "once", False):
            met.once = True
            # The folder's lock lets one in at a time.
            if not place.startswith("file"):
                barrier.wait(timeout=30)
        time.sleep(0.01)
        return original(models)

    for module in (url_registry, folder_registry):
        monkeypatch.setattr(module, "registry_bytes", slow)
    errors: list[BaseException] = []

    def push(model: str) -> None:
        try:
            push_model(model, place, tiny_registry.root, alias="newest")
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=push, args=(model,)) for model in ALL]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    found = open_remote(place).read().models
    assert [f"{name}:{version}" for name, some in found.items() for version in sorted(some.versions)] == sorted(ALL)
    assert sorted(entry.number for entry in found["m"].versions.values()) == [1, 2]
    if not place.startswith("memory"):
        # Without conditional writes versions are safe, moves of aliases are not (docs/registry.md).
        assert {name: len(some.moves) for name, some in found.items()} == {"large": 1, "m": 2, "text": 1}


def test_a_write_on_s3_is_conditional(tiny_registry: Any, s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    place = "s3://bucket/models"
    push_model("m:1", place, tiny_registry.root)
    opened = open_remote(place)
    old = opened.read()
    push_model("m:2", place, tiny_registry.root)
    assert not opened._put_registry({}, old)  # type: ignore[attr-defined]
    assert sorted(opened.read().models["m"].versions) == ["1", "2"]
    assert not opened._put_registry({}, Contents({}, None))  # type: ignore[attr-defined]
    assert sorted(opened.read().models["m"].versions) == ["1", "2"]
    assert opened._put_registry({}, opened.read())  # type: ignore[attr-defined]
    assert opened.read().models == {}


def test_a_version_that_a_late_writer_dropped_comes_back(tiny_registry: Any, memory: str) -> None:
    push_model("text", memory, tiny_registry.root)
    late = read(memory, "registry.json")
    push_model("m:1", memory, tiny_registry.root)
    write(memory, "registry.json", late)
    push_model("m:2", memory, tiny_registry.root)
    found = open_remote(memory).read().models
    assert {name: sorted(some.versions) for name, some in found.items()} == {"m": ["1", "2"], "text": ["1"]}
    assert found["m"].versions["1"].sidecar_sha256 == sha256_file(tiny_registry.root / "m/1/model.json")


def test_a_push_through_a_faulty_network_arrives(
    tiny_registry: Any, s3_proxy: Any, other_machine: Callable[..., Pulled]
) -> None:
    s3_proxy.rate = 0.2
    for model in ("m:1", "large"):
        push_model(model, "s3://bucket/models", tiny_registry.root)
        assert other_machine("s3://bucket/models", model).changed
    assert s3_proxy.met


def damage(data: bytes) -> bytes:
    at = len(data) // 3
    return data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]


SPOILT = ["large/1/model.json", "large/1/model.onnx", "large/1/README.md", "onnx/*.onnx", "onnx/*.weights"]


@pytest.mark.parametrize(
    ("place", "name"),
    # What is verified does not depend on where it is from; one file is enough for the other place.
    [*(("memory", name) for name in SPOILT), ("folder", "onnx/*.weights")],
    indirect=["place"],
)
@pytest.mark.parametrize("spoil", [damage, lambda data: data[: len(data) // 2], lambda data: data + b"x", None])
def test_a_spoiled_remote_is_refused_and_nothing_changes_here(
    tiny_registry: Any,
    place: str,
    other_machine: Callable[..., Pulled],
    tmp_path: Path,
    name: str,
    spoil: Callable[[bytes], bytes] | None,
) -> None:
    for model in ("m:1", "large"):
        push_model(model, place, tiny_registry.root)
    other_machine(place, "m")
    before = tree(tmp_path / "there")
    folder, _, pattern = name.rpartition("/")
    if "*" in pattern:
        name = f"{folder}/{next((tiny_registry.cache / 'onnx').glob(pattern)).name}"
    if spoil is None:
        (location(place) / name).unlink()
    else:
        write(place, name, spoil(read(place, name)))
    with pytest.raises(VqaError, match=name.rpartition("/")[2]):
        other_machine(place, "large")
    assert tree(tmp_path / "there") == before
    assert sorted(p.name for p in (tmp_path / "there/model").iterdir()) == [".registry.lock", "m", "registry.json"]


def test_a_sidecar_that_is_not_the_registrys_decides_nothing(
    tiny_registry: Any, memory: str, other_machine: Callable[..., Pulled]
) -> None:
    push_model("m:1", memory, tiny_registry.root)
    write(memory, "m/1/model.json", read(memory, "m/1/model.json") + b" ")
    fetched: list[str] = []
    with pytest.raises(ModelError, match=r"has sha256 \w{12}, its registry\.json says"):
        other_machine(memory, log=fetched.append)
    assert [line.split()[1] for line in fetched] == ["m/1/model.json"]


def test_a_refused_pull_leaves_not_even_a_folder(
    tiny_registry: Any, memory: str, other_machine: Callable[..., Pulled], tmp_path: Path
) -> None:
    push_model("m:1", memory, tiny_registry.root)
    write(memory, "m/1/model.onnx", b"other")
    with pytest.raises(ModelError, match="is refused: head .*has sha256"):
        other_machine(memory, "m")
    assert not (tmp_path / "there/model").exists()


def test_a_chain_made_anew_elsewhere_needs_the_key(
    tiny_registry: Any, memory: str, other_machine: Callable[..., Pulled], tmp_path: Path
) -> None:
    """Whoever may write there can make every hash fit; only the signature tells."""
    pytest.importorskip("cryptography", reason="cryptography is not installed")
    sign_model("m:1", KEY, tiny_registry.root)
    push_model("m:1", memory, tiny_registry.root)
    sidecar = read(memory, "m/1/model.json").replace(b"Apache-2.0", b"Apache-2.1")
    before = sha256_file(tiny_registry.root / "m/1/model.json")
    write(memory, "m/1/model.json", sidecar)
    registry = read(memory, "registry.json").decode()
    import hashlib

    write(memory, "registry.json", registry.replace(before, hashlib.sha256(sidecar).hexdigest()).encode())
    with pytest.raises(ModelError, match=r"does not fit the bytes of 'model\.json'"):
        other_machine(memory, require_signature=PUBLIC)
    fs = fsspec.filesystem("memory")
    fs.rm("/bucket/models/m/1/model.json.minisig")
    with pytest.raises(ModelError, match="has no signature"):
        other_machine(memory, require_signature=PUBLIC)
    assert not (tmp_path / "there/model").exists()
    assert other_machine(memory).signed_by is None


def test_a_file_larger_than_its_sidecar_says_is_not_fetched(
    tiny_registry: Any, memory: str, other_machine: Callable[..., Pulled]
) -> None:
    push_model("m:1", memory, tiny_registry.root)
    write(memory, "m/1/model.onnx", bytes(1 << 20))
    with pytest.raises(ModelError, match=r"'m/1/model\.onnx' of .* has 1048576 bytes, expected at most"):
        other_machine(memory)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"{", ConfigError),
        (b'{"schema": "vqa-train/registry/9", "models": {}}', ConfigError),
        (b'{"schema": "vqa-train/registry/2", "models": {"../m": {"versions": {}}}}', ConfigError),
    ],
)
def test_a_malformed_registry_elsewhere_is_refused(
    memory: str, other_machine: Callable[..., Pulled], data: bytes, error: type[Exception]
) -> None:
    write(memory, "registry.json", data)
    with pytest.raises(error, match=r"memory://bucket/models/registry\.json"):
        other_machine(memory)


def test_a_sidecar_elsewhere_cannot_name_files_outside(
    tiny_registry: Any, other_machine: Callable[..., Pulled], tmp_path: Path
) -> None:
    push_model("m:1", str(tmp_path / "elsewhere"), tiny_registry.root)
    file = tmp_path / "elsewhere/registry.json"
    (tmp_path / "secret.json").write_text("{}")
    file.write_text(file.read_text().replace('"m/1/model.json"', '"../secret.json"'))
    with pytest.raises(VqaError, match="leaves its root"):
        other_machine(str(tmp_path / "elsewhere"))


def test_versions_do_not_change(tiny_registry: Any, memory: str, tmp_path: Path) -> None:
    push_model("m:1", memory, tiny_registry.root)
    before = read(memory, "registry.json")
    root = tmp_path / "mine"
    shutil.copytree(tiny_registry.root / "m/2", root / "m/1")
    other = root / "m/1/model.json"
    other.write_text(other.read_text().replace('"version": "2"', '"version": "1"', 1))
    entry = ModelRegistry(tiny_registry.root).models()["m"].versions["2"]
    changed = {"sidecar": "m/1/model.json", "sidecar_sha256": sha256_file(other)}
    ModelRegistry(root).put("m", "1", entry.model_copy(update=changed))
    with pytest.raises(ModelError, match="has another model 'm:1'.*versions do not change"):
        push_model("m:1", memory, root)
    assert read(memory, "registry.json") == before
    assert read(memory, "m/1/model.json") == (tiny_registry.root / "m/1/model.json").read_bytes()
    # The other way round: --overwrite decides.
    with pytest.raises(ModelError, match="has another model 'm' of version '1'"):
        pull_model(memory, "m", root)
    assert pull_model(memory, "m", root, overwrite=True).changed
    assert sha256_file(other) == sha256_file(tiny_registry.root / "m/1/model.json")


def test_a_damaged_model_is_not_pushed(tiny_registry: Any, memory: str) -> None:
    (tiny_registry.root / "m/1/model.onnx").write_bytes(b"damaged")
    with pytest.raises(ModelError, match="has sha256"):
        push_model("m:1", memory, tiny_registry.root)
    assert fsspec.filesystem("memory").find("/bucket") == []


def test_an_unsigned_model_is_not_pushed_under_a_policy(tiny_registry: Any, memory: str) -> None:
    with pytest.raises(ModelError, match="has no signature"):
        push_model("m:1", memory, tiny_registry.root, require_signature=PUBLIC)
    assert fsspec.filesystem("memory").find("/bucket") == []


def test_a_push_mends_what_was_spoiled_there(
    tiny_registry: Any, memory: str, other_machine: Callable[..., Pulled]
) -> None:
    push_model("m:1", memory, tiny_registry.root)
    write(memory, "m/1/model.onnx", damage(read(memory, "m/1/model.onnx")))
    fsspec.filesystem("memory").rm("/bucket/models/m/1/README.md")
    assert sorted(push_model("m:1", memory, tiny_registry.root).files) == ["m/1/README.md", "m/1/model.onnx"]
    assert other_machine(memory).changed


def test_a_pull_mends_what_was_spoiled_here(
    tiny_registry: Any, memory: str, other_machine: Callable[..., Pulled], tmp_path: Path
) -> None:
    for model in ("m:1", "large"):
        push_model(model, memory, tiny_registry.root)
        other_machine(memory, model)
    whole = tree(tmp_path / "there")
    for path in (tmp_path / "there/model/m/1/README.md", next((tmp_path / "there/cache/onnx").glob("*.weights"))):
        path.write_bytes(damage(path.read_bytes()))
    assert other_machine(memory, "m").changed
    assert other_machine(memory, "large").changed
    assert tree(tmp_path / "there") == whole


def test_a_signature_that_came_later_is_fetched(
    tiny_registry: Any, memory: str, other_machine: Callable[..., Pulled], tmp_path: Path
) -> None:
    pytest.importorskip("cryptography", reason="cryptography is not installed")
    push_model("m:1", memory, tiny_registry.root)
    other_machine(memory)
    with pytest.raises(ModelError, match="has no signature"):
        Scorer("m", registry=tmp_path / "there/model", require_signature=PUBLIC)
    sign_model("m:1", KEY, tiny_registry.root)
    assert push_model("m:1", memory, tiny_registry.root).files == ["m/1/model.json.minisig"]
    assert other_machine(memory, require_signature=PUBLIC).changed
    Scorer("m", registry=tmp_path / "there/model", require_signature=PUBLIC)


def test_a_crash_before_the_last_write_shows_nothing_there(
    tiny_registry: Any, memory: str, other_machine: Callable[..., Pulled], monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: Any) -> None:
        raise OSError("the line is dead")

    with monkeypatch.context() as patch:
        patch.setattr(url_registry.UrlRegistry, "_write_registry", crash)
        with pytest.raises(ModelError, match="cannot be written: the line is dead"):
            push_model("m:1", memory, tiny_registry.root)
    with pytest.raises(UsageError, match="has 0 models"):
        other_machine(memory)
    push_model("m:1", memory, tiny_registry.root)
    assert other_machine(memory).changed


def test_a_crash_while_pulling_leaves_the_registry_as_it_was(
    tiny_registry: Any,
    memory: str,
    other_machine: Callable[..., Pulled],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for model in ("m:1", "m:2"):
        push_model(model, memory, tiny_registry.root)
    other_machine(memory, "m:1")
    before = tree(tmp_path / "there")

    def crash(*_: Any, **__: Any) -> None:
        raise OSError("the power is gone")

    with monkeypatch.context() as patch:
        patch.setattr(pull_module, "publish", crash)
        with pytest.raises(OSError, match="power"):
            other_machine(memory, "m:2")
    assert tree(tmp_path / "there") == before


def test_a_model_is_chosen_by_name_version_or_alias(
    tiny_registry: Any, memory: str, other_machine: Callable[..., Pulled]
) -> None:
    for model in ("m:1", "m:2", "text"):
        push_model(model, memory, tiny_registry.root)
    push_model("m:1", memory, tiny_registry.root, alias="champion")
    with pytest.raises(UsageError, match="has 2 models, so one must be named - one of: m, text"):
        other_machine(memory)
    with pytest.raises(ModelError, match="has no model 'n' - it has m, text"):
        other_machine(memory, "n")
    assert [other_machine(memory, name).model for name in ("m", "m:2", "m@champion")] == ["m:1", "m:2", "m:1"]


def test_a_large_backbone_that_is_here_is_not_fetched(tiny_registry: Any, memory: str, tmp_path: Path) -> None:
    push_model("large", memory, tiny_registry.root)
    assert pull_model(memory, None, tmp_path / "second").files == 3
    (found,) = verify_models(None, tmp_path / "second")
    assert found.ok


def test_a_champion_here_stays_when_another_version_is_pulled(
    tiny_registry: Any, memory: str, other_machine: Callable[..., Pulled], tmp_path: Path
) -> None:
    for model in ("m:1", "m:2"):
        push_model(model, memory, tiny_registry.root, alias="champion")
        other_machine(memory, model)
        if model == "m:1":
            set_alias("m:1", "champion", tmp_path / "there/model")
    assert ModelRegistry(tmp_path / "there/model").resolve("m") == ("m", "1")


@pytest.mark.parametrize("address", ["hf://one", "hf://a/b/c/d", "hf://a/b@", "nosuch://x"])
def test_an_address_that_is_none_is_refused(tiny_registry: Any, address: str) -> None:
    with pytest.raises(UsageError):
        push_model("m:1", address, tiny_registry.root)
