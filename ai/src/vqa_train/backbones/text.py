"""Frozen sentence encoders through sentence-transformers: BGE (CLS pooling) and MiniLM (mean pooling)."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from vqa_train.backbones.base import BackboneOptions, Compute, TextEncoder
from vqa_train.backbones.text_folder import Pooling, TextModel, open_folder
from vqa_train.core.errors import UsageError
from vqa_train.core.hashing import sha256_json
from vqa_train.core.types import FeatureSpec, OutputSpec
from vqa_train.weights.manifest import weights_entry

_BATCH = 32


def bge_large(options: BackboneOptions | None = None) -> SentenceEncoder:
    """bge-large-en-v1.5: 1024 numbers per text; CLS pooling and L2 normalisation as its authors specify."""
    return _builtin("bge-large-en-v1.5", "cls", 1024, options)


def bge_base(options: BackboneOptions | None = None) -> SentenceEncoder:
    """bge-base-en-v1.5: 768 numbers per text; CLS pooling and L2 normalisation as its authors specify."""
    return _builtin("bge-base-en-v1.5", "cls", 768, options)


def bge_small(options: BackboneOptions | None = None) -> SentenceEncoder:
    """bge-small-en-v1.5: 384 numbers per text; CLS pooling and L2 normalisation as its authors specify."""
    return _builtin("bge-small-en-v1.5", "cls", 384, options)


def minilm(options: BackboneOptions | None = None) -> SentenceEncoder:
    """all-MiniLM-L6-v2: 384 numbers per text, mean pooling, L2 normalisation."""
    return _builtin("minilm", "mean", 384, options)


def _builtin(name: str, pooling: Pooling, dim: int, options: BackboneOptions | None) -> SentenceEncoder:
    return SentenceEncoder(TextModel(entry=weights_entry(name), pooling=pooling, dim=dim), options)


class SentenceEncoder(TextEncoder):
    """A sentence-transformers folder opened without any network, verified, and run on the CPU in float32.

    Args:
        model: which encoder.
        options: `weights` is its folder; None looks where `weights.find` does.

    Raises:
        UsageError: a setting, which text encoders do not have, or random weights: without its vocabulary and what
            it learnt of it a text encoder says nothing.
        WeightsError: the folder is missing or incomplete, its files have another hash or do not fit the network,
            or it specifies another pooling or dimension.
        DependencyError: sentence-transformers is not installed.
    """

    def __init__(self, model: TextModel, options: BackboneOptions | None = None) -> None:
        options = options or BackboneOptions()
        name = model.entry.name
        options.choose(name, {})
        if options.random_weights is not None:
            raise UsageError(
                f"text encoder {name!r} cannot have random weights: its vocabulary comes with the real ones",
                hint=f"`vqa-train weights pull {name}` fetches them",
            )
        self._model, weights_sha256 = open_folder(model, options.weights)
        self._bert: nn.Module = self._model[0].model
        self.license = model.entry.terms
        self._pooling: Pooling = model.pooling
        tokenizer = json.loads(self.tokenizer_json())
        self.spec = FeatureSpec(
            backbone=name,
            definition=1,
            modality="text",
            outputs=(OutputSpec(name="pooled", shape=(model.dim,)),),
            weights_sha256=weights_sha256,
            preprocessing={
                "pooling": model.pooling,
                "normalize": True,
                "max_tokens": self.max_tokens,
                "lowercase": bool((tokenizer["normalizer"] or {}).get("lowercase", False)),
                # Not the tokenizer file's hash: that changes with the library that last saved it.
                "vocabulary_sha256": sha256_json(self._model.tokenizer.get_vocab()),
            },
        )

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """L2-normalised embeddings, float32 (N, D), in the order of `texts`.

        Each distinct text is encoded once, in batches of similar length so that little of a batch is padding.
        """
        lengths = {text: len(text) for text in texts}
        distinct = sorted(lengths, key=lambda text: (lengths[text], text))
        vectors = np.empty((len(distinct), self.spec.outputs[0].shape[0]), dtype=np.float32)
        for start in range(0, len(distinct), _BATCH):
            batch = distinct[start : start + _BATCH]
            vectors[start : start + len(batch)] = self._model.encode(
                batch, batch_size=_BATCH, show_progress_bar=False, convert_to_numpy=True, normalize_embeddings=True
            )
        place = {text: i for i, text in enumerate(distinct)}
        return vectors[[place[text] for text in texts]]

    def configure(self, compute: Compute) -> None:
        """Move to a device."""
        self._model.to(compute.device)

    def numerics(self) -> dict[str, str]:
        """Device and float32."""
        return {"device": str(self._model.device), "precision": "float32"}

    def onnx_module(self) -> nn.Module:
        """Module (input_ids, attention_mask: int64 (N, L)) -> float32 (N, D) normalised embeddings."""
        return _Pooled(self._bert, self._pooling)

    def tokenizer_json(self) -> bytes:
        """The `tokenizers` file: cuts after `max_tokens`, does not pad."""
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_str(self._model.tokenizer.backend_tokenizer.to_str())
        tokenizer.enable_truncation(self.max_tokens)
        tokenizer.no_padding()
        return bytes(tokenizer.to_str().encode("utf-8"))

    @property
    def max_tokens(self) -> int:
        """Tokens after which a text is cut, special tokens included."""
        return int(self._model.max_seq_length)


class _Pooled(nn.Module):
    """Transformer, pooling and normalisation as one graph."""

    def __init__(self, bert: nn.Module, pooling: Pooling) -> None:
        super().__init__()
        self.bert = bert
        self.pooling = pooling

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """`(N, L)` token ids and mask to `(N, D)` unit vectors."""
        tokens: Tensor = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        if self.pooling == "cls":
            pooled = tokens[:, 0]
        else:
            weights = attention_mask.unsqueeze(-1).to(tokens.dtype)
            pooled = (tokens * weights).sum(dim=1) / weights.sum(dim=1)
        return nn.functional.normalize(pooled, dim=1)
