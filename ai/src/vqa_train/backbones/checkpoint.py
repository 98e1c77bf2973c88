"""Puts verified weights into a torch module, strictly and without holding a checkpoint twice; or random ones."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vqa_train.backbones.base import BackboneOptions
from vqa_train.backbones.checkpoint_file import Checkpoint, read_checkpoint
from vqa_train.core.errors import ModelError, UsageError, WeightsError
from vqa_train.core.hashing import seed_from
from vqa_train.weights.find import find_weights
from vqa_train.weights.manifest import weights_entry

__all__ = ["Checkpoint", "LoadedWeights", "fill_randomly", "load_strictly", "load_weights", "read_checkpoint"]

_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class LoadedWeights:
    """What a module's weights are now.

    Attributes:
        sha256: of the checkpoint file; None for random weights.
        random_seed: of random weights; None for real ones.
        license: of the weights; says so where it allows no commercial use.
    """

    sha256: str | None
    random_seed: int | None
    license: str


def load_weights(
    name: str, module: nn.Module, options: BackboneOptions, *, ignore: Collection[str] = ()
) -> LoadedWeights:
    """Fill `module` with the verified weights of manifest entry `name`, or with random ones where `options` say so.

    Build a large network under `torch.device("meta")`: its parameters then become views of the mapped file (or are
    allocated here, for random weights) and are held once. No parameter requires a gradient afterwards.

    Args:
        name: entry of manifests/weights.yaml.
        module: the network; its state dict is what the checkpoint must hold.
        options: `weights` is a file or folder that overrides the place; `random_weights` needs no file.
        ignore: as for `load_strictly`.

    Raises:
        UsageError: no such entry, or `options` ask for given and for random weights.
        WeightsError: missing, changed, unreadable, or not fitting the network.
    """
    entry = weights_entry(name)
    if options.random_weights is not None:
        if options.weights is not None:
            raise UsageError(f"backbone {name!r}: both random weights and {str(options.weights)!r} were asked for")
        fill_randomly(module, options.random_weights)
        module.requires_grad_(False)
        return LoadedWeights(sha256=None, random_seed=options.random_weights, license=entry.terms)
    found = find_weights(entry, options.weights)
    load_strictly(module, read_checkpoint(found.checkpoint), what=f"{name}: {str(found.checkpoint)!r}", ignore=ignore)
    module.requires_grad_(False)
    return LoadedWeights(sha256=found.checkpoint_sha256, random_seed=None, license=entry.terms)


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], *, what: str, ignore: Collection[str] = ()) -> None:
    """Put `state` into `module`: every key, every shape, float to float and integer to integer, or nothing at all.

    A tensor of another precision is converted to the module's. Where the module is on the meta device the tensors of
    `state` become its parameters; elsewhere they are copied into place.

    Args:
        what: names the checkpoint in messages.
        ignore: keys, and prefixes that end in ".", which are neither required nor loaded.

    Raises:
        WeightsError: lists missing, unexpected, misshapen and mistyped keys, the first few of each, and says when
            another prefix would make them fit.
        ModelError: a tensor on the meta device that is not in the state dict or is ignored.
    """
    wanted = {key: tensor for key, tensor in module.state_dict().items() if not _ignored(key, ignore)}
    given = {key: tensor for key, tensor in state.items() if not _ignored(key, ignore)}
    _refuse_misfit(wanted, given, what, getattr(state, "unwrapped", ()))
    on_meta = any(tensor.is_meta for tensor in wanted.values())
    if on_meta:
        given = {key: tensor.to(wanted[key].dtype) for key, tensor in given.items()}
    module.load_state_dict(given, strict=False, assign=on_meta)
    _refuse_meta(module)


def fill_randomly(module: nn.Module, seed: int) -> None:
    """Give every floating entry of the state dict random numbers that depend on its key, its shape and `seed` only.

    With u uniform in [-1, 1): matrices and kernels u * sqrt(3 / fan_in), fan_in being the product of all sizes but the
    first, so that activations keep their size; biases and running means 0.1 u; other vectors and scalars (weights of
    norms, layer scales, running variances) 1 + 0.1 u. Integer buffers stay as they are. The same numbers on every
    platform, whatever the order of the entries.

    Raises:
        ModelError: an integer buffer, or a tensor that is not in the state dict, is on the meta device.
    """
    entries = {key: tensor for key, tensor in module.state_dict().items() if tensor.is_floating_point()}
    on_meta = {key: tensor for key, tensor in entries.items() if tensor.is_meta}
    if on_meta:
        made = {key: torch.empty(tensor.shape, dtype=tensor.dtype) for key, tensor in on_meta.items()}
        module.load_state_dict(made, strict=False, assign=True)
        entries |= made
    for key, tensor in entries.items():
        _fill(key, tensor, seed)
    _refuse_meta(module)


@torch.no_grad()
def _fill(key: str, tensor: Tensor, seed: int) -> None:
    in_place = tensor.dtype == torch.float32 and tensor.device.type == "cpu" and tensor.is_contiguous()
    values = tensor if in_place else torch.empty(tensor.shape, dtype=torch.float32)
    # Separate steps, each exact or rounded once: a fused multiply-add would differ between processors.
    values.uniform_(generator=torch.Generator().manual_seed(seed_from("random-weights", seed, key))).mul_(2).sub_(1)
    if tensor.ndim >= 2:
        values.mul_(math.sqrt(3 / max(1, math.prod(tensor.shape[1:]))))
    else:
        values.mul_(0.1)
        if not key.rpartition(".")[2].endswith(("bias", "beta", "mean")):
            values.add_(1)
    if not in_place:
        tensor.copy_(values)


def _ignored(key: str, ignore: Collection[str]) -> bool:
    return any(key == name or (name.endswith(".") and key.startswith(name)) for name in ignore)


def _refuse_misfit(
    wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], what: str, unwrapped: tuple[str, ...]
) -> None:
    missing = [key for key in wanted if key not in given]
    unexpected = [key for key in given if key not in wanted]
    both = [(key, given[key], wanted[key]) for key in wanted if key in given]
    problems = {
        f"lacks {len(missing)} of {len(wanted)} keys": missing,
        f"has {len(unexpected)} unknown": unexpected,
        "has other shapes": [f"{k} {tuple(g.shape)} for {tuple(w.shape)}" for k, g, w in both if g.shape != w.shape],
        "has other types": [f"{k} {_short(g)} for {_short(w)}" for k, g, w in both if _kind(g) != _kind(w)],
    }
    found = [f"it {verb} ({_first(keys)})" for verb, keys in problems.items() if keys]
    if found:
        taken = f" (read from {', '.join(map(repr, unwrapped))})" if unwrapped else ""
        hint = _near_miss(missing, unexpected)
        raise WeightsError(f"{what}{taken} does not fit the network: {'; '.join(found)}", hint=hint)


def _first(items: list[str]) -> str:
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more


def _near_miss(missing: list[str], unexpected: list[str]) -> str | None:
    """The one prefix that would make at least half of the missing keys fit, put into words."""
    for longer, shorter, words in (
        (unexpected, missing, "there with the prefix {!r}, which has to be taken off"),
        (missing, unexpected, "there without the prefix {!r}, which has to be put on"),
    ):
        prefix, hits = _common_prefix(longer, set(shorter))
        if hits and 2 * hits >= len(missing):
            return f"{hits} of the missing keys are {words.format(prefix)}"
    return None


def _common_prefix(longer: list[str], shorter: set[str]) -> tuple[str, int]:
    """The prefix ending in a dot that turns most of `shorter` into keys of `longer`, and how many."""
    found: Counter[str] = Counter()
    for key in longer:
        parts = key.split(".")
        for i in range(1, len(parts)):
            if ".".join(parts[i:]) in shorter:
                found[".".join(parts[:i]) + "."] += 1
    return found.most_common(1)[0] if found else ("", 0)


def _kind(tensor: Tensor) -> str:
    if tensor.is_floating_point() or tensor.is_complex():
        return "floating"
    return "bool" if tensor.dtype == torch.bool else "integer"


def _short(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _refuse_meta(module: nn.Module) -> None:
    left = [name for name, tensor in (*module.named_parameters(), *module.named_buffers()) if tensor.is_meta]
    if left:
        raise ModelError(
            f"{type(module).__name__} has {len(left)} tensors without values ({_first(left)})",
            hint="compute outside the meta device what no checkpoint holds",
        )
