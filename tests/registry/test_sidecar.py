"""One sidecar schema: complete when registered, honest about its inputs, refused when it contradicts itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from vqa_train.core.errors import ConfigError, ModelError
from vqa_train.core.provenance import RunProvenance
from vqa_train.core.types import FeatureSpec, OutputSpec, Sampling
from vqa_train.registry.card import render_card
from vqa_train.registry.sidecar import ModelSidecar, read_sidecar, sidecar_path, write_sidecar

SPEC = FeatureSpec(
    backbone="nss",
    definition=1,
    modality="video",
    outputs=(OutputSpec(name="pooled", shape=(3,)),),
    sampling=Sampling(mode="uniform", n=2),
)
PARITY = {
    "tolerance": 1e-5, "opset": 17, "providers": ["CPUExecutionProvider"],
    "sets": [{"name": "real", "rows": 3, "max_abs_diff": 1e-7, "max_scaled_diff": 1e-7, "output": "scores"}],
}  # fmt: skip
PROVENANCE = RunProvenance("fit", {}).to_json()
BACKBONE = {"file": "backbones/n.onnx", "sha256": "b" * 64, "bytes": 9, "cached": False, "inputs": {"frames": [2, "h"]}}
REGISTERED = {"registered": True, "kind": "nr", "dataset": {"name": "d"}, "train_commit": "0123abc", "license": "MIT"}


def value(**changes: Any) -> dict[str, Any]:
    base = {
        "name": "m",
        "onnx": {"file": "m.onnx", "sha256": "a" * 64, "bytes": 10, "opset": 17},
        "inputs": [
            {
                "name": "nss", "modality": "video", "backbone": "nss", "fingerprint": SPEC.fingerprint,
                "output": "pooled", "dim": 3, "spec": SPEC.to_json(), "license": "Apache-2.0",
            }
        ],
        "targets": ["overall"],
        "input_normalization": "inside the graph",
        "expected_output_range": {"overall": [1.5, 4.5]},
        "direction": "higher_is_better",
        "mos_range": {"overall": [1, 5]},
        "train_config_hash": "c" * 64,
        "inherited_licenses": {"dataset d": "CC0-1.0"},
        "descends_from_random_weights": False,
        "parity": PARITY,
        "golden_rows": {"inputs": {"nss": [[0.1, 0.2, 0.3]]}, "scores": [[3.0]]},
        "run_provenance": PROVENANCE,
    }  # fmt: skip
    return {**base, **changes}


def registered(**changes: Any) -> dict[str, Any]:
    inputs = [{**value()["inputs"][0], "backbone_onnx": BACKBONE}]
    return value(**{**REGISTERED, "inputs": inputs, **changes})


def test_a_file_reads_back_as_it_was_written(tmp_path: Path) -> None:
    sidecar = ModelSidecar(**registered())
    path = sidecar_path(tmp_path / "m.onnx")
    write_sidecar(path, sidecar)
    assert path.name == "m.json"
    assert read_sidecar(path) == sidecar
    assert json.loads(path.read_text())["schema_version"] == "vqa-train/model/1"


@pytest.mark.parametrize("lacking", ["kind", "dataset", "train_commit", "license"])
def test_a_registered_model_lacks_nothing(lacking: str) -> None:
    with pytest.raises(ValidationError, match=f"a registered model lacks {lacking}"):
        ModelSidecar(**registered(**{lacking: None}))


def test_a_registered_input_has_its_backbone_and_a_text_its_tokenizer() -> None:
    with pytest.raises(ValidationError, match=r"lacks inputs\.nss\.backbone_onnx"):
        ModelSidecar(**registered(inputs=value()["inputs"]))
    text = {**value()["inputs"][0], "modality": "text", "backbone_onnx": BACKBONE}
    with pytest.raises(ValidationError, match=r"lacks inputs\.nss\.tokenizer"):
        ModelSidecar(**registered(inputs=[text]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"targets": ["overall", "overall"]}, "duplicate"),
        ({"mos_range": {"quality": [1, 5]}}, "mos_range has"),
        ({"expected_output_range": {}}, "expected_output_range has"),
        ({"inputs": []}, "at least 1"),
        ({"name": "../up"}, "name"),
        ({"direction": "up"}, "direction"),
        ({"train_commit": "main"}, "train_commit"),
        ({"train_config_hash": "abc"}, "train_config_hash"),
    ],
)
def test_contradictions_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ModelSidecar(**value(**changes))


@pytest.mark.parametrize(("file", "cached"), [(None, False), ("b.onnx", True)])
def test_a_backbone_is_in_the_folder_or_in_the_cache(file: str | None, cached: bool) -> None:
    inputs = [{**value()["inputs"][0], "backbone_onnx": {**BACKBONE, "file": file, "cached": cached}}]
    with pytest.raises(ValidationError, match="a file or is cached"):
        ModelSidecar(**value(inputs=inputs))


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"fingerprint": "0" * 64}, "fingerprint"),
        ({"backbone": "other"}, "backbone"),
        ({"modality": "text"}, "modality"),
        ({"dim": 4}, "dim"),
    ],
)
def test_an_input_that_differs_from_its_spec_is_refused(changes: dict[str, Any], what: str) -> None:
    sidecar = ModelSidecar(**value(inputs=[{**value()["inputs"][0], **changes}]))
    with pytest.raises(ModelError, match=f"input 'nss' claims {what}"):
        sidecar.inputs[0].feature_spec()


def test_an_honest_input_gives_its_spec() -> None:
    assert ModelSidecar(**value()).inputs[0].feature_spec() == SPEC


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda v: v.update(schema_version="vqa-train/model/9"), ModelError, "schema 'vqa-train/model/9'"),
        (lambda v: v.update(taget=1), ConfigError, "unknown key 'taget'.*did you mean 'targets'"),
        (lambda v: v.pop("targets"), ConfigError, "targets"),
    ],
)
def test_a_file_of_another_shape_is_refused_in_one_line(
    tmp_path: Path, change: Callable[[dict], object], error: type[Exception], message: str
) -> None:
    content = {"schema_version": "vqa-train/model/1", **value()}
    change(content)
    (tmp_path / "m.json").write_text(json.dumps(content))
    with pytest.raises(error, match=message) as caught:
        read_sidecar(tmp_path / "m.json")
    assert "\n" not in str(caught.value)


def test_a_missing_sidecar_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"m\.json' does not exist"):
        read_sidecar(tmp_path / "m.json")


def test_identity_ignores_when_and_where_it_was_made() -> None:
    one, two = (ModelSidecar(**registered(run_provenance={"run_id": i})) for i in "12")
    assert one.identity() == two.identity()
    assert ModelSidecar(**registered(license="X")).identity() != one.identity()


INTERVAL = {"half_width": 0.5, "n": 30, "coverage": 0.93, "coverage_n": 30, "note": None}
CALIBRATION = {"level": 0.9, "method": "cross", "targets": {"overall": INTERVAL}}
SURE = {"output_names": ["scores", "spread", "low", "high"], "calibration": CALIBRATION}
PROTOCOL = {
    "protocol": {"kind": "repeated"},
    "splits_sha256": "d" * 64,
    "folds": 100,
    "metrics": {
        "overall": {"srocc": {"median": 0.8, "std": 0.02, "n": 100}, "plcc": {"median": 0.9, "std": None, "n": 1}}
    },
    "warnings": ["rows of one scene are on both sides"],
}
MEMBERS = [
    {"name": "mlp", "kind": "mlp", "models": 5, "weight": 0.75},
    {"name": "kernel", "kind": "kernel_ridge", "models": 1, "weight": 0.25},
]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"output_names": ["scores", "low", "high"]}, "calibration has no intervals"),
        ({"calibration": CALIBRATION}, "calibration has intervals"),
        ({"output_names": ["spread", "scores"]}, "output_names must be one of"),
        ({"output_names": ["scores", "low"]}, "output_names must be one of"),
        ({**SURE, "calibration": {**CALIBRATION, "targets": {"other": INTERVAL}}}, "calibration has .*other"),
        ({**SURE, "calibration": {**CALIBRATION, "level": 1}}, "level"),
        (
            {**SURE, "calibration": {**CALIBRATION, "targets": {"overall": {**INTERVAL, "half_width": -1}}}},
            "half_width",
        ),
        ({"output_names": ["scores", "low", "high"], "calibration": {**CALIBRATION, "normalised": True}}, "the spread"),
        ({"optional_inputs": ["text"]}, "no inputs"),
    ],
)
def test_claims_about_certainty_that_contradict_each_other_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ModelSidecar(**value(**changes))


def test_an_interval_without_a_width_needs_no_output() -> None:
    unbounded = {**CALIBRATION, "targets": {"overall": {**INTERVAL, "half_width": None, "note": "too few"}}}
    sidecar = ModelSidecar(**value(calibration=unbounded))
    assert sidecar.calibration is not None
    assert not sidecar.calibration.bounded
    assert "| `overall` | none | 30 |  | too few |" in render_card(sidecar)


@pytest.mark.usefixtures("broken_documents")
def test_a_file_from_before_the_optional_fields_reads_and_is_written_without_them(tmp_path: Path) -> None:
    old = json.loads((Path(__file__).parent / "data" / "model-1.json").read_text())
    sidecar = read_sidecar(Path(__file__).parent / "data" / "model-1.json")
    assert (sidecar.output_names, sidecar.calibration, sidecar.members) == (["scores"], None, None)
    assert sidecar.inputs[0].dims == (3,)
    write_sidecar(tmp_path / "m.json", sidecar)
    assert json.loads((tmp_path / "m.json").read_text()) == old


def test_an_input_with_time_steps_says_its_shape() -> None:
    spec = FeatureSpec.from_json({**SPEC.to_json(), "outputs": [{"name": "steps", "shape": [4, 3]}]})
    item = {**value()["inputs"][0], "fingerprint": spec.fingerprint, "spec": spec.to_json(), "output": "steps"}
    sidecar = ModelSidecar(**value(inputs=[{**item, "shape": [4, 3]}]))
    assert sidecar.inputs[0].dims == (4, 3)
    assert sidecar.inputs[0].feature_spec() == spec
    assert "| 4x3 |" in render_card(sidecar)
    with pytest.raises(ModelError, match=r"claims dim \[3\], its feature spec has \[4, 3\]"):
        ModelSidecar(**value(inputs=[item])).inputs[0].feature_spec()
    with pytest.raises(ValidationError, match="does not end in dim 3"):
        ModelSidecar(**value(inputs=[{**item, "shape": [3, 4]}]))


@pytest.mark.parametrize(
    ("modalities", "optional", "needed"),
    [
        (["video"], None, False),
        (["video", "text"], None, True),
        (["video", "text"], ["video0"], True),
        (["video", "text"], ["text1"], False),
        (["video", "text", "text"], ["text1"], True),
        (["video", "text", "text"], ["text1", "text2"], False),
        (["text"], ["text0"], True),  # nothing would be left
    ],
)
def test_a_prompt_is_needed_unless_every_text_may_be_absent(
    modalities: list[str], optional: list[str] | None, needed: bool
) -> None:
    inputs = [{**value()["inputs"][0], "name": f"{m}{i}", "modality": m} for i, m in enumerate(modalities)]
    assert ModelSidecar(**value(inputs=inputs, optional_inputs=optional)).needs_prompt is needed


def test_the_card_shows_members_results_and_intervals() -> None:
    card = render_card(ModelSidecar(**value(**SURE, members=MEMBERS, protocol=PROTOCOL)))
    for line in (
        "The score is the weighted mean of 6 heads.",
        "| `mlp` | mlp | point | 5 | 0.75 |",
        "by `repeated`: median ± standard deviation over 100 folds",
        "| srocc | 0.800 ± 0.020 |",
        "| plcc | 0.900 |",
        "- rows of one scene are on both sides",
        "is to hold 90% of new labels",
        "| `overall` | 0.5 | 30 | 0.930 of 30 |  |",
    ):
        assert line in card
    assert "has not been evaluated" not in card
    normalised = {**CALIBRATION, "normalised": True}
    assert "0.5 x spread" in render_card(ModelSidecar(**value(**{**SURE, "calibration": normalised})))


def test_the_card_says_on_which_scale_the_scores_of_several_datasets_are() -> None:
    scale = {"kind": "affine", "slope": 1.25, "offset": -0.5, "label_mean": 50.0, "label_std": 12.0}
    card = render_card(
        ModelSidecar(
            **value(dataset={"name": "a"}, datasets=[{"name": "a"}, {"name": "b"}], scales={"b": {"overall": scale}})
        )
    )
    assert "Fitted beside it on `b`; scores are on the scale of `a`." in card
    assert "| `b` | `overall` | affine | 1.250 | -0.500 |" in card


def test_the_card_survives_pipes_and_says_where_a_large_backbone_is() -> None:
    large = {**value()["inputs"][0], "backbone_onnx": {**BACKBONE, "file": None, "cached": True, "bytes": 90_000_000}}
    licenses = {"dataset d": "see | terms"}
    card = render_card(ModelSidecar(**registered(inputs=[large], inherited_licenses=licenses)))
    assert "see \\| terms" in card
    assert f"cache, sha256 `{'b' * 12}`, 90.0 MB" in card
    assert "1.5 to 4.5" in card
