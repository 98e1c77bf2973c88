"""registry.json finds models by name, verifies them, and survives concurrent writers and crashes."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vqa_train.core.errors import ConfigError, ModelError, UsageError, VqaError
from vqa_train.core.hashing import sha256_bytes, sha256_file
from vqa_train.registry.locate import locate
from vqa_train.registry.reference import ModelRef
from vqa_train.registry.registry import ModelRegistry, RegistryEntry
from vqa_train.registry.sidecar import ModelSidecar, write_sidecar

_spec = importlib.util.spec_from_file_location("sidecar_values", Path(__file__).with_name("test_sidecar.py"))
assert _spec is not None
assert _spec.loader is not None
values = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(values)


def add(registry: ModelRegistry, name: str, version: str = "1", **changes: Any) -> Path:
    sidecar = ModelSidecar(**values.registered(name=name, version=version, **changes))
    path = registry.root / name / version / "model.json"
    write_sidecar(path, sidecar)
    entry = RegistryEntry(
        sidecar=f"{name}/{version}/model.json", sidecar_sha256=sha256_file(path), onnx_sha256=sidecar.onnx.sha256
    )
    with registry.locked():
        registry.put(name, version, entry)
    return path


@pytest.fixture
def registry(tmp_path: Path) -> ModelRegistry:
    return ModelRegistry(tmp_path / "model")


def test_a_model_is_found_by_name(registry: ModelRegistry) -> None:
    path = add(registry, "b")
    add(registry, "a")
    assert list(registry.models()) == ["a", "b"]
    sidecar, folder = registry.find("b")
    assert (sidecar.name, folder) == ("b", path.parent)


def test_an_empty_registry_has_no_models(registry: ModelRegistry) -> None:
    assert registry.models() == {}
    with pytest.raises(ModelError, match="does not exist, so it has no model 'x'"):
        registry.find("x")


def test_a_changed_sidecar_is_refused(registry: ModelRegistry) -> None:
    path = add(registry, "a")
    path.write_text(path.read_text().replace("higher_is_better", "lower_is_better"))
    with pytest.raises(ModelError, match=r"sidecar .*model\.json' of model 'a:1' has sha256"):
        registry.find("a")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"onnx_sha256": "e" * 64}, "names a head with sha256 aaaa.*, the registry one with eeee"),
        ({"sidecar": "../outside.json"}, "leaves its root"),
        ({"sidecar": "a/1/none.json"}, "is missing"),
    ],
)
def test_an_entry_that_does_not_fit_is_refused(registry: ModelRegistry, changes: dict[str, str], message: str) -> None:
    add(registry, "a")
    registry.put("a", "1", registry.models()["a"].versions["1"].model_copy(update=changes))
    with pytest.raises(VqaError, match=message):
        registry.find("a")


def test_an_entry_that_points_to_another_model_is_refused(registry: ModelRegistry) -> None:
    add(registry, "a")
    add(registry, "b")
    registry.put("a", "1", registry.models()["b"].versions["1"])
    with pytest.raises(ModelError, match="not of a registered model 'a:1'"):
        registry.find("a")


@pytest.mark.parametrize(
    "content", ["{", '{"schema": "other/1", "models": {}}', '{"schema": "vqa-train/registry/2", "x": 1}']
)
def test_a_registry_of_another_shape_is_refused(registry: ModelRegistry, content: str) -> None:
    registry.root.mkdir()
    registry.path.write_text(content)
    with pytest.raises(ConfigError, match=r"registry\.json"):
        registry.models()


def test_concurrent_writers_lose_no_entry(registry: ModelRegistry) -> None:
    code = (
        "import sys; from pathlib import Path; from vqa_train.registry.registry import ModelRegistry, RegistryEntry\n"
        "registry, name = ModelRegistry(Path(sys.argv[1])), sys.argv[2]\n"
        "for i in range(25):\n"
        "    with registry.locked():\n"
        "        entry = RegistryEntry(sidecar='a.json', sidecar_sha256='a' * 64, onnx_sha256='b' * 64)\n"
        "        registry.put(f'{name}{i % 5}', str(i), entry)\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(registry.root), name]) for name in "xyz"]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    models = registry.models()
    assert len(models) == 15
    assert {len(found.versions) for found in models.values()} == {5}
    assert {version.number for found in models.values() for version in found.versions.values()} == {1, 2, 3, 4, 5}


def test_the_file_is_sorted_and_carries_its_schema(registry: ModelRegistry) -> None:
    add(registry, "z")
    add(registry, "a")
    content = json.loads(registry.path.read_text())
    assert content["schema"] == "vqa-train/registry/2"
    assert list(content["models"]) == ["a", "z"]


def test_a_name_alone_is_the_champion_and_without_one_the_version_registered_last(registry: ModelRegistry) -> None:
    for version in ("2", "10", "1"):
        add(registry, "a", version)
    assert registry.models()["a"].in_order() == ["2", "10", "1"]
    assert registry.find("a")[0].version == "1"
    with registry.locked():
        registry.move_alias("a", "champion", "10")
    assert registry.find("a")[0].version == "10"
    assert registry.find("a@champion")[0].version == "10"
    assert registry.find("a:2")[1] == registry.root / "a" / "2"


def test_a_version_registered_again_keeps_its_place(registry: ModelRegistry) -> None:
    add(registry, "a", "1")
    add(registry, "a", "2")
    add(registry, "a", "1", license="MIT")
    assert registry.models()["a"].in_order() == ["1", "2"]


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        ("a:3", ModelError, "no version '3' - there is 1, 2"),
        ("a@chamption", ModelError, "no alias 'chamption' - did you mean 'champion'"),
        ("aa", ModelError, "has no model 'aa' - did you mean 'a'"),
        ("a:1@champion", UsageError, "names no model"),
        ("../a", UsageError, "names no model"),
        ("", UsageError, "names no model"),
    ],
)
def test_what_is_not_there_is_named(registry: ModelRegistry, model: str, error: type, message: str) -> None:
    add(registry, "a", "1")
    add(registry, "a", "2")
    with registry.locked():
        registry.move_alias("a", "champion", "1")
    with pytest.raises(error, match=message):
        registry.find(model)


@pytest.mark.parametrize("text", ["a", "a:1", "a@champion", "nss-mlp+2:v1.0_b"])
def test_a_reference_is_written_as_it_is_read(text: str) -> None:
    assert str(ModelRef.parse(text)) == text


def test_moves_of_an_alias_are_kept(registry: ModelRegistry) -> None:
    add(registry, "a", "1")
    add(registry, "a", "2")
    with registry.locked():
        registry.move_alias("a", "champion", "1", by="promote", evidence="e" * 64)
        assert registry.move_alias("a", "champion", "1") is None
        registry.move_alias("a", "champion", "2")
        registry.move_alias("a", "champion", None)
        with pytest.raises(ModelError, match="no alias 'champion'"):
            registry.move_alias("a", "champion", None)
        with pytest.raises(ModelError, match="no version '3'"):
            registry.move_alias("a", "champion", "3")
    found = registry.models()["a"]
    assert found.aliases == {}
    assert [(m.version, m.previous, m.by) for m in found.moves] == [
        ("1", None, "promote"), ("2", "1", "alias"), (None, "2", "alias"),
    ]  # fmt: skip
    assert found.moves[0].evidence == "e" * 64


def test_a_dropped_version_takes_its_aliases_along(registry: ModelRegistry) -> None:
    add(registry, "a", "1")
    add(registry, "a", "2")
    with registry.locked():
        registry.move_alias("a", "champion", "2")
        registry.drop("a", "2")
    found = registry.models()["a"]
    assert (list(found.versions), found.aliases, found.moves[-1].by) == (["1"], {}, "remove")
    with registry.locked():
        registry.drop("a", "1")
    assert registry.models() == {}


def test_an_alias_that_points_nowhere_is_refused(registry: ModelRegistry) -> None:
    add(registry, "a")
    content = json.loads(registry.path.read_text())
    content["models"]["a"]["aliases"] = {"champion": "7"}
    registry.path.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match="point to versions that are not there"):
        registry.models()


def test_a_changed_card_is_refused(registry: ModelRegistry) -> None:
    card = b"# a"
    path = add(registry, "a", card={"file": "README.md", "sha256": sha256_bytes(card), "bytes": len(card)})
    with pytest.raises(ModelError, match=r"card .*README\.md' cannot be read"):
        registry.find("a")
    (path.parent / "README.md").write_bytes(card)
    registry.find("a")
    (path.parent / "README.md").write_bytes(b"# b")
    with pytest.raises(ModelError, match=r"card .*README\.md' has sha256"):
        registry.find("a")


def test_a_registry_of_before_versions_is_read_and_grows_into_one_of_versions(registry: ModelRegistry) -> None:
    sidecar = ModelSidecar(**values.registered(name="a", version="3"))
    path = registry.root / "a" / "model.json"
    write_sidecar(path, sidecar)
    entry = {"sidecar": "a/model.json", "sidecar_sha256": sha256_file(path), "onnx_sha256": sidecar.onnx.sha256}
    registry.path.write_text(json.dumps({"schema": "vqa-train/registry/1", "models": {"a": entry}}))
    assert registry.find("a")[0].version == "3"
    assert locate(path.parent)[0].version == "3"
    add(registry, "a", "4")
    assert json.loads(registry.path.read_text())["schema"] == "vqa-train/registry/2"
    assert registry.find("a")[0].version == "4"
    assert registry.find("a:3") == (sidecar, path.parent)


def test_a_model_is_located_by_its_folder(
    registry: ModelRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VQA_TRAIN_CACHE", str(tmp_path / "cache"))
    path = add(registry, "a")
    assert locate("a", registry.root)[1] == path.parent
    assert locate(path.parent)[1] == path.parent
    assert locate(registry.root)[1] == path.parent
    assert locate(registry.root / "a:1")[1] == path.parent
    monkeypatch.chdir(path.parent)
    assert locate(Path())[0].name == "a"
    # A folder of the working folder, unless a model has that name.
    monkeypatch.chdir(registry.root.parent)
    assert locate("model", tmp_path / "none")[0].name == "a"
    add(registry, "b")
    with pytest.raises(UsageError, match="has 2 models, expected one - name one with --registry .*: a:1, b:1"):
        locate(registry.root)
    with pytest.raises(ModelError, match="there is no model at"):
        locate(tmp_path / "none")
    stray = tmp_path / "deep" / "stray" / "model.json"
    write_sidecar(stray, ModelSidecar(**values.registered(name="s")))
    with pytest.raises(ModelError, match="is in no registry"):
        locate(stray.parent)
