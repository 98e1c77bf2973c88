"""check compat: a whole model passes; of a broken one every difference is listed, not the first alone."""

from __future__ import annotations

import fnmatch
import importlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from vqa_train import backbones
from vqa_train.cli.main import app
from vqa_train.core.errors import ModelError, UsageError
from vqa_train.core.hashing import sha256_file
from vqa_train.core.types import FeatureSpec
from vqa_train.onnx.interface import read_interface
from vqa_train.onnx.runtime import OnnxModel
from vqa_train.onnx.support import highest_ir_version, highest_opset
from vqa_train.pipelines.gates.compat import CompatLimits, check_compat
from vqa_train.pipelines.gates.result import Check, GateReport
from vqa_train.pipelines.models.register import RegisterConfig, register
from vqa_train.registry.sidecar import ModelSidecar, read_sidecar, sidecar_path, write_sidecar
from vqa_train.store.store import FeatureRow, FeatureStore

TESTS = Path(__file__).parents[2]
FACTS = {"num_frames": 9, "fps": 25.0, "width": 8, "height": 8, "duration_s": 0.36, "codec": "h264", "decoder": "none"}


@pytest.fixture(scope="module")
def tiny() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(TESTS / "registry")
        patch.syspath_prepend(TESTS / "backbones")
        module = importlib.import_module("tiny_model")
        patch.setattr(backbones.BACKBONES, "_builtin", module.BUILTIN)
        patch.setattr(backbones.TEXT_ENCODERS, "_builtin", module.BUILTIN_TEXT)
        yield module


@pytest.fixture(scope="module")
def registered(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with one ensemble of video and text; beside it what was exported."""
    root = tmp_path_factory.mktemp("compat")
    tiny.text_folder(root / "text")
    exported = tiny.export_tiny(root / "m.onnx", text=True, ensemble=True)
    register(
        RegisterConfig(
            model=exported, registry=root / "reg", kind="nr", dataset="ladder", license="MIT", train_commit=tiny.COMMIT
        )
    )
    return root


@pytest.fixture
def root(registered: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    shutil.copytree(registered, tmp_path / "copy")
    return tmp_path / "copy"


def by_name(report: GateReport) -> dict[str, Check]:
    return {check.name: check for check in report.checks}


def failed(report: GateReport) -> set[str]:
    return {check.name for check in report.checks if check.verdict == "fail"}


def of_registry(root: Path, limits: CompatLimits | None = None, **options: Any) -> GateReport:
    return check_compat("m", limits, registry=root / "reg", **options)


def of_export(root: Path, limits: CompatLimits | None = None, **options: Any) -> GateReport:
    return check_compat(str(root / "m.onnx"), limits, **options)


def edit(root: Path, **changes: Any) -> None:
    """Change the exported sidecar."""
    path = sidecar_path(root / "m.onnx")
    write_sidecar(path, ModelSidecar.model_validate({**read_sidecar(path).to_json(), **changes}))


def edit_graph(root: Path, change: Callable[[onnx.ModelProto], None], *, hash_too: bool = True) -> None:
    """Change the exported graph, and as a liar would its hash in the sidecar."""
    path = root / "m.onnx"
    model = onnx.load(path)
    change(model)
    path.write_bytes(model.SerializeToString(deterministic=True))
    if hash_too:
        kept = read_sidecar(sidecar_path(path)).onnx.model_dump()
        edit(root, onnx={**kept, "sha256": sha256_file(path), "bytes": path.stat().st_size})


def set_metadata(model: onnx.ModelProto, key: str, value: Any) -> None:
    (entry,) = [entry for entry in model.metadata_props if entry.key == key]
    entry.value = value if isinstance(value, str) else json.dumps(value)


def test_a_whole_model_passes_registered_and_exported(registered: Path) -> None:
    report = of_registry(registered)
    assert report.verdict == "pass", [check for check in report.checks if check.verdict != "pass"]
    assert {
        "sidecar.sha256", "card.sha256", "head.sha256", "head.targets", "head.fingerprints", "head.intervals",
        "head.loads", "golden.replay", "tokenizer.prompt.sha256", "spec.look.fingerprint",
    } <= by_name(report).keys()  # fmt: skip
    assert sum(name.startswith("backbone.") and name.endswith(".loads") for name in by_name(report)) == 2
    assert of_export(registered).verdict == "pass"
    assert report.model == "m:1"


def test_swapped_targets_are_told_from_the_graphs_metadata(root: Path) -> None:
    sidecar = read_sidecar(root / "m.json")
    edit(root, targets=sidecar.targets[::-1])
    assert failed(of_export(root)) == {"head.targets", "golden.replay"}
    # The other way about: the graph's metadata, and golden rows that agree with it.
    edit(root, targets=sidecar.targets)
    edit_graph(root, lambda model: set_metadata(model, "vqa_train.targets", sidecar.targets[::-1]))
    report = of_export(root)
    assert failed(report) == {"head.targets"}
    assert by_name(report)["head.targets"].value == '["temporal", "overall"]'
    assert by_name(report)["head.targets"].limit == '["overall", "temporal"]'


def test_every_difference_of_one_input_is_listed(root: Path) -> None:
    sidecar = read_sidecar(root / "m.json").to_json()
    sidecar["inputs"][0] |= {"dim": 4, "modality": "text", "backbone": "other"}
    edit(root, inputs=sidecar["inputs"])
    assert failed(of_export(root)) == {
        "spec.look.dims", "spec.look.modality", "spec.look.backbone", "head.dims.look", "golden.inputs",
        "golden.replay",
    }  # fmt: skip


def test_names_and_order_of_inputs(root: Path) -> None:
    inputs = read_sidecar(root / "m.json").to_json()["inputs"]
    edit(root, inputs=[inputs[1], inputs[0], inputs[2]])
    assert failed(of_export(root)) == {"head.order"}
    inputs[0]["name"] = "looks"
    edit(root, inputs=inputs)
    assert {"head.inputs", "head.order", "head.fingerprints", "golden.inputs"} <= failed(of_export(root))


def test_a_fingerprint_of_another_definition(root: Path, tiny: ModuleType, tmp_path: Path) -> None:
    kept = tiny.TinyBackbone().spec
    other = FeatureSpec(**{**{n: getattr(kept, n) for n in kept.__dataclass_fields__}, "definition": 2})
    inputs = read_sidecar(root / "m.json").to_json()["inputs"]
    for item in inputs[:2]:
        item |= {"spec": other.to_json(), "fingerprint": other.fingerprint}
    store = write_store(tmp_path / "s", tiny)
    edit(root, inputs=inputs)
    report = of_export(root, features=store)
    assert failed(report) == {"head.fingerprints", "store.look.set", "store.motion.set"}
    assert f"has no tiny@{other.fingerprint[:12]}, it has tiny-text@" in by_name(report)["store.look.set"].message
    # A fingerprint that is not its own spec's.
    inputs[0]["fingerprint"] = "0" * 64
    edit(root, inputs=inputs)
    assert "spec.look.fingerprint" in failed(of_export(root))


def write_store(root: Path, tiny: ModuleType, *, text: bool = True, rows: int = 2) -> Path:
    store = FeatureStore(root)
    store.create()
    rng = np.random.default_rng(0)
    for extractor in {id(e): e for e, _ in tiny.backbones(text=text).values()}.values():
        spec = extractor.spec
        found = store.create_set(spec, license="MIT")
        views = spec.sampling.views if spec.sampling else 1
        for i in range(rows):
            outputs = {o.name: rng.normal(size=o.shape).astype(np.float32) for o in spec.outputs}
            facts = FACTS if spec.modality == "video" else {}
            found.append(
                [FeatureRow(key=f"{i:064x}", view=view, outputs=outputs, facts=facts) for view in range(views)],
                profile={}, run_id="made",
            )  # fmt: skip
    return root


def test_the_store_must_have_every_feature_with_rows(registered: Path, tiny: ModuleType, tmp_path: Path) -> None:
    assert of_registry(registered, features=write_store(tmp_path / "a", tiny)).verdict == "pass"
    report = of_registry(registered, features=write_store(tmp_path / "b", tiny, text=False))
    assert failed(report) == {"store.prompt.set"}
    report = of_registry(registered, features=write_store(tmp_path / "c", tiny, rows=0))
    assert failed(report) == {f"store.{name}.rows" for name in ("look", "motion", "prompt")}


def test_a_graph_of_another_run_under_the_sidecar(root: Path) -> None:
    def refit(model: onnx.ModelProto) -> None:
        for tensor in model.graph.initializer:
            values = onnx.numpy_helper.to_array(tensor)
            if values.dtype == np.float32 and values.size > 8:
                tensor.CopyFrom(onnx.numpy_helper.from_array(values * np.float32(0.9), tensor.name))

    edit_graph(root, refit, hash_too=False)
    report = of_export(root)
    assert failed(report) == {"head.sha256"}
    assert by_name(report)["head.loads"].verdict == by_name(report)["golden.replay"].verdict == "not_run"
    edit_graph(root, lambda model: None)
    assert failed(of_export(root)) == {"golden.replay"}


@pytest.mark.parametrize(
    ("pattern", "check"),
    [
        ("model.onnx", "head.sha256"),
        ("backbones/tiny@*.onnx", "backbone.tiny@*.sha256"),
        ("backbones/tiny-text@*.onnx", "backbone.tiny-text@*.sha256"),
        ("tokenizers/*.json", "tokenizer.prompt.sha256"),
        ("README.md", "card.sha256"),
        ("model.json", "sidecar.sha256"),
    ],
)
def test_one_flipped_byte_is_named(root: Path, pattern: str, check: str) -> None:
    (path,) = (root / "reg" / "m" / "1").glob(pattern)
    data = bytearray(path.read_bytes())
    at = data.rindex(b"}") if path.suffix == ".json" else len(data) * 3 // 4
    data[at] ^= 1
    path.write_bytes(data)
    found = failed(of_registry(root))
    star = fnmatch.filter(found, check)
    assert len(star) == 1, found


def test_a_missing_file_is_a_difference_like_any_other(root: Path) -> None:
    folder = root / "reg" / "m" / "1"
    for pattern in ("model.onnx", "backbones/tiny@*.onnx", "README.md"):
        (path,) = folder.glob(pattern)
        path.unlink()
    found = failed(of_registry(root))
    assert len([name for name in found if name.endswith(".sha256")]) == 3


def test_versions_against_limits_and_against_onnxruntime(root: Path) -> None:
    report = of_registry(root, CompatLimits(max_opset=16, max_ir_version=7))
    graphs = [name.removesuffix(".opset.limit") for name in by_name(report) if name.endswith(".opset.limit")]
    assert len(graphs) == 3
    assert failed(report) == {f"{graph}.{what}.limit" for graph in graphs for what in ("opset", "ir_version")}

    def newer(model: onnx.ModelProto) -> None:
        model.opset_import[0].version = highest_opset() + 1
        model.ir_version = highest_ir_version() + 1

    edit_graph(root, newer)
    found = failed(of_export(root))
    assert {"head.opset", "head.opset.supported", "head.ir_version.supported", "head.loads"} <= found


def test_the_interface_is_onnxruntimes(registered: Path) -> None:
    for path in registered.rglob("*.onnx"):
        ours, theirs = read_interface(path, path.read_bytes()), OnnxModel(path)
        assert list(ours.inputs.values()) == list(theirs.inputs.values())
        for one, other in zip(ours.outputs.values(), theirs.outputs.values(), strict=True):
            assert (one.name, one.dtype) == (other.name, other.dtype)
            # onnxruntime works out sizes that the file leaves open.
            assert all(a == b or isinstance(a, str) for a, b in zip(one.shape, other.shape, strict=True))
        assert (ours.opset, ours.metadata) == (theirs.opset, theirs.metadata)


def test_dtypes_and_a_fixed_number_of_rows(root: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
        model.graph.input[1].type.tensor_type.shape.dim[0].dim_value = 3

    edit_graph(root, change)
    report = of_export(root)
    assert {"head.dtypes", "head.batch"} <= failed(report)
    assert by_name(report)["head.dtypes"].value == '["look float64"]'
    assert by_name(report)["head.batch"].value == '["motion"]'


def test_outputs_intervals_and_widths(root: Path) -> None:
    edit_graph(root, lambda model: set_metadata(model, "vqa_train.interval", "no json"))
    assert "head.intervals" in failed(of_export(root))
    sidecar = read_sidecar(root / "m.json").to_json()
    targets = [*sidecar["targets"], "third"]
    ranges = {name: {**sidecar[name], "third": [1, 5]} for name in ("mos_range", "expected_output_range")}
    edit(root, targets=targets, calibration=None, output_names=["scores", "spread"], **ranges)
    found = failed(of_export(root))
    assert {"head.outputs", "head.width.scores", "head.width.low", "head.targets", "golden.outputs"} <= found


def test_a_graph_that_says_nothing_of_its_targets_is_not_run(root: Path) -> None:
    def forget(model: onnx.ModelProto) -> None:
        kept = [entry for entry in model.metadata_props if entry.key != "vqa_train.targets"]
        del model.metadata_props[:]
        model.metadata_props.extend(kept)

    edit_graph(root, forget)
    report = of_export(root)
    assert report.verdict == "not_run"
    assert by_name(report)["head.targets"].verdict == "not_run"


def test_random_weights_among_the_ancestors(tiny: ModuleType, tmp_path: Path) -> None:
    tiny.export_tiny(tmp_path / "m.onnx", random=True)
    assert failed(of_export(tmp_path)) == {"random_weights"}
    edit(tmp_path, descends_from_random_weights=False)
    assert failed(of_export(tmp_path)) == {"random_weights"}


def test_statistics_of_other_inputs(root: Path) -> None:
    zeros = {name: [0.0] * 3 for name in ("mean", "std", "low", "high")}
    edit(root, training_statistics={"rows": 3, "groups": 3, "inputs": {"look": {"rows": 3, **zeros}}, "scores": {}})
    assert failed(of_export(root)) == {"training_statistics.inputs", "training_statistics.targets"}


def test_a_required_signature(root: Path) -> None:
    pytest.importorskip("cryptography", reason="cryptography is not installed")
    from vqa_train.registry.signature import SecretKey, sign

    secret, other = SecretKey.generate(), SecretKey.generate()
    sidecar = root / "reg" / "m" / "1" / "model.json"
    limits = CompatLimits(require_signature=(secret.public.text,))
    assert failed(of_registry(root, limits)) == {"signature"}
    sign(sidecar, secret, "released")
    assert of_registry(root, limits).verdict == "pass"
    assert failed(of_registry(root, CompatLimits(require_signature=(other.public.text,)))) == {"signature"}


def test_a_sidecar_that_cannot_be_read_leaves_the_rest_not_run(root: Path) -> None:
    (root / "reg" / "m" / "1" / "model.json").write_text("{", encoding="utf-8")
    report = of_registry(root)
    assert failed(report) == {"sidecar.sha256", "sidecar.schema"}
    assert by_name(report)["model"].verdict == "not_run"


def test_no_such_model_is_an_error(root: Path) -> None:
    with pytest.raises(ModelError, match="has no model 'n'"):
        check_compat("n", registry=root / "reg")
    with pytest.raises(ModelError, match="does not exist"):
        check_compat(str(root / "n.onnx"))
    with pytest.raises(UsageError, match="names no model"):
        check_compat("m:", registry=root / "reg")


def test_the_command(root: Path, tmp_path: Path) -> None:
    def invoke(*arguments: object) -> Any:
        return CliRunner().invoke(app, ["check", "compat", *map(str, arguments)], catch_exceptions=False)

    result = invoke("m", "--registry", root / "reg", "--json", tmp_path / "r.json")
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))["verdict"] == "pass"
    gates = tmp_path / "gates.yaml"
    gates.write_text("schema: vqa-train/gates/1\ncompat: {max_opset: 16}\n", encoding="utf-8")
    result = invoke("m", "--registry", root / "reg", "--gates", gates)
    assert result.exit_code == 3
    assert result.stdout.splitlines()[-1] == "compat: FAIL"
    assert invoke("m", "--registry", root / "reg", "--gates", gates, "--max-opset", 17).exit_code == 0


def test_a_backbone_of_another_input(root: Path, tiny: ModuleType) -> None:
    """The files are intact, and the sidecar names the wrong ones."""
    sidecar = read_sidecar(root / "reg" / "m" / "1" / "model.json").to_json()
    inputs = sidecar["inputs"]
    inputs[2]["backbone_onnx"], inputs[0]["backbone_onnx"] = inputs[0]["backbone_onnx"], inputs[2]["backbone_onnx"]
    write_sidecar(root / "reg" / "m" / "1" / "model.json", ModelSidecar.model_validate(sidecar))
    found = failed(of_registry(root))
    chosen = tiny.backbones(text=True)
    video, text = (
        f"backbone.{spec.backbone}@{spec.fingerprint[:12]}" for spec in (chosen[i][0].spec for i in ("look", "prompt"))
    )
    assert {f"{video}.fingerprint", f"{text}.fingerprint", f"{video}.output.motion", video} <= found
