"""What every text encoder in the registry must hold.

A BGE encoder whose weights are not here is run with a tiny random network of its width, which takes the same code path.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from vqa_train.backbones import TEXT_ENCODERS
from vqa_train.backbones.base import BackboneOptions, TextEncoder
from vqa_train.core.errors import DependencyError, UsageError, WeightsError
from vqa_train.core.types import FeatureSpec
from vqa_train.onnx.export import export_module
from vqa_train.onnx.probes import SENTENCES
from vqa_train.onnx.runtime import OnnxModel

DIMS = {"bge-large-en-v1.5": 1024, "bge-base-en-v1.5": 768, "bge-small-en-v1.5": 384}


@pytest.fixture(scope="module", params=TEXT_ENCODERS.names())
def named(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, TextEncoder]:
    name = request.param
    factory = TEXT_ENCODERS.get(name)
    root = tmp_path_factory.mktemp("text")
    with pytest.MonkeyPatch.context() as patch:
        # Nothing that a test hashes or pins stays on the machine.
        patch.setenv("VQA_TRAIN_CACHE", str(root / "cache"))
        patch.delenv("VQA_TRAIN_WEIGHTS", raising=False)
        try:
            return name, factory(BackboneOptions())
        except (WeightsError, DependencyError) as error:
            if name not in DIMS:
                pytest.skip(str(error))
        patch.syspath_prepend(Path(__file__).parents[1] / "backbones")
        folder = root / name
        importlib.import_module("tiny_bert").write_tiny_bert(folder, dim=DIMS[name])
        return name, factory(BackboneOptions(weights=folder))


@pytest.fixture(scope="module")
def encoder(named: tuple[str, TextEncoder]) -> TextEncoder:
    return named[1]


@pytest.fixture(scope="module")
def vectors(encoder: TextEncoder) -> np.ndarray:
    """Of the probe sentences."""
    return encoder.encode(SENTENCES)


def test_the_spec_has_the_registry_name_and_one_pooled_output(named: tuple[str, TextEncoder]) -> None:
    name, encoder = named
    assert encoder.spec.backbone == name
    assert encoder.spec.modality == "text"
    assert encoder.spec.sampling is None
    assert [output.name for output in encoder.spec.outputs] == ["pooled"]
    assert FeatureSpec.from_json(encoder.spec.to_json()).fingerprint == encoder.spec.fingerprint


def test_weights_and_licence_are_identified(encoder: TextEncoder) -> None:
    assert len(encoder.spec.weights_sha256 or "") == 64
    assert encoder.spec.random_seed is None
    assert encoder.license.strip()


def test_random_weights_and_settings_are_refused(named: tuple[str, TextEncoder]) -> None:
    factory = TEXT_ENCODERS.get(named[0])
    with pytest.raises(UsageError, match="cannot have random weights"):
        factory(BackboneOptions(random_weights=0))
    with pytest.raises(UsageError, match="no setting 'pooling'"):
        factory(BackboneOptions(settings={"pooling": "mean"}))


def test_vectors_are_float32_unit_length_and_differ(encoder: TextEncoder, vectors: np.ndarray) -> None:
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(SENTENCES), *encoder.spec.outputs[0].shape)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert len(np.unique(vectors.round(4), axis=0)) == len(SENTENCES)


def test_order_batch_and_repetition_do_not_matter(encoder: TextEncoder, vectors: np.ndarray) -> None:
    shuffled = [4, 0, 2, 2, 1, 3, 0]
    np.testing.assert_allclose(encoder.encode([SENTENCES[i] for i in shuffled]), vectors[shuffled], atol=1e-5)
    np.testing.assert_allclose(encoder.encode([SENTENCES[0]]), vectors[:1], atol=1e-5)


def test_the_graph_with_the_tokenizer_file_computes_the_same(
    encoder: TextEncoder, vectors: np.ndarray, tmp_path: Path
) -> None:
    tokenizer = Tokenizer.from_str(encoder.tokenizer_json().decode("utf-8"))
    rows = [tokenizer.encode(text) for text in SENTENCES]
    assert max(len(row.ids) for row in rows) == encoder.max_tokens
    names = ["input_ids", "attention_mask"]
    exported = export_module(
        encoder.onnx_module(),
        (torch.tensor([[1, 2, 3], [2, 3, 0]]), torch.tensor([[1, 1, 1], [1, 1, 0]])),
        tmp_path / "text.onnx",
        input_names=names,
        output_names=["pooled"],
        dynamic_axes={"pooled": {0: "batch"}, **{name: {0: "batch", 1: "tokens"} for name in names}},
    )
    graph = OnnxModel(exported.path, expected_sha256=exported.sha256)
    single = [
        graph.run({n: np.asarray([v]) for n, v in zip(names, (r.ids, r.attention_mask), strict=True)}) for r in rows
    ]
    np.testing.assert_allclose(np.concatenate([row["pooled"] for row in single]), vectors, atol=1e-5)
    # A padded batch gives what each row gives alone.
    rows, width = rows[:3], len(rows[2].ids)
    ids = np.zeros((3, width), dtype=np.int64)
    mask = np.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, : len(row.ids)], mask[i, : len(row.ids)] = row.ids, row.attention_mask
    np.testing.assert_allclose(graph.run({"input_ids": ids, "attention_mask": mask})["pooled"], vectors[:3], atol=1e-5)
