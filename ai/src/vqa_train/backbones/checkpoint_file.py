"""Reads the state dict out of a checkpoint file, executing nothing and mapping it where its layout allows."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vqa_train.core.errors import DependencyError, WeightsError
from vqa_train.weights.sniff import not_a_checkpoint

_TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt")
# Under which key training scripts keep the weights, beside optimiser state and the like.
_WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "module", "network", "net", "weights")
# Put before every key by DataParallel and by torch.compile; no network of ours has such a submodule.
_PREFIXES = ("module.", "_orig_mod.")
_NUMPY_NAMES = (
    "numpy.dtype",
    "numpy.ndarray",
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
)
_SHOWN = 3


class Checkpoint(dict[str, Tensor]):
    """A state dict as read from a file.

    Attributes:
        unwrapped: what was taken off, outermost first: keys ("state_dict") and prefixes ("module.").
    """

    def __init__(self, tensors: Mapping[str, Tensor], unwrapped: tuple[str, ...] = ()) -> None:
        super().__init__(tensors)
        self.unwrapped = unwrapped


def read_checkpoint(path: Path) -> Checkpoint:
    """The state dict in a .safetensors file, or in a .pth, .pt, .bin or .ckpt file of torch; on the CPU.

    Pickles are read by `torch.load(weights_only=True)`; numpy numbers beside the weights (results of the training run)
    are read as nothing. Tensors are views of the mapped file where its layout allows: they cost memory only while they
    are used. A state dict under a usual key ("state_dict", "model", ...) or with "module." before every key is
    unwrapped; `unwrapped` of the result says so.

    Raises:
        WeightsError: unreadable, of another kind, holds what only full unpickling could read, or no (or more than one)
            state dict.
        DependencyError: safetensors is not installed.
    """
    if not path.is_file():
        raise WeightsError(f"checkpoint {str(path)!r} is not a file")
    if path.suffix != ".safetensors" and path.suffix not in _TORCH_SUFFIXES:
        known = ", ".join((".safetensors", *_TORCH_SUFFIXES))
        raise WeightsError(f"checkpoint {str(path)!r} is of an unknown kind; known: {known}")
    wrong = not_a_checkpoint(path)
    if wrong is not None:
        raise WeightsError(f"checkpoint {str(path)!r} {wrong}", hint="fetch the file itself")
    if path.suffix == ".safetensors":
        return _without_prefixes(_read_safetensors(path), ())
    unwrapped: tuple[str, ...] = ()
    value = _read_torch(path)
    while not _is_state_dict(value):
        key = _wrapper(value, path)
        value, unwrapped = value[key], (*unwrapped, key)
    return _without_prefixes(value, unwrapped)


class _Nothing:
    """Stands in for numpy's types while unpickling: takes any arguments and keeps nothing."""

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, _: object) -> None: ...


def _read_torch(path: Path) -> Any:
    from pickle import UnpicklingError

    with path.open("rb") as file:
        # Only torch's zip layout can be mapped; its old one is a bare pickle.
        mapped = file.read(4) == b"PK\x03\x04"
    stand_ins: list[Any] = [(_Nothing, name) for name in _NUMPY_NAMES]
    try:
        with torch.serialization.safe_globals(stand_ins), warnings.catch_warnings():
            # About TorchScript archives, which end in an error here, and about pickle protocols.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except UnpicklingError as error:
        raise WeightsError(
            f"checkpoint {str(path)!r} is not weights alone and is not opened: {_reason(error)}",
            hint="where you trust it, convert it to .safetensors",
        ) from error
    except Exception as error:  # a damaged pickle ends in any of a dozen kinds
        raise WeightsError(f"checkpoint {str(path)!r} cannot be read: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # Before the reason torch advises to unpickle everything.
    reasons = [line for line in lines if "GLOBAL" in line or "nsupported" in line]
    return (reasons or lines or [type(error).__name__])[0].partition(" was not an allowed global")[0][:200]


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors import SafetensorError, safe_open
    except ModuleNotFoundError as error:
        raise DependencyError(
            f"{str(path)!r} needs the package {error.name!r}, which is not installed",
            hint="pip install 'vqa-train[backbones]'",
        ) from error
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  not a dict
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"checkpoint {str(path)!r} is not a safetensors file: {error}") from error


def _is_state_dict(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(key, str) and isinstance(entry, Tensor) for key, entry in value.items())
    )


def _wrapper(value: Any, path: Path) -> str:
    """The one usual key of `value` that leads to a state dict."""
    if not isinstance(value, Mapping):
        raise WeightsError(f"checkpoint {str(path)!r} holds a {type(value).__name__}, expected a state dict")
    found = [key for key in _WRAPPERS if isinstance(value.get(key), Mapping) and value[key]]
    if len(found) > 1:
        raise WeightsError(
            f"checkpoint {str(path)!r} holds several state dicts ({', '.join(found)})",
            hint="save the one that is meant alone",
        )
    if not found:
        entries = ", ".join(f"{key!r}: {type(entry).__name__}" for key, entry in list(value.items())[:_SHOWN])
        raise WeightsError(f"checkpoint {str(path)!r} holds no state dict but {len(value)} entries ({entries})")
    return found[0]


def _without_prefixes(state: Mapping[str, Tensor], unwrapped: tuple[str, ...]) -> Checkpoint:
    prefix = next((p for p in _PREFIXES if state and all(key.startswith(p) for key in state)), None)
    if prefix is None:
        return Checkpoint(state, unwrapped)
    return _without_prefixes({key.removeprefix(prefix): t for key, t in state.items()}, (*unwrapped, prefix))
