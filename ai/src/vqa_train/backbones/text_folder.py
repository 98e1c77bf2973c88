"""Opens the verified sentence-transformers folder of a text encoder and refuses one that is not what it should be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from vqa_train.core.errors import DependencyError, WeightsError
from vqa_train.weights.find import find_weights
from vqa_train.weights.manifest import WeightsEntry

# Stored by old versions of transformers, computed by current ones.
_DERIVED_KEYS = {"embeddings.position_ids"}

Pooling = Literal["cls", "mean"]


@dataclass(frozen=True, kw_only=True)
class TextModel:
    """What is known of a sentence encoder before its folder is opened.

    Attributes:
        entry: of the weights manifest; its name is the encoder's, its first file the weights.
        pooling: how its authors turn token embeddings into one vector; its folder must say the same.
        dim: length of the vector.
    """

    entry: WeightsEntry
    pooling: Pooling
    dim: int


def open_folder(model: TextModel, override: Path | None) -> tuple[Any, str]:
    """The loaded SentenceTransformer (CPU, float32, inference mode) and the sha256 of its weights.

    Args:
        override: its folder; None looks where `find_weights` does.

    Raises:
        WeightsError: the folder is missing or incomplete, its files have another hash or do not fit the network,
            or it specifies another pooling or dimension.
        DependencyError: sentence-transformers is not installed.
    """
    if override is not None and override.is_file():
        raise WeightsError(
            f"text encoder {model.entry.name!r} takes a folder, got the file {str(override)!r}",
            hint="name the sentence-transformers folder that holds it",
        )
    found = find_weights(model.entry, override)
    folder = found.location.folder
    stored = _stored_shapes(found.checkpoint)
    loaded = _load(folder)
    _refuse_other_weights(loaded[0].model, stored, found.checkpoint)
    _refuse_other_pooling(loaded, model, folder)
    return loaded, found.checkpoint_sha256


def _load(folder: Path) -> Any:
    try:
        from sentence_transformers import SentenceTransformer
    except ModuleNotFoundError as error:
        raise _not_installed(error) from error
    with _quiet():
        try:
            model = SentenceTransformer(
                str(folder),
                device="cpu",
                local_files_only=True,
                model_kwargs={
                    # What the ONNX exporter can trace; one implementation, one set of numbers.
                    "attn_implementation": "eager",
                    "dtype": torch.float32,
                    "use_safetensors": True,
                    # Sizes are compared here afterwards, with an error that lists what differs.
                    "ignore_mismatched_sizes": True,
                },
            )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise WeightsError(f"{str(folder)!r} cannot be loaded: {str(error)[:300]}") from error
    return model.eval()


@contextmanager
def _quiet() -> Iterator[None]:
    """transformers draws a progress bar over loading weights; ours are the only ones on stderr."""
    from transformers.utils import logging as untyped

    logging: Any = untyped
    shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()  # what it would warn of (keys that do not fit) is an error here
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()


def _stored_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118  not a dict
    except SafetensorError as error:
        raise WeightsError(f"{str(path)!r} is not a safetensors file: {error}") from error
    return {key: shape for key, shape in shapes.items() if key not in _DERIVED_KEYS}


def _refuse_other_weights(network: nn.Module, stored: dict[str, tuple[int, ...]], path: Path) -> None:
    """transformers fills keys that the file lacks with random numbers; here that is an error."""
    wanted = {key: tuple(value.shape) for key, value in network.state_dict().items() if key not in _DERIVED_KEYS}
    problems = {
        "lacks": sorted(wanted.keys() - stored.keys()),
        "has unknown": sorted(stored.keys() - wanted.keys()),
        "has wrong shapes of": sorted(k for k in wanted.keys() & stored.keys() if wanted[k] != stored[k]),
    }
    found = [f"{verb} {len(keys)} ({', '.join(keys[:3])})" for verb, keys in problems.items() if keys]
    if found:
        raise WeightsError(f"{str(path)!r} does not fit its config.json: it {'; '.join(found)}")


def _refuse_other_pooling(loaded: Any, model: TextModel, folder: Path) -> None:
    name = model.entry.name
    modules = [type(module).__name__ for module in loaded]
    if modules[:2] != ["Transformer", "Pooling"] or modules[2:] not in ([], ["Normalize"]):
        raise WeightsError(f"{str(folder)!r} has modules {modules}, expected Transformer, Pooling, Normalize")
    pooling = loaded[1].get_config_dict()["pooling_mode"]
    if pooling != model.pooling:
        raise WeightsError(
            f"{str(folder)!r} pools by {pooling!r}, text encoder {name!r} is specified with {model.pooling!r}",
            hint="restore 1_Pooling/config.json of the release",
        )
    dim = loaded[1].get_config_dict()["embedding_dimension"]
    if dim != model.dim:
        raise WeightsError(f"{str(folder)!r} gives {dim} numbers per text, text encoder {name!r} has {model.dim}")
    if loaded.default_prompt_name is not None:
        raise WeightsError(f"{str(folder)!r} puts the prompt {loaded.default_prompt_name!r} before every text")


def _not_installed(error: ModuleNotFoundError) -> DependencyError:
    return DependencyError(
        f"text encoders need the package {error.name!r}, which is not installed",
        hint="pip install 'vqa-train[backbones]'",
    )
