"""registry.json finds models by name, verifies them, and survives concurrent writers and crashes."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from vqa_train.core.errors import ConfigError, ModelError, VqaError
from vqa_train.core.hashing import sha256_file
from vqa_train.registry.registry import ModelRegistry, RegistryEntry
from vqa_train.registry.sidecar import ModelSidecar, write_sidecar

_spec = importlib.util.spec_from_file_location("sidecar_values", Path(__file__).with_name("test_sidecar.py"))
assert _spec is not None
assert _spec.loader is not None
values = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(values)


def add(registry: ModelRegistry, name: str) -> Path:
    sidecar = ModelSidecar(**values.registered(name=name))
    path = registry.root / name / "model.json"
    write_sidecar(path, sidecar)
    entry = RegistryEntry(
        sidecar=f"{name}/model.json", sidecar_sha256=sha256_file(path), onnx_sha256=sidecar.onnx.sha256
    )
    with registry.locked():
        registry.put(name, entry)
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
    with pytest.raises(ModelError, match=r"sidecar .*model\.json' of model 'a' has sha256"):
        registry.find("a")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"onnx_sha256": "e" * 64}, "names a head with sha256 aaaa.*, the registry one with eeee"),
        ({"sidecar": "../outside.json"}, "leaves its root"),
        ({"sidecar": "a/none.json"}, "is missing"),
    ],
)
def test_an_entry_that_does_not_fit_is_refused(registry: ModelRegistry, changes: dict[str, str], message: str) -> None:
    add(registry, "a")
    registry.put("a", registry.models()["a"].model_copy(update=changes))
    with pytest.raises(VqaError, match=message):
        registry.find("a")


def test_an_entry_that_points_to_another_model_is_refused(registry: ModelRegistry) -> None:
    add(registry, "a")
    add(registry, "b")
    registry.put("a", registry.models()["b"])
    with pytest.raises(ModelError, match="not of a registered model 'a'"):
        registry.find("a")


@pytest.mark.parametrize(
    "content", ["{", '{"schema": "other/1", "models": {}}', '{"schema": "vqa-train/registry/1", "x": 1}']
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
        "        registry.put(f'{name}{i}', entry)\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(registry.root), name]) for name in "xyz"]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    assert len(registry.models()) == 75


def test_the_file_is_sorted_and_carries_its_schema(registry: ModelRegistry) -> None:
    add(registry, "z")
    add(registry, "a")
    content = json.loads(registry.path.read_text())
    assert content["schema"] == "vqa-train/registry/1"
    assert list(content["models"]) == ["a", "z"]
