"""Registering verifies everything it is told, publishes all or nothing, and never takes a name away by accident."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from vqa_train import backbones
from vqa_train.core.errors import ModelError, UsageError
from vqa_train.core.hashing import sha256_file
from vqa_train.core.types import FeatureSpec
from vqa_train.onnx.runtime import FINGERPRINT_KEY, OnnxModel
from vqa_train.pipelines.models import publish
from vqa_train.pipelines.models import register as registering
from vqa_train.pipelines.models.register import RegisterConfig, register
from vqa_train.registry.registry import ModelRegistry
from vqa_train.registry.sidecar import GoldenRows, ModelSidecar, read_sidecar, write_sidecar
from vqa_train.scoring import Scorer

TESTS = Path(__file__).parents[1]


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(TESTS / "registry")
    monkeypatch.syspath_prepend(TESTS / "backbones")
    module = importlib.import_module("tiny_model")
    monkeypatch.setattr(backbones.BACKBONES, "_builtin", module.BUILTIN)
    monkeypatch.setattr(backbones.TEXT_ENCODERS, "_builtin", module.BUILTIN_TEXT)
    return module


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "model"


@pytest.fixture
def exported(tiny: ModuleType, root: Path) -> Path:
    return tiny.export_tiny(root / "m.onnx")


@pytest.fixture
def put(tiny: ModuleType, root: Path) -> Callable[..., ModelSidecar]:
    def put(model: Path, **changes: Any) -> ModelSidecar:
        fields = {"kind": "nr", "dataset": "ladder", "license": "Apache-2.0", "train_commit": tiny.COMMIT}
        return register(RegisterConfig(model=model, registry=root, **{**fields, **changes}))

    return put


def edit(path: Path, **changes: Any) -> None:
    """Change the exported sidecar."""
    write_sidecar(path, read_sidecar(path).model_copy(update=changes))


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_a_registered_model_is_whole(exported: Path, root: Path, put: Callable[..., ModelSidecar]) -> None:
    sidecar = put(exported)
    backbone = sidecar.inputs[0].backbone_onnx
    assert backbone is not None
    assert files(root) == [
        ".registry.lock", "m.json", "m.onnx", "m/1/README.md", f"m/1/{backbone.file}", "m/1/model.json",
        "m/1/model.onnx", "registry.json",
    ]  # fmt: skip
    found, folder = ModelRegistry(root).find("m")
    assert found == sidecar
    assert sidecar.registered
    assert (sidecar.kind, sidecar.license, sidecar.train_commit) == ("nr", "Apache-2.0", "0123abc")
    assert sidecar.dataset is not None
    assert (sidecar.dataset.name, sidecar.dataset.manifest_sha256) == ("ladder", "a" * 64)
    assert sidecar.onnx.sha256 == sha256_file(folder / "model.onnx") == sha256_file(exported)
    assert sidecar.run_provenance["entrypoint"] == "register"
    assert sidecar.run_provenance["parent"]["entrypoint"] == "fit"
    assert sidecar.run_provenance["inputs"]["onnx"]["sha256"] == sidecar.onnx.sha256


def test_inputs_of_one_backbone_share_its_file(
    tiny: ModuleType, exported: Path, root: Path, put: Callable[..., ModelSidecar]
) -> None:
    sidecar = put(exported)
    first, second = (item.backbone_onnx for item in sidecar.inputs)
    assert first is not None
    assert first == second
    graph = OnnxModel(root / "m" / "1" / str(first.file), expected_sha256=first.sha256)
    assert graph.metadata[FINGERPRINT_KEY] == tiny.TinyBackbone().spec.fingerprint
    assert first.inputs == {"frames": [4, "height", "width", 3]}
    assert list(graph.outputs) == ["pooled", "motion"]


def test_the_card_says_what_a_user_must_know(exported: Path, root: Path, put: Callable[..., ModelSidecar]) -> None:
    put(exported)
    card = (root / "m" / "1" / "README.md").read_text()
    for text in ("vqa-score VIDEO --model m", "ladder", "CC0-1.0", "Apache-2.0", "1 to 5", "nothing is claimed"):
        assert text in card


def test_registering_the_same_model_again_changes_nothing(
    exported: Path, root: Path, put: Callable[..., ModelSidecar]
) -> None:
    first = put(exported)
    before = {name: (root / name).stat().st_mtime_ns for name in files(root)}
    assert put(exported) == first
    assert {name: (root / name).stat().st_mtime_ns for name in files(root)} == before


def test_another_model_is_another_version(exported: Path, root: Path, put: Callable[..., ModelSidecar]) -> None:
    assert put(exported).version == "1"
    assert put(exported, license="MIT").version == "2"
    assert put(exported).version == "1"
    assert put(exported, version="10", license="BSD-3-Clause").version == "10"
    assert put(exported, license="CC0-1.0").version == "11"
    assert ModelRegistry(root).models()["m"].in_order() == ["1", "2", "10", "11"]
    assert [Scorer(f"m:{version}", registry=root).sidecar.license for version in ("1", "2")] == ["Apache-2.0", "MIT"]


def test_a_number_that_another_process_takes_first_is_left_to_it(
    tiny: ModuleType, exported: Path, root: Path, put: Callable[..., ModelSidecar], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen, waiting = registering._numbered, ["other"]

    def slow(registry: ModelRegistry, sidecar: ModelSidecar) -> ModelSidecar:
        found = chosen(registry, sidecar)
        if waiting and sidecar.license == "MIT":
            waiting.pop()
            put(exported)
        return found

    monkeypatch.setattr(registering, "_numbered", slow)
    assert put(exported, license="MIT").version == "2"
    assert [ModelRegistry(root).find(f"m:{v}")[0].license for v in ("1", "2")] == ["Apache-2.0", "MIT"]


def test_what_is_overwritten_must_be_named(exported: Path, put: Callable[..., ModelSidecar]) -> None:
    with pytest.raises(UsageError, match="--overwrite needs --version"):
        put(exported, overwrite=True)


def test_another_model_does_not_take_the_version(exported: Path, root: Path, put: Callable[..., ModelSidecar]) -> None:
    put(exported)
    before = sha256_file(root / "registry.json")
    with pytest.raises(ModelError, match="has another model 'm' of version '1'.*--overwrite"):
        put(exported, license="MIT", version="1")
    assert sha256_file(root / "registry.json") == before
    assert put(exported, license="MIT", version="1", overwrite=True).license == "MIT"
    assert ModelRegistry(root).find("m")[0].license == "MIT"
    assert put(exported, name="n").name == "n"
    assert sorted(ModelRegistry(root).models()) == ["m", "n"]
    assert not [name for name in files(root) if "staging" in name or "replaced" in name]


def test_a_damaged_model_is_mended_by_registering_it_again(
    exported: Path, root: Path, put: Callable[..., ModelSidecar]
) -> None:
    put(exported)
    (root / "m" / "1" / "model.onnx").write_bytes(b"damaged")
    put(exported)
    Scorer("m", registry=root)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_full_disk_at_the_last_write_leaves_the_registry_as_it_was(
    exported: Path,
    root: Path,
    put: Callable[..., ModelSidecar],
    monkeypatch: pytest.MonkeyPatch,
    overwrite: bool,
) -> None:
    if overwrite:
        put(exported)
    before = {name: sha256_file(root / name) for name in files(root)}

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(publish.ModelRegistry, "put", full)
    with pytest.raises(OSError, match="No space"):
        put(exported, license="MIT", version="1", overwrite=overwrite)
    after = {name: sha256_file(root / name) for name in files(root) if name != ".registry.lock"}
    assert after == {name: digest for name, digest in before.items() if name != ".registry.lock"}
    if overwrite:
        Scorer("m", registry=root)


def test_what_a_crash_left_behind_is_replaced(exported: Path, root: Path, put: Callable[..., ModelSidecar]) -> None:
    (root / "m" / "1").mkdir(parents=True)
    (root / "m" / "1" / "model.onnx").write_bytes(b"half")
    put(exported)
    Scorer("m", registry=root)


def test_a_foreign_folder_in_the_way_is_left_alone(
    exported: Path, root: Path, put: Callable[..., ModelSidecar]
) -> None:
    (root / "m" / "1").mkdir(parents=True)
    (root / "m" / "1" / "thesis.tex").write_text("precious")
    with pytest.raises(ModelError, match=r"holds 'thesis\.tex'"):
        put(exported)
    assert (root / "m" / "1" / "thesis.tex").read_text() == "precious"


def test_random_weights_are_refused(tiny: ModuleType, root: Path, put: Callable[..., ModelSidecar]) -> None:
    with pytest.raises(ModelError, match="descends from random weights of look, motion"):
        put(tiny.export_tiny(root / "r.onnx", random=True))
    with pytest.raises(ModelError, match="descends from random weights"):
        put(tiny.export_tiny(root / "s.onnx", descends_from_random_weights=True))
    assert not (root / "registry.json").exists()


def test_random_weights_that_the_flag_denies_are_refused(
    tiny: ModuleType, root: Path, put: Callable[..., ModelSidecar]
) -> None:
    with pytest.raises(ModelError, match="descends from random weights of look"):
        put(tiny.export_tiny(root / "r.onnx", random=True, descends_from_random_weights=False))


def test_a_changed_graph_is_refused(exported: Path, put: Callable[..., ModelSidecar]) -> None:
    data = bytearray(exported.read_bytes())
    data[len(data) // 2] ^= 1
    exported.write_bytes(data)
    with pytest.raises(ModelError, match="expected"):
        put(exported)


def test_golden_rows_are_replayed(exported: Path, put: Callable[..., ModelSidecar]) -> None:
    sidecar = exported.with_suffix(".json")
    golden = read_sidecar(sidecar).golden_rows
    scores = np.asarray(golden.scores)
    scores[2, 1] += 1e-3
    edit(sidecar, golden_rows=golden.model_copy(update={"scores": scores.tolist()}))
    with pytest.raises(ModelError, match="fails on golden rows"):
        put(exported)
    edit(sidecar, golden_rows=golden.model_copy(update={"scores": [], "inputs": {}}))
    with pytest.raises(ModelError, match="no golden rows"):
        put(exported)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: g.update(outputs={**g["outputs"], "spread": [[0.5, 0.5]] * 6}), "fails on golden rows.*in spread"),
        (lambda g: g.update(outputs={**g["outputs"], "low": [[None, None]] * 6}), "NaN or infinite: low"),
        (lambda g: g.update(outputs={k: v for k, v in g["outputs"].items() if k != "low"}), "golden rows of"),
        (lambda g: g["inputs"].update(look=[[0.1] * 4] * 6), "golden rows that do not fit its inputs"),
    ],
)
def test_golden_rows_of_every_output_are_replayed(
    tiny: ModuleType, root: Path, put: Callable[..., ModelSidecar], change: Callable[[dict], None], message: str
) -> None:
    exported = tiny.export_tiny(root / "m.onnx", ensemble=True)
    sidecar = exported.with_suffix(".json")
    golden = read_sidecar(sidecar).golden_rows.model_dump()
    change(golden)
    edit(sidecar, golden_rows=GoldenRows(**golden))
    with pytest.raises(ModelError, match=message):
        put(exported)


def test_a_graph_whose_interval_has_another_width_than_the_sidecar_says_is_refused(
    tiny: ModuleType, root: Path, put: Callable[..., ModelSidecar], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Metadata and golden rows that agree with each other do not help: the rows are as wide as the graph makes them."""
    honest = tiny.make_ensemble

    def wide(*, text: bool) -> torch.nn.Module:
        graph = honest(text=text)
        graph.half_width[0] = 0.8
        return graph

    monkeypatch.setattr(tiny, "make_ensemble", wide)
    with pytest.raises(ModelError, match=r"fails on golden rows: .* differ by 0\.05 .* in low"):
        put(tiny.export_tiny(root / "m.onnx", ensemble=True))


def test_an_ensemble_is_registered_with_all_that_its_sidecar_says(
    tiny: ModuleType, root: Path, put: Callable[..., ModelSidecar]
) -> None:
    put(tiny.export_tiny(root / "m.onnx", ensemble=True))
    sidecar, _ = ModelRegistry(root).find("m")
    assert sidecar.output_names == ["scores", "spread", "low", "high"]
    assert sidecar.calibration == tiny.CALIBRATION
    card = (root / "m" / "1" / "README.md").read_text()
    for text in ("weighted mean of 3 heads", "hold 90% of new labels", "| `overall` | 0.75 | 40 | 0.900 of 40 |"):
        assert text in card
    assert "| `temporal` | none | 3 |  | 3 residuals are too few |" in card


def test_a_model_of_imported_features_is_not_registered(
    tiny: ModuleType, exported: Path, put: Callable[..., ModelSidecar]
) -> None:
    first, second = read_sidecar(exported.with_suffix(".json")).inputs
    spec = FeatureSpec.from_json({**first.spec, "preprocessing": {"imported": {"file": "f.csv"}}})
    item = first.model_copy(update={"spec": spec.to_json(), "fingerprint": spec.fingerprint})
    edit(exported.with_suffix(".json"), inputs=[item, second])
    with pytest.raises(UsageError, match=r"takes imported features \(look\)"):
        put(exported)


def test_a_backbone_with_another_fingerprint_is_refused(
    tiny: ModuleType, exported: Path, put: Callable[..., ModelSidecar], monkeypatch: pytest.MonkeyPatch
) -> None:
    init = tiny.TinyBackbone.__init__

    def newer(self: Any, options: object = None) -> None:
        init(self)
        self.spec = type(self.spec).from_json({**self.spec.to_json(), "definition": 2})

    monkeypatch.setattr(tiny.TinyBackbone, "__init__", newer)
    with pytest.raises(ModelError, match="was fitted on .*they differ in: definition"):
        put(exported)


def test_a_backbone_under_another_licence_is_refused(
    tiny: ModuleType, exported: Path, put: Callable[..., ModelSidecar], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny.TinyBackbone, "license", "CC-BY-NC-4.0")
    with pytest.raises(ModelError, match="under 'CC-BY-NC-4.0', model input 'look' says 'MIT'"):
        put(exported)


def test_a_backbone_whose_graph_computes_something_else_is_refused(
    tiny: ModuleType, exported: Path, root: Path, put: Callable[..., ModelSidecar], monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = tiny.TinyBackbone.forward

    def drifting(self: Any, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        pooled, motion = forward(self, frames)
        # The size is a number to the tracer: right for the example, wrong for every other size.
        return pooled * (1 + int(frames.shape[1]) / 1000), motion

    monkeypatch.setattr(tiny.TinyBackbone, "forward", drifting)
    with pytest.raises(ModelError, match=r"parity of 'tiny\.pooled' fails on probe rows"):
        put(exported)
    assert files(root) == ["m.json", "m.onnx"]


def test_a_backbone_that_prepares_outside_its_graph_is_refused(
    tiny: ModuleType, exported: Path, put: Callable[..., ModelSidecar], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny.TinyBackbone, "prepare", lambda _, clip: torch.from_numpy(clip.frames // 2))
    with pytest.raises(ModelError, match="prepares frames outside its graph"):
        put(exported)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": "other"}, "fitted on dataset name 'ladder', got 'other'"),
        ({"train_commit": "HEAD"}, "not a git commit"),
        ({"name": "../m"}, "not a name"),
        ({"license": " "}, "--license is empty"),
    ],
)
def test_arguments_that_cannot_be_right_are_usage_errors(
    exported: Path, root: Path, put: Callable[..., ModelSidecar], changes: dict[str, str], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        put(exported, **changes)
    assert files(root) == ["m.json", "m.onnx"]


def test_a_manifest_file_must_be_the_one_of_the_run(
    tiny: ModuleType, root: Path, put: Callable[..., ModelSidecar], tmp_path: Path
) -> None:
    manifest = tmp_path / "ladder.yaml"
    manifest.write_text("name: ladder\nversion: '1'\n")
    dataset = {"name": "ladder", "version": "1", "manifest_sha256": sha256_file(manifest)}
    exported = tiny.export_tiny(root / "m.onnx", dataset=dataset)
    assert put(exported, dataset=str(manifest)).dataset is not None
    manifest.write_text("name: ladder\nversion: '1'\n# changed\n")
    with pytest.raises(UsageError, match="fitted on dataset manifest_sha256"):
        put(exported, dataset=str(manifest))


def evaluation(exported: Path, **changes: Any) -> dict[str, Any]:
    estimate = {"value": 0.81234, "low": 0.7, "high": 0.9, "resamples": 1000}
    result = {
        "target": "overall", "dataset": "ladder", "n": 40, "coverage": 1.0, "notes": ["labels are few"],
        "metrics": {"srocc": estimate, "plcc": {"value": None, "low": None, "high": None}},
    }  # fmt: skip
    report = {"schema": "vqa-train/eval/1", "model_sha256": sha256_file(exported), "split": "test", "results": [result]}
    return {**report, **changes}


@pytest.mark.usefixtures("broken_documents")
def test_metrics_of_this_model_go_into_sidecar_and_card(
    exported: Path, root: Path, put: Callable[..., ModelSidecar], tmp_path: Path
) -> None:
    (tmp_path / "eval.json").write_text(json.dumps(evaluation(exported)))
    assert put(exported, metrics=tmp_path / "eval.json").metrics == evaluation(exported)
    card = (root / "m" / "1" / "README.md").read_text()
    for text in ("0.812 [0.700, 0.900]", "undefined", "labels are few", "split `test`"):
        assert text in card
    assert "nothing is claimed" not in card


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"model_sha256": "b" * 64}, "are of a model with sha256 bbbb"), ({"schema": "other/1"}, "has schema 'other/1'")],
)
def test_metrics_of_something_else_are_refused(
    exported: Path, put: Callable[..., ModelSidecar], tmp_path: Path, changes: dict[str, str], message: str
) -> None:
    (tmp_path / "eval.json").write_text(json.dumps(evaluation(exported, **changes)))
    with pytest.raises(UsageError, match=message):
        put(exported, metrics=tmp_path / "eval.json")


def test_a_registered_file_is_not_registered_again(
    exported: Path, root: Path, put: Callable[..., ModelSidecar]
) -> None:
    put(exported)
    with pytest.raises(UsageError, match="is a registered model"):
        put(root / "m" / "1" / "model.onnx", name="n")
