"""Aliases, removal, signing and bundles of registered models."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vqa_train.core.errors import ModelError, UsageError
from vqa_train.core.hashing import sha256_file
from vqa_train.pipelines.models import change, export
from vqa_train.pipelines.models.change import remove_alias, remove_model, set_alias, sign_model
from vqa_train.pipelines.models.export import export_bundle
from vqa_train.pipelines.models.verify import verify_models
from vqa_train.registry.minisign_keys import SecretKey
from vqa_train.registry.registry import ModelRegistry
from vqa_train.registry.signature import signature_path
from vqa_train.scoring import Scorer

KEY = SecretKey(b"test key", bytes(range(32)))


def tree(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): sha256_file(p) for p in folder.rglob("*") if p.is_file()}


def test_an_alias_moves_and_every_move_is_kept(tiny_registry: Any) -> None:
    root = tiny_registry.root
    assert Scorer("m", registry=root).sidecar.version == "2"
    first = set_alias("m:1", "champion", root)
    assert (first.version, first.previous, first.changed) == ("1", None, True)
    assert Scorer("m", registry=root).sidecar.version == "1"
    assert not set_alias("m:1", "champion", root).changed
    assert set_alias("m:2", "champion", root).previous == "1"
    assert set_alias("m@champion", "stable", root).version == "2"
    assert remove_alias("m", "champion", root).previous == "2"
    found = ModelRegistry(root).models()["m"]
    assert found.aliases == {"stable": "2"}
    assert [(move.alias, move.previous, move.version, move.by) for move in found.moves] == [
        ("champion", None, "1", "alias"), ("champion", "1", "2", "alias"), ("stable", None, "2", "alias"),
        ("champion", "2", None, "alias"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("act", "error", "message"),
    [
        (lambda root: set_alias("m:3", "a", root), ModelError, "no version '3'"),
        (lambda root: set_alias("m:1", "a:b", root), UsageError, "'a:b' is no name of an alias"),
        (lambda root: set_alias("m:1", "a/b", root), UsageError, "names no model"),
        (lambda root: remove_alias("m", "a", root), ModelError, "no alias 'a'"),
        (lambda root: remove_model("m", root), UsageError, "'m' names no version"),
        (lambda root: remove_model("m:3", root), ModelError, "no version '3'"),
        (lambda root: remove_model("none:1", root), ModelError, "has no model 'none'"),
    ],
)
def test_what_is_not_there_is_refused(
    tiny_registry: Any, act: Callable[[Path], Any], error: type[Exception], message: str
) -> None:
    before = tree(tiny_registry.root)
    with pytest.raises(error, match=message):
        act(tiny_registry.root)
    assert tree(tiny_registry.root).items() >= before.items()


def test_an_alias_is_not_pointed_to_a_damaged_or_unsigned_model(tiny_registry: Any) -> None:
    root = tiny_registry.root
    with pytest.raises(ModelError, match="has no signature"):
        set_alias("m:1", "champion", root, require_signature=[KEY.public.text])
    (root / "m/1/README.md").write_text("changed")
    with pytest.raises(ModelError, match="model card"):
        set_alias("m:1", "champion", root)
    assert ModelRegistry(root).models()["m"].moves == []


def test_an_alias_is_removed_only_from_the_version_that_was_named(tiny_registry: Any) -> None:
    set_alias("m:1", "a", tiny_registry.root)
    with pytest.raises(ModelError, match="points to version '1', not '2'"):
        remove_alias("m:2", "a", tiny_registry.root)
    assert remove_alias("m:1", "a", tiny_registry.root).changed


def test_a_version_is_removed_and_the_others_stay(tiny_registry: Any) -> None:
    root = tiny_registry.root
    removed = remove_model("m:2", root)
    assert (removed.name, removed.version, removed.aliases) == ("m", "2", [])
    assert not (root / "m/2").exists()
    assert all(one.ok for one in verify_models(None, root))
    remove_model("m:1", root)
    assert not (root / "m").exists()
    assert list(ModelRegistry(root).models()) == ["large", "text"]
    assert not [path for path in root.iterdir() if path.name.endswith(".removed")]


def test_an_alias_keeps_its_version_unless_forced(tiny_registry: Any) -> None:
    root = tiny_registry.root
    set_alias("m:1", "champion", root)
    with pytest.raises(ModelError, match="has the alias champion"):
        remove_model("m:1", root)
    assert (root / "m/1/model.onnx").is_file()
    assert remove_model("m:1", root, force=True).aliases == ["champion"]
    assert ModelRegistry(root).models()["m"].aliases == {}


def test_a_damaged_model_can_be_removed(tiny_registry: Any) -> None:
    (tiny_registry.root / "m/2/model.json").unlink()
    remove_model("m:2", tiny_registry.root)
    shutil.rmtree(tiny_registry.root / "m/1")
    remove_model("m:1", tiny_registry.root)
    assert "m" not in ModelRegistry(tiny_registry.root).models()


def test_a_crash_while_removing_leaves_a_registry_that_is_true(
    tiny_registry: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: Any) -> None:
        raise OSError("the power is gone")

    monkeypatch.setattr(change, "_delete", crash)
    with pytest.raises(OSError, match="power"):
        remove_model("m:1", tiny_registry.root)
    assert list(ModelRegistry(tiny_registry.root).models()["m"].versions) == ["2"]
    assert all(one.ok for one in verify_models(None, tiny_registry.root))


def test_a_model_whose_files_differ_is_not_signed(tiny_registry: Any) -> None:
    pytest.importorskip("cryptography", reason="cryptography is not installed")
    head = tiny_registry.root / "m/1/model.onnx"
    good = head.read_bytes()
    head.write_bytes(good + b"x")
    with pytest.raises(ModelError, match=r"head .*model\.onnx' has sha256"):
        sign_model("m:1", KEY, tiny_registry.root)
    assert not signature_path(head.with_name("model.json")).exists()
    head.write_bytes(good)
    signed = sign_model("m:1", KEY, tiny_registry.root)
    assert signed.comment.startswith("model m:1, 20")
    with pytest.raises(ModelError, match="is signed already"):
        sign_model("m:1", KEY, tiny_registry.root)
    assert sign_model("m:1", KEY, tiny_registry.root, comment="again", overwrite=True).comment == "again"


@pytest.mark.parametrize("name", ["b.tar.zst", "b"])
def test_a_bundle_is_all_that_another_machine_needs(
    tiny_registry: Any, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_alias("large:1", "champion", tiny_registry.root)
    done = export_bundle("large", tmp_path / name, tiny_registry.root)
    assert (done.model, done.files) == ("large:1", 6)
    here = Scorer("large", registry=tiny_registry.root).sidecar
    shutil.rmtree(tiny_registry.root)
    monkeypatch.setenv("VQA_TRAIN_CACHE", str(tmp_path / "another machine"))
    assert Scorer(tmp_path / name).sidecar == here
    (found,) = verify_models([str(tmp_path / name)])
    assert found.ok
    assert not [check for check in found.checks if check.part == "other file"]


def test_two_exports_have_the_same_bytes(tiny_registry: Any, tmp_path: Path) -> None:
    first = export_bundle("text", tmp_path / "a.tar.zst", tiny_registry.root)
    shutil.copytree(tiny_registry.root, tmp_path / "elsewhere")
    set_alias("text:1", "champion", tmp_path / "elsewhere")
    second = export_bundle("text@champion", tmp_path / "b.tar.zst", tmp_path / "elsewhere")
    assert first.sha256 == second.sha256 == sha256_file(tmp_path / "b.tar.zst")
    # A bundle of a bundle is that bundle.
    third = export_bundle(str(tmp_path / "a.tar.zst"), tmp_path / "c.tar.zst")
    assert third.sha256 == first.sha256
    export_bundle("text", tmp_path / "folder", tiny_registry.root)
    assert export_bundle(str(tmp_path / "folder"), tmp_path / "d.tar.zst").sha256 == first.sha256


def test_a_damaged_model_is_not_bundled(tiny_registry: Any, tmp_path: Path) -> None:
    (weights,) = (tiny_registry.cache / "onnx").glob("*.weights")
    data = bytearray(weights.read_bytes())
    data[5] ^= 1
    weights.write_bytes(data)
    for name in ("b.tar.zst", "b"):
        with pytest.raises(ModelError, match="weights of backbone tiny@.* has sha256"):
            export_bundle("large", tmp_path / name, tiny_registry.root)
    assert not [p for p in tmp_path.iterdir() if p.name.lstrip(".").startswith("b")]


@pytest.mark.parametrize("name", ["b.tar.zst", "b"])
def test_a_file_that_changes_meanwhile_is_not_bundled(
    tiny_registry: Any, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changed(model: Any) -> Any:
        parts = original(model)
        (tiny_registry.root / "m/1/model.onnx").write_bytes(b"changed")
        return parts

    original = export.intact_parts
    monkeypatch.setattr(export, "intact_parts", changed)
    with pytest.raises(ModelError, match=r"'m/1/model\.onnx' changed while it was bundled"):
        export_bundle("m:1", tmp_path / name, tiny_registry.root)
    assert not [p for p in tmp_path.iterdir() if p.name.lstrip(".").startswith("b")]


def test_what_is_there_is_not_overwritten_unasked(tiny_registry: Any, tmp_path: Path) -> None:
    root = tiny_registry.root
    for name in ("b.tar.zst", "b"):
        export_bundle("m:1", tmp_path / name, root)
        before = verify_models([str(tmp_path / name)])[0].model
        with pytest.raises(UsageError, match="exists already"):
            export_bundle("m:2", tmp_path / name, root)
        assert before == verify_models([str(tmp_path / name)])[0].model == "m:1"
        export_bundle("m:2", tmp_path / name, root, overwrite=True)
        (found,) = verify_models([str(tmp_path / name)])
        assert (found.model, found.ok) == ("m:2", True)
    mine = tmp_path / "mine"
    (mine / "thesis").mkdir(parents=True)
    for place in (mine, root):
        before = tree(place)
        with pytest.raises(UsageError, match="is no bundle of this kind, so it is not overwritten"):
            export_bundle("m:1", place, root, overwrite=True)
        assert tree(place) == before
    with pytest.raises(UsageError, match="is no kind of bundle"):
        export_bundle("m:1", tmp_path / "b.tar.gz", root)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b", "b.tar.zst", "mine", "model"]
