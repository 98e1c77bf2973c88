"""V-JEPA 2 on a tiny network: against transformers' whole models with the same weights, from clips and from files."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from vqa_train.backbones import vjepa2
from vqa_train.backbones.base import BackboneOptions, Compute
from vqa_train.backbones.vjepa2 import SIZES, Vjepa2Backbone
from vqa_train.backbones.vjepa2_network import Rotation, Vjepa2Size, attend_in_pieces, build_network
from vqa_train.core.errors import MediaError, Reason, UsageError, WeightsError
from vqa_train.core.types import Clip, FeatureSpec
from vqa_train.onnx.export import export_module
from vqa_train.onnx.probes import probe_clip
from vqa_train.onnx.runtime import OnnxModel
from vqa_train.video.decode import read_clips

PLAIN = "vjepa2-vitl-fpc64-256"
POOLED = "vjepa2-vitl-fpc16-256-ssv2"
# Heads of 16 numbers leave 4 unturned; 8 x 16 and 16 x 16 tokens are one and two pieces of the graph's attention.
TINY = Vjepa2Size(hidden=64, layers=2, heads=4, mlp=160, crop=64, frames=16)
TINY_POOLED = replace(TINY, frames=32, pooler_layers=2)
STATES = {PLAIN: TINY, POOLED: TINY_POOLED}


def tiny(name: str = PLAIN, **options: Any) -> Vjepa2Backbone:
    return Vjepa2Backbone(name, STATES[name], BackboneOptions(**({"random_weights": 3} | options)))


def clip(backbone: Vjepa2Backbone, height: int = 96, width: int = 128, seed: int = 1) -> Clip:
    return probe_clip(backbone.size.frames, height, width, seed)


def views_of(backbone: Vjepa2Backbone, batch: int = 1, seed: int = 0) -> Tensor:
    size = backbone.size
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, size.frames, 3, size.crop, size.crop)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def reference(size: Vjepa2Size, seed: int = 5) -> Any:
    """transformers' own model with everything it has, predictor and classifier included, and lively weights."""
    from transformers import VJEPA2Config, VJEPA2ForVideoClassification, VJEPA2Model

    config = VJEPA2Config(
        crop_size=size.crop, frames_per_clip=size.frames, hidden_size=size.hidden, num_hidden_layers=size.layers,
        num_attention_heads=size.heads, mlp_ratio=size.mlp / size.hidden, num_pooler_layers=size.pooler_layers or 0,
        pred_hidden_size=24, pred_num_attention_heads=2, pred_num_hidden_layers=1, num_labels=7,
    )  # fmt: skip
    model = (VJEPA2Model if size.pooler_layers is None else VJEPA2ForVideoClassification)(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.copy_(noise / parameter[0].numel() ** 0.5)
            else:
                parameter.add_(noise * 0.2)
    return model


def write_checkpoint(path: Path, model: nn.Module, **changes: Tensor | None) -> Path:
    """The model's state dict in its published layout; `changes` replace entries, None removes one."""
    state = {**model.state_dict(), **changes}
    save_file({key: value.clone() for key, value in state.items() if value is not None}, path)
    return path


@pytest.fixture(scope="module", params=[PLAIN, POOLED])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Vjepa2Backbone, Any]:
    """A backbone that loaded the checkpoint of a reference model, and that model."""
    model = reference(STATES[request.param])
    path = write_checkpoint(tmp_path_factory.mktemp("weights") / "model.safetensors", model)
    return tiny(request.param, weights=path, random_weights=None), model


@pytest.fixture(scope="module", params=[PLAIN, POOLED])
def backbone(request: pytest.FixtureRequest) -> Vjepa2Backbone:
    return tiny(request.param)


def official_input(views: Tensor) -> Tensor:
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return (views / 255 - mean) / std


@torch.inference_mode()
def test_outputs_are_statistics_of_transformers_tokens(both: tuple[Vjepa2Backbone, Any]) -> None:
    backbone, model = both
    views = views_of(backbone, batch=2)
    tokens = getattr(model, "vjepa2", model).get_vision_features(official_input(views)).double().numpy()
    size = backbone.size
    assert tokens.shape == (2, size.frames // 2 * (size.crop // 16) ** 2, size.hidden)  # no CLS token
    grid = tokens.reshape(2, size.frames // 2, (size.crop // 16) ** 2, size.hidden)
    expected = [tokens.mean(1), grid.mean(2), grid.std(2).mean(1)]
    found = backbone.encode(views)
    for one, other in zip(found[:3], expected, strict=True):
        assert one.dtype == torch.float32
        np.testing.assert_allclose(one.numpy(), other, rtol=0, atol=1e-5)
    assert tokens.std() > 0.5


@torch.inference_mode()
def test_attentive_is_what_the_official_classifier_is_given(tmp_path: Path) -> None:
    model = reference(TINY_POOLED)
    backbone = tiny(POOLED, weights=write_checkpoint(tmp_path / "m.safetensors", model), random_weights=None)
    views = views_of(backbone, batch=2)
    seen: list[Tensor] = []
    model.classifier.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model(official_input(views))
    (pooled, _, _, attentive) = backbone.encode(views)
    torch.testing.assert_close(attentive, seen[0], rtol=0, atol=2e-5)
    assert (attentive - pooled).abs().max() > 0.1


def test_rotation_turns_as_transformers_does() -> None:
    model = reference(replace(TINY, crop=80))
    attention = model.encoder.layer[0].attention
    generator = torch.Generator().manual_seed(0)
    given = torch.randn(2, 4, 8 * 25, 16, generator=generator)
    expected = attention.apply_rotary_embeddings(given, attention.get_position_ids(torch.empty(2, 8 * 25, 64)))
    found = Rotation(head=16, steps=8, side=5)(given)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert torch.equal(found[..., 12:], given[..., 12:])


def test_rotation_angles_do_not_lose_precision_in_bfloat16() -> None:
    given = torch.ones(1, 1, 32 * 256, 64)
    rotation = Rotation(head=64, steps=32, side=16)
    found = rotation(given.bfloat16())
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), rotation(given), rtol=0, atol=2e-2)


@torch.inference_mode()
def test_tokens_are_ordered_by_time_then_row_then_column() -> None:
    backbone = Vjepa2Backbone(PLAIN, replace(TINY, layers=0), BackboneOptions(random_weights=3))
    views = views_of(backbone).float()
    step, row, column = 5, 2, 1
    changed = views.clone()
    changed[:, 2 * step : 2 * step + 2, :, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16] += 40
    one, other = (backbone.encoder(pixels).last_hidden_state for pixels in (views, changed))
    assert torch.nonzero((one != other).any(-1)[0]).flatten().tolist() == [step * 16 + row * 4 + column]


def test_temporal_rows_are_the_time_steps(backbone: Vjepa2Backbone) -> None:
    given = clip(backbone)
    frames = given.frames.copy()
    frames[6:8] = 255 - frames[6:8]
    one, other = backbone.extract([given, Clip(**{**given.__dict__, "frames": frames})])
    change = np.abs(one["temporal"] - other["temporal"]).mean(1)
    assert change.argmax() == 3
    np.testing.assert_allclose(one["temporal"].mean(0), one["pooled"], atol=1e-6)


def test_neither_predictor_nor_classifier_is_built() -> None:
    for name, size in SIZES.items():
        network, _, _ = build_network(size)
        parts = {key.split(".")[0] for key in network.state_dict()}
        assert parts == ({"encoder"} if size.pooler_layers is None else {"vjepa2", "pooler"}), name
        assert not any("predictor" in key for key in network.state_dict())
        assert all(parameter.is_meta for parameter in network.parameters())


@pytest.mark.parametrize(
    ("name", "encoder", "pooler", "head", "tokens", "teraflops"),
    [
        ("vjepa2-vitl-fpc64-256", 303_885_312, 0, 64, (32, 256), 11.6),
        ("vjepa2-vith-fpc64-256", 631_648_000, 0, 80, (32, 256), 21.3),
        ("vjepa2-vitg-fpc64-256", 1_012_173_952, 0, 64, (32, 256), 31.7),
        ("vjepa2-vitg-fpc64-384", 1_012_173_952, 0, 64, (32, 576), 113.8),
        ("vjepa2-vitl-fpc16-256-ssv2", 303_885_312, 49.3e6, 64, (8, 256), 1.87),
        ("vjepa2-vitg-fpc64-384-ssv2", 1_012_173_952, 93.2e6, 64, (32, 576), 122.3),
    ],
)
def test_published_sizes(
    name: str, encoder: int, pooler: float, head: int, tokens: tuple[int, int], teraflops: float
) -> None:
    size = SIZES[name]
    _, one, other = build_network(size)
    assert sum(parameter.numel() for parameter in one.parameters()) == encoder
    assert sum(p.numel() for p in (other.parameters() if other else ())) == pytest.approx(pooler, rel=1e-3)
    assert size.grid == tokens
    assert size.flops / 1e12 == pytest.approx(teraflops, rel=5e-3)
    shape = one.layer[0].attention.rotation.cosine.shape  # type: ignore[union-attr, index]
    assert shape == (tokens[0] * tokens[1], head)


def test_every_factory_looks_for_weights_of_its_own() -> None:
    factories: dict[str, Callable[[BackboneOptions | None], Vjepa2Backbone]] = {
        "vjepa2-vitl-fpc64-256": vjepa2.vjepa2_vitl_256,
        "vjepa2-vith-fpc64-256": vjepa2.vjepa2_vith_256,
        "vjepa2-vitg-fpc64-256": vjepa2.vjepa2_vitg_256,
        "vjepa2-vitg-fpc64-384": vjepa2.vjepa2_vitg_384,
        "vjepa2-vitl-fpc16-256-ssv2": vjepa2.vjepa2_vitl_256_ssv2,
        "vjepa2-vitg-fpc64-384-ssv2": vjepa2.vjepa2_vitg_384_ssv2,
    }
    assert factories.keys() == SIZES.keys()
    for name, factory in factories.items():
        with pytest.raises(WeightsError, match=rf"weights '{name}' not found.*weights pull {name}"):
            factory(BackboneOptions(weights=Path("no-such-folder") / "model.safetensors"))


def test_the_spec_says_what_the_features_are(backbone: Vjepa2Backbone) -> None:
    spec, size = backbone.spec, backbone.size
    assert {output.name: output.shape for output in spec.outputs} == {
        "pooled": (64,),
        "temporal": (size.frames // 2, 64),
        "spatial_std": (64,),
        **({} if size.pooler_layers is None else {"attentive": (64,)}),
    }
    assert spec.sampling is not None
    assert (spec.sampling.mode, spec.sampling.n, spec.sampling.short) == ("uniform", size.frames, "hold")
    assert (spec.weights_sha256, spec.random_seed) == (None, 3)
    assert spec.preprocessing["crop"] == 64
    assert "settings" not in spec.preprocessing
    assert FeatureSpec.from_json(spec.to_json()).fingerprint == spec.fingerprint
    assert backbone.license == "MIT"


def test_frames_are_a_setting_and_part_of_the_identity() -> None:
    default, same, fewer = (tiny(settings=s) for s in ({}, {"frames": "16"}, {"frames": "32"}))
    assert default.spec.fingerprint == same.spec.fingerprint != fewer.spec.fingerprint
    assert fewer.spec.preprocessing["settings"] == {"frames": "32"}
    assert fewer.spec.sampling is not None
    assert fewer.spec.sampling.n == 32
    row = fewer.extract([clip(fewer)])[0]
    assert row["temporal"].shape == fewer.spec.output("temporal").shape == (16, 64)


@pytest.mark.parametrize("settings", [{"frames": "17"}, {"frames": "128"}, {"crop": "384"}])
def test_other_settings_are_refused(settings: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        tiny(settings=settings)


@pytest.mark.parametrize("change", [{"crop": 100}, {"crop": 0}, {"frames": 15}, {"heads": 5}])
def test_impossible_sizes_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="must be a multiple of"):
        replace(TINY, **change)


@pytest.mark.parametrize("shape", [(1, 16, 3, 80, 80), (1, 16, 3, 64, 48), (1, 14, 3, 64, 64), (1, 3, 16, 64, 64)])
def test_views_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    # transformers would take them and give wrong positions.
    with pytest.raises(UsageError, match=r"takes views \(B, 16, 3, 64, 64\)"):
        tiny().encode(torch.zeros(shape, dtype=torch.uint8))


@pytest.mark.parametrize(
    "frames",
    [np.zeros((15, 32, 32, 3), np.uint8), np.zeros((16, 32, 32), np.uint8), np.zeros((16, 32, 32, 3), np.float32)],
    ids=["15 frames", "grey", "float"],
)
def test_clips_of_another_shape_are_refused(frames: np.ndarray) -> None:
    backbone = tiny()
    with pytest.raises(MediaError, match="takes uint8 frames") as caught:
        backbone.prepare(Clip(**{**clip(backbone).__dict__, "frames": frames}))
    assert caught.value.reason == Reason.BACKBONE_ERROR


@pytest.mark.parametrize("count", [1, 5, 40])
def test_a_video_of_any_length_gives_features(
    backbone: Vjepa2Backbone, write_video: Callable[..., Path], tmp_path: Path, count: int
) -> None:
    assert backbone.spec.sampling is not None
    [[decoded]] = read_clips(write_video(tmp_path / "v.mp4", frames=count), [backbone.spec.sampling])
    row = backbone.extract([decoded])[0]
    for output in backbone.spec.outputs:
        assert row[output.name].shape == output.shape
        assert row[output.name].dtype == np.float32
        assert np.isfinite(row[output.name]).all()


@pytest.mark.parametrize("crop", [256, 384])
def test_published_crops_make_views_of_that_size(crop: int) -> None:
    backbone = Vjepa2Backbone(PLAIN, replace(TINY, crop=crop, frames=2), BackboneOptions(random_weights=1))
    (views,) = backbone.views(*backbone.prepare(clip(backbone, 121, 187)))
    assert views.shape == (2, 3, crop, crop)
    row = backbone.extract([clip(backbone, 121, 187)])[0]
    assert row["temporal"].shape == (1, 64)


def test_a_batch_gives_what_single_clips_give(backbone: Vjepa2Backbone) -> None:
    clips = [clip(backbone, seed=1), clip(backbone, 70, 90, seed=2), clip(backbone, seed=3)]
    alone = [backbone.extract([item])[0] for item in clips]
    try:
        backbone.configure(Compute(batch=3))
        together = backbone.extract(clips)
    finally:
        backbone.configure(Compute())
    for one, other in zip(alone, together, strict=True):
        for name in one:
            np.testing.assert_allclose(other[name], one[name], rtol=1e-5, atol=1e-5)


def test_threads_do_not_matter_beyond_1e_5(backbone: Vjepa2Backbone) -> None:
    threads = torch.get_num_threads()
    try:
        rows = []
        for count in (1, 2):
            torch.set_num_threads(count)
            rows.append(backbone.extract([clip(backbone, 241, 427)])[0])
    finally:
        torch.set_num_threads(threads)
    for name in rows[0]:
        np.testing.assert_allclose(rows[1][name], rows[0][name], rtol=1e-5, atol=1e-5)


def test_bfloat16_stays_close_to_float32_and_gives_float32(backbone: Vjepa2Backbone) -> None:
    exact = backbone.extract([clip(backbone)])[0]
    rounded = tiny(backbone.spec.backbone)
    rounded.configure(Compute(precision="bfloat16"))
    found = rounded.extract([clip(backbone)])[0]
    for name, expected in exact.items():
        one, other = found[name].ravel().astype(np.float64), expected.ravel().astype(np.float64)
        assert found[name].dtype == np.float32
        assert one @ other / np.linalg.norm(one) / np.linalg.norm(other) > 0.999
        assert np.abs(one - other).max() > 0


def test_compile_captures_the_whole_network(backbone: Vjepa2Backbone) -> None:
    views = views_of(backbone, batch=2)
    with torch.inference_mode():
        compiled: Any = torch.compile(backbone.encode, fullgraph=True, backend="aot_eager")
        for one, other in zip(compiled(views), backbone.encode(views), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def test_random_weights_depend_on_the_seed_alone() -> None:
    rows = [tiny(random_weights=seed).extract([clip(tiny())])[0]["pooled"] for seed in (3, 3, 4)]
    assert rows[0].tobytes() == rows[1].tobytes()
    assert np.abs(rows[0] - rows[2]).max() > 0.01


@pytest.mark.parametrize("name", [PLAIN, POOLED])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("encoder.layernorm.bias", None),
        ("encoder.cls_token", torch.zeros(64)),
        ("encoder.layer.1.mlp.fc1.weight", torch.zeros(64, 160)),
        ("encoder.layernorm.weight", torch.zeros(64, dtype=torch.int64)),
    ],
    ids=["missing", "extra", "misshapen", "mistyped"],
)
def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path: Path, name: str, key: str, value: Tensor | None) -> None:
    key = f"vjepa2.{key}" if name == POOLED else key
    path = write_checkpoint(tmp_path / "model.safetensors", reference(STATES[name]), **{key: value})
    with pytest.raises(WeightsError, match=f"does not fit the network: .*{re.escape(key)}"):
        tiny(name, weights=path, random_weights=None)


def test_a_checkpoint_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "model.safetensors", reference(TINY))
    with pytest.raises(WeightsError, match="does not fit the network"):
        tiny(POOLED, weights=path, random_weights=None)
    path = write_checkpoint(tmp_path / "pooled.safetensors", reference(replace(TINY, pooler_layers=1)))
    with pytest.raises(WeightsError, match="does not fit the network"):
        tiny(weights=path, random_weights=None)


def test_attention_in_pieces_is_attention() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, 3, 48, 8, generator=generator) for _ in range(3))
    for queries, size in ((query, 16), (query, 48), (query, 17), (query[:, :, :1], 16)):
        expected = functional.scaled_dot_product_attention(queries, key, value, scale=0.3)
        torch.testing.assert_close(attend_in_pieces(queries, key, value, 0.3, size), expected, rtol=0, atol=1e-6)


@pytest.fixture(scope="module")
def graph_file(both: tuple[Vjepa2Backbone, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    backbone, _ = both
    path = tmp_path_factory.mktemp("onnx") / "backbone.onnx"
    export_module(
        backbone,
        backbone.onnx_example(),
        path,
        input_names=list(backbone.onnx_inputs()),
        output_names=[output.name for output in backbone.spec.outputs],
        dynamic_axes=backbone.onnx_inputs(),
    )
    return path


@pytest.fixture(scope="module")
def graph(graph_file: Path) -> OnnxModel:
    return OnnxModel(graph_file)


def test_the_graph_loops_over_frames_and_over_pieces_of_attention(
    both: tuple[Vjepa2Backbone, Any], graph_file: Path
) -> None:
    size = both[0].size
    # 128 tokens are one piece, 256 are two; the pooler's one query is never cut.
    layers = 0 if size.pooler_layers is None else size.layers + size.pooler_layers
    assert sum(node.op_type == "Loop" for node in onnx.load(graph_file).graph.node) == 1 + layers


@pytest.mark.parametrize("size", [(96, 128), (241, 427), (64, 48), (300, 200)], ids=str)
def test_the_graph_gives_what_torch_gives_from_raw_frames(
    both: tuple[Vjepa2Backbone, Any], graph: OnnxModel, size: tuple[int, int]
) -> None:
    backbone, _ = both
    given = clip(backbone, *size)
    found = graph.run({"frames": given.frames})
    for name, expected in backbone.extract([given])[0].items():
        assert (np.abs(found[name] - expected) / np.maximum(0.1, np.abs(expected))).max() <= 1e-4
