"""A registered model scores without torch what torch computes, and refuses anything that was changed."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import psutil
import pytest

from vqa_train import backbones
from vqa_train.core.errors import ConfigError, MediaError, ModelError, Reason, UsageError, VqaError
from vqa_train.core.hashing import sha256_file
from vqa_train.pipelines.models import register as registering
from vqa_train.pipelines.models.register import RegisterConfig, register
from vqa_train.registry.cache import onnx_cache_path
from vqa_train.scoring import Score, ScoreFailure, Scorer, ScoreRequest

TESTS = Path(__file__).parents[1]
PROMPT = "a red fox jumps over the moon"
BLOCKED = (
    "torch", "transformers", "sentence_transformers", "sklearn", "scipy", "onnx", "safetensors", "decord", "pyarrow",
    "polars",
)  # fmt: skip


@pytest.fixture(scope="module")
def patch() -> pytest.MonkeyPatch:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def tiny(patch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    patch.syspath_prepend(TESTS / "registry")
    patch.syspath_prepend(TESTS / "backbones")
    module = importlib.import_module("tiny_model")
    patch.setattr(backbones.BACKBONES, "_builtin", module.BUILTIN)
    patch.setattr(backbones.TEXT_ENCODERS, "_builtin", module.BUILTIN_TEXT)
    root = tmp_path_factory.mktemp("text")
    patch.setenv("VQA_TRAIN_TEXT_MODELS", str(root))
    module.text_folder(root)
    return module


def config(tiny: ModuleType, model: Path, registry: Path) -> RegisterConfig:
    return RegisterConfig(
        model=model, kind="nr", dataset="ladder", license="Apache-2.0", train_commit=tiny.COMMIT, registry=registry
    )


@pytest.fixture(scope="module")
def pristine(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with `video` (frames only), `prompted` (frames and text), `sure` (an ensemble with an interval for
    one target) and `flexible` (the same with a text that may be absent)."""
    root = tmp_path_factory.mktemp("registry") / "model"
    kinds = {
        "video": {},
        "prompted": {"text": True},
        "sure": {"ensemble": True},
        "flexible": {"ensemble": True, "text": True, "optional_inputs": ["look", "motion", "prompt"]},
    }
    for name, options in kinds.items():
        register(config(tiny, tiny.export_tiny(root / f"{name}.onnx", **options), root))
    return root


@pytest.fixture
def root(pristine: Path, tmp_path: Path) -> Path:
    """A registry that the test may damage."""
    return Path(shutil.copytree(pristine, tmp_path / "model"))


@pytest.fixture
def clip(write_video: Callable[..., Path], tmp_path: Path) -> Path:
    return write_video(tmp_path / "in" / "clip ü.mp4", frames=20, size=(80, 96))


def rewrite_sidecar(root: Path, name: str, edit: Callable[[dict], None]) -> None:
    """Change a sidecar and make the registry's hash of it fit again, as a forger would."""
    path = root / name / "1" / "model.json"
    value = json.loads(path.read_text())
    edit(value)
    path.write_text(json.dumps(value))
    registry = json.loads((root / "registry.json").read_text())
    registry["models"][name]["versions"]["1"]["sidecar_sha256"] = sha256_file(path)
    (root / "registry.json").write_text(json.dumps(registry))


def flip_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_scores_equal_what_torch_computes(tiny: ModuleType, pristine: Path, clip: Path) -> None:
    score = Scorer("video", registry=pristine).score(clip)
    expected = tiny.torch_scores(clip)
    assert score.scores == pytest.approx(expected, abs=1e-4)
    assert len(set(np.round(list(expected.values()), 3))) == 2


def test_scores_with_a_prompt_equal_what_torch_computes(tiny: ModuleType, pristine: Path, clip: Path) -> None:
    scorer = Scorer("prompted", registry=pristine)
    assert scorer.score(clip, PROMPT).scores == pytest.approx(tiny.torch_scores(clip, PROMPT), abs=1e-4)
    other = scorer.score(clip, "a slow dog").scores
    assert other["overall"] != pytest.approx(tiny.torch_scores(clip, PROMPT)["overall"], abs=1e-3)


def test_a_plain_head_states_neither_spread_nor_interval(pristine: Path, clip: Path) -> None:
    score = Scorer("video", registry=pristine).score(clip)
    assert score.spread == score.interval == {"overall": None, "temporal": None}
    assert (score.level, score.missing) == (None, ())


def test_an_ensemble_states_spread_and_interval_as_torch_does(tiny: ModuleType, pristine: Path, clip: Path) -> None:
    score = Scorer("sure", registry=pristine).score(clip)
    expected = tiny.torch_outputs(clip)
    assert score.scores == pytest.approx(expected["scores"], abs=1e-4)
    assert score.spread == pytest.approx(expected["spread"], abs=1e-4)
    assert min(expected["spread"].values()) > 0.005
    overall = expected["scores"]["overall"]
    assert score.interval["overall"] == pytest.approx((overall - 0.75, overall + 0.75), abs=1e-4)
    assert score.interval["temporal"] is None  # too few residuals: unbounded
    assert (score.level, score.missing) == (0.9, ())


def test_a_model_that_survives_without_its_text_scores_without_a_prompt(
    tiny: ModuleType, pristine: Path, clip: Path
) -> None:
    scorer = Scorer("flexible", registry=pristine)
    assert scorer.takes_prompt
    assert not scorer.needs_prompt
    without, given = scorer.score(clip), scorer.score(clip, PROMPT)
    assert without.scores == pytest.approx(tiny.torch_outputs(clip, without_prompt=True)["scores"], abs=1e-4)
    assert given.scores == pytest.approx(tiny.torch_outputs(clip, PROMPT)["scores"], abs=1e-4)
    assert without.scores["overall"] != pytest.approx(given.scores["overall"], abs=1e-3)
    assert (without.missing, without.prompt) == (("prompt",), None)
    assert (given.missing, given.prompt) == ((), PROMPT)
    # Calibrated on whole rows, so nothing is claimed of one that lacks an input.
    assert (without.interval["overall"], without.level) == (None, None)
    assert given.interval["overall"] is not None
    assert without.spread["overall"] is not None


@pytest.mark.parametrize(("model", "prompt"), [("video", None), ("prompted", PROMPT)])
def test_it_scores_where_torch_cannot_be_imported(
    tiny: ModuleType, pristine: Path, clip: Path, model: str, prompt: str | None
) -> None:
    code = (
        "import sys\n"
        f"for name in {BLOCKED!r}: sys.modules[name] = None\n"
        "from pathlib import Path; import json\n"
        "from vqa_train.scoring import Scorer\n"
        f"score = Scorer({model!r}, registry=Path({str(pristine)!r})).score({str(clip)!r}, {prompt!r})\n"
        "late = [m for m in ('rich', 'asyncio', 'upath') if m in sys.modules]\n"
        "print(json.dumps([score.scores, late]))"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    scores, needless = json.loads(done.stdout)
    assert scores == pytest.approx(tiny.torch_scores(clip, prompt), abs=1e-4)
    assert needless == []


def test_a_score_says_its_scale_direction_and_model(pristine: Path, clip: Path) -> None:
    score = Scorer("video", registry=pristine).score(clip, "ignored: the model takes no prompt")
    assert score.video == str(clip)
    assert score.prompt is None
    assert score.mos_range == {"overall": (1.0, 5.0), "temporal": (1.0, 5.0)}
    assert score.expected_range["overall"] == (1.5, 4.5)
    assert score.direction == "higher_is_better"
    assert (score.model, score.model_sha256) == ("video", sha256_file(pristine / "video" / "1" / "model.onnx"))


def test_the_folder_of_a_model_names_it_too(pristine: Path, clip: Path) -> None:
    by_name = Scorer("video", registry=pristine).score(clip)
    assert Scorer(pristine / "video").score(clip) == by_name
    assert Scorer(pristine / "video" / "1").score(clip) == by_name
    assert Scorer("video:1", registry=pristine).score(clip) == by_name
    assert Scorer(str(pristine / "video"), threads=1).score(clip).scores == pytest.approx(by_name.scores, abs=1e-5)


@pytest.mark.parametrize("prompt", [None, "", "  "])
def test_a_prompt_taking_model_without_a_prompt_is_a_usage_error(
    pristine: Path, clip: Path, prompt: str | None
) -> None:
    with pytest.raises(UsageError, match="takes a prompt and got none") as caught:
        Scorer("prompted", registry=pristine).score(clip, prompt)
    assert caught.value.reason == Reason.NO_PROMPT


def test_a_file_that_is_no_video_is_a_media_error(pristine: Path, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("not a video")
    with pytest.raises(MediaError):
        Scorer("video", registry=pristine).score(tmp_path / "text.mp4")


def test_many_are_scored_in_order_and_failures_are_records(pristine: Path, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    scorer = Scorer("prompted", registry=pristine)
    items = [
        ScoreRequest(video=clip, prompt=PROMPT),
        ScoreRequest(video=tmp_path / "empty.mp4", prompt=PROMPT),
        ScoreRequest(video=clip),
        ScoreRequest(video=tmp_path / "missing.mp4", prompt=PROMPT),
        ScoreRequest(video=clip, prompt=PROMPT),
    ]
    results = list(scorer.score_many(items))
    assert [type(result) for result in results] == [Score, ScoreFailure, ScoreFailure, ScoreFailure, Score]
    assert results[0] == results[4]
    reasons = [result.reason for result in results if isinstance(result, ScoreFailure)]
    assert reasons == [Reason.EMPTY_FILE, Reason.NO_PROMPT, Reason.MISSING_FILE]


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("model.onnx", "model.onnx' has sha256 .*, expected"),
        ("model.json", "model.json' of model 'prompted:1' has sha256 .*, the registry says"),
        ("backbones/tiny@*.onnx", r"tiny@\w+\.onnx' has sha256 .*, expected"),
        ("backbones/tiny-text@*.onnx", r"tiny-text@\w+\.onnx' has sha256 .*, expected"),
        ("tokenizers/*.json", r"tokenizer .*tiny-text@\w+\.json' has sha256 .*, expected"),
    ],
)
def test_one_flipped_byte_anywhere_is_refused(root: Path, file: str, message: str) -> None:
    (path,) = (root / "prompted" / "1").glob(file)
    flip_byte(path)
    with pytest.raises(ModelError, match=message):
        Scorer("prompted", registry=root)


@pytest.mark.parametrize("file", ["model.onnx", "model.json", "backbones/tiny@*.onnx", "tokenizers/*.json"])
def test_a_missing_file_is_named(root: Path, file: str) -> None:
    (path,) = (root / "prompted" / "1").glob(file)
    path.unlink()
    with pytest.raises(ModelError, match=rf"{path.name}.*(missing|not exist|No such file)"):
        Scorer("prompted", registry=root)


def test_a_sidecar_with_another_fingerprint_than_its_spec_is_refused(root: Path) -> None:
    rewrite_sidecar(root, "video", lambda value: value["inputs"][0].update(fingerprint="f" * 64))
    with pytest.raises(ModelError, match="input 'look' claims fingerprint 'ffff.*its feature spec has"):
        Scorer("video", registry=root)


def test_a_changed_spec_is_refused(root: Path) -> None:
    rewrite_sidecar(root, "video", lambda value: value["inputs"][0]["spec"]["sampling"].update(n=5))
    with pytest.raises(ModelError, match="input 'look' claims fingerprint"):
        Scorer("video", registry=root)


def test_a_backbone_that_computes_other_features_is_refused(root: Path) -> None:
    def swap(value: dict) -> None:
        video, text = value["inputs"][0], value["inputs"][2]
        video["backbone_onnx"], text["backbone_onnx"] = text["backbone_onnx"], video["backbone_onnx"]

    rewrite_sidecar(root, "prompted", swap)
    with pytest.raises(ModelError, match="computes features .* input 'look' was fitted on"):
        Scorer("prompted", registry=root)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda v: v["inputs"][0].update(name="other"), "says inputs"),
        (lambda v: v["onnx"].update(opset=18), "says opset 18"),
        (lambda v: v["inputs"].pop(), "says inputs"),
        (lambda v: v["inputs"][1].update(output="absent"), "no output 'absent'"),
        (lambda v: v["inputs"][1].update(dim=6), r"input 'motion' claims dim \[6\]"),
        (lambda v: v["inputs"][1].update(dim=5, shape=[2, 5]), r"input 'motion' claims dim \[2, 5\]"),
        (lambda v: v.update(output_names=["scores", "spread"]), r"says outputs \['scores', 'spread'\], .*\['scores'\]"),
    ],
)
def test_a_sidecar_of_another_graph_is_refused(root: Path, edit: Callable[[dict], None], message: str) -> None:
    rewrite_sidecar(root, "video", edit)
    with pytest.raises(VqaError, match=message):
        Scorer("video", registry=root)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda v: v["calibration"].update(level=0.95), r"says intervals .*0\.95.*has .*0\.9,"),
        (lambda v: v["calibration"]["targets"]["overall"].update(half_width=0.1), "says intervals .*0.1.*has .*0.75"),
        (lambda v: v["calibration"]["targets"]["temporal"].update(half_width=0.1), "says intervals .*temporal"),
        (lambda v: v.update(output_names=["scores", "low", "high"]), "says outputs"),
        (lambda v: v.update(output_names=["scores"], calibration=None), "says outputs"),
    ],
)
def test_a_sidecar_that_claims_other_intervals_than_the_graphs_is_refused(
    root: Path, edit: Callable[[dict], None], message: str
) -> None:
    rewrite_sidecar(root, "sure", edit)
    with pytest.raises(ModelError, match=message):
        Scorer("sure", registry=root)


def test_a_spread_that_is_no_number_is_no_score(pristine: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = Scorer("sure", registry=pristine)
    run = scorer._head.run
    monkeypatch.setattr(scorer._head, "run", lambda rows: {**run(rows), "spread": np.full((1, 2), np.nan)})
    with pytest.raises(ModelError, match="gave spread") as caught:
        scorer.score(clip)
    assert caught.value.reason == Reason.NON_FINITE


def test_a_head_with_fewer_scores_than_targets_is_refused(root: Path) -> None:
    def add_target(value: dict) -> None:
        value["targets"].append("third")
        for ranges in (value["mos_range"], value["expected_output_range"]):
            ranges["third"] = [1, 5]

    rewrite_sidecar(root, "video", add_target)
    with pytest.raises(ModelError, match=r"says number of targets 3, the graph .* has 2"):
        Scorer("video", registry=root)


def test_a_backbone_without_the_output_is_refused(root: Path) -> None:
    (path,) = (root / "video" / "1" / "backbones").iterdir()
    graph = onnx.load(path)
    (last,) = (node for node in graph.graph.node if "motion" in node.output)
    last.output[0] = graph.graph.output[1].name = "movement"
    onnx.save(graph, path)

    def update_hash(value: dict) -> None:
        for item in value["inputs"]:
            item["backbone_onnx"]["sha256"] = sha256_file(path)

    rewrite_sidecar(root, "video", update_hash)
    with pytest.raises(ModelError, match=r"input 'motion' gives \['movement', 'pooled'\], not 'motion'"):
        Scorer("video", registry=root)


@pytest.mark.parametrize("path", ["../video.onnx", "/etc/hostname"])
def test_a_path_out_of_the_models_folder_is_refused(root: Path, path: str) -> None:
    rewrite_sidecar(root, "video", lambda value: value["onnx"].update(file=path))
    with pytest.raises(VqaError, match="leaves its root") as caught:
        Scorer("video", registry=root)
    assert caught.value.reason == Reason.PATH_ESCAPE


def test_an_unknown_key_in_the_sidecar_is_refused(root: Path) -> None:
    rewrite_sidecar(root, "video", lambda value: value.update(directon="up"))
    with pytest.raises(ConfigError, match="did you mean 'direction'"):
        Scorer("video", registry=root)


def test_a_kind_that_the_inputs_belie_is_refused(root: Path) -> None:
    rewrite_sidecar(root, "video", lambda value: value.update(kind="fr"))
    with pytest.raises(ModelError, match="says that its kind is 'fr', but it takes no reference"):
        Scorer("video", registry=root)


def test_an_unknown_model_suggests_the_nearest(pristine: Path) -> None:
    with pytest.raises(ModelError, match="did you mean 'prompted'"):
        Scorer("promted", registry=pristine)


def test_a_large_backbone_lives_in_the_cache_and_is_named_when_missing(
    tiny: ModuleType, tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registering, "LARGE_BYTES", 100)
    sidecar = register(config(tiny, tiny.export_tiny(tmp_path / "m.onnx"), tmp_path / "model"))
    onnx = sidecar.inputs[0].backbone_onnx
    assert onnx is not None
    assert (onnx.file, onnx.cached) == (None, True)
    assert not list((tmp_path / "model" / "m" / "1" / "backbones").iterdir())
    scores = Scorer("m", registry=tmp_path / "model").score(clip).scores
    assert scores == pytest.approx(tiny.torch_scores(clip), abs=1e-4)

    cached = onnx_cache_path(onnx.sha256)
    flip_byte(cached)
    with pytest.raises(ModelError, match=f"expected {onnx.sha256[:12]}"):
        Scorer("m", registry=tmp_path / "model")
    cached.unlink()
    with pytest.raises(ModelError, match=rf"backbone 'tiny' .*sha256 {onnx.sha256}\) is not in the cache: '{cached}'"):
        Scorer("m", registry=tmp_path / "model")


def test_isolated_decoding_gives_the_same_scores_and_survives_a_file_that_kills(
    pristine: Path, clip: Path, tmp_path: Path, hostile_decoder: str
) -> None:
    expected = Scorer("video", registry=pristine).score(clip)
    killer, text = tmp_path / "segv.mp4", tmp_path / "text.mp4"
    shutil.copy(clip, killer)
    text.write_text("no video")
    requests = [ScoreRequest(video=path) for path in (killer, clip, text)]
    before = set(psutil.Process().children())
    with Scorer("video", registry=pristine, decoder=hostile_decoder, isolated=True) as scorer:
        crashed, scored, broken = scorer.score_many(requests)
        children = set(psutil.Process().children()) - before
    assert isinstance(crashed, ScoreFailure)
    assert crashed.reason == Reason.CRASH
    assert "SIGSEGV" in crashed.message
    assert scored == expected
    assert isinstance(broken, ScoreFailure)
    assert broken.reason == Reason.DECODE_ERROR
    assert children
    assert not children & set(psutil.Process().children())
