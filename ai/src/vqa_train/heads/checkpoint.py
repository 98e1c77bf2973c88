"""Heads on disk: one safetensors file whose header says how to build the networks. No pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import safetensors
import safetensors.torch
from pydantic import Field
from torch import Tensor

from vqa_train.core.config import StrictModel, parse
from vqa_train.core.errors import ConfigError, UsageError, WeightsError
from vqa_train.core.files import atomic_write_bytes
from vqa_train.core.hashing import canonical_json
from vqa_train.heads import HEADS
from vqa_train.heads.base import Head
from vqa_train.heads.config import HeadConfig
from vqa_train.heads.ensemble import Ensemble

HEAD_SCHEMA = "vqa-train/head/2"
_HEADER_KEY = "vqa_train_head"
_MAX_LISTED = 5


class _Input(StrictModel):
    name: str
    shape: tuple[Annotated[int, Field(ge=1)], ...] = Field(min_length=1)


class _Member(StrictModel):
    head: HeadConfig
    models: int = Field(ge=1)
    weight: float = Field(gt=0)


class _Header(StrictModel):
    schema_: Literal["vqa-train/head/2"] = Field(alias="schema")
    inputs: tuple[_Input, ...] = Field(min_length=1)
    targets: tuple[str, ...] = Field(min_length=1)
    members: tuple[_Member, ...] = Field(min_length=1)
    meta: dict[str, Any] = Field(default_factory=dict)


def save_ensemble(path: Path, ensemble: Ensemble, meta: Mapping[str, Any] | None = None) -> None:
    """Write weights, scalings and how to rebuild the networks, atomically; the same heads give the same bytes.

    Args:
        meta: JSON values kept beside them (config hash, best epochs, ...).

    Raises:
        ValueError: `meta` holds NaN or what JSON has no form for.
        OSError: the file cannot be written; an old one is then as it was.
    """
    header = {
        "schema": HEAD_SCHEMA,
        "inputs": [{"name": name, "shape": list(shape)} for name, shape in ensemble.inputs.items()],
        "targets": list(ensemble.targets),
        "members": [
            {"head": head.config.model_dump(mode="json"), "models": head.models, "weight": weight}
            for head, weight in zip(ensemble.heads, ensemble.member_weights, strict=True)
        ],
        "meta": dict(meta or {}),
    }
    tensors = {name: value.detach().cpu().contiguous() for name, value in ensemble.state_dict().items()}
    # One metadata key: safetensors writes several in an order that changes from run to run.
    data = safetensors.torch.save(tensors, metadata={_HEADER_KEY: canonical_json(header)})
    atomic_write_bytes(path, data)


def save_head(path: Path, head: Head, meta: Mapping[str, Any] | None = None) -> None:
    """`save_ensemble` of one head."""
    save_ensemble(path, Ensemble([head]), meta)


def load_ensemble(path: Path) -> tuple[Ensemble, dict[str, Any]]:
    """The heads in a file, in eval mode on the CPU, and their `meta`.

    Raises:
        WeightsError: missing or damaged file, another schema, or tensors that do not fit the networks (the
            difference is listed).
    """
    tensors, header = _read(path)
    inputs = {entry.name: entry.shape for entry in header.inputs}
    if len(inputs) < len(header.inputs):
        raise WeightsError(f"head {str(path)!r} names an input twice")
    members: list[Head] = []
    for number, entry in enumerate(header.members):
        prefix = f"members.{number}."
        own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        try:
            # On "meta" a header that claims a huge network costs nothing before its shapes are compared.
            kind: type[Head] = HEADS.get(entry.head.kind)
            head = kind(inputs, header.targets, entry.head, models=entry.models, device="meta").sized(own)
        except (ConfigError, UsageError) as error:
            raise WeightsError(f"head {str(path)!r}: {error}") from error
        members.append(head)
    expected = {
        f"members.{n}.{name}": value for n, head in enumerate(members) for name, value in head.state_dict().items()
    }
    _check_shapes(path, expected, tensors)
    for number, head in enumerate(members):
        prefix = f"members.{number}."
        head.load_state_dict({name: tensors[prefix + name] for name in head.state_dict()}, strict=True, assign=True)
        head.requires_grad_(False)
    return Ensemble(members, [entry.weight for entry in header.members]).eval(), dict(header.meta)


def load_head(path: Path) -> tuple[Head, dict[str, Any]]:
    """The one head in a file, and its `meta`.

    Raises:
        WeightsError: as `load_ensemble`, or there are several.
    """
    ensemble, meta = load_ensemble(path)
    if len(ensemble.heads) != 1:
        raise WeightsError(f"{str(path)!r} holds {len(ensemble.heads)} heads, expected one")
    return ensemble.heads[0], meta


def _read(path: Path) -> tuple[dict[str, Tensor], _Header]:
    try:
        with safetensors.safe_open(str(path), framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (safe_open is no dict)
    except FileNotFoundError as error:
        raise WeightsError(f"head {str(path)!r} does not exist") from error
    except (OSError, safetensors.SafetensorError) as error:
        raise WeightsError(f"head {str(path)!r} cannot be read: {error}") from error
    if _HEADER_KEY not in metadata:
        raise WeightsError(f"{str(path)!r} is not a head of vqa-train: its header has no {_HEADER_KEY!r}")
    try:
        return tensors, parse(_Header, json.loads(metadata[_HEADER_KEY]), str(path))
    except (ValueError, RecursionError, ConfigError) as error:
        raise WeightsError(f"head {str(path)!r} has a malformed header: {error}") from error


def _check_shapes(path: Path, expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    problems = [f"missing {name}" for name in expected.keys() - found.keys()]
    problems += [f"unexpected {name}" for name in found.keys() - expected.keys()]
    for name in expected.keys() & found.keys():
        want, got = expected[name], found[name]
        if (want.shape, want.dtype) != (got.shape, got.dtype):
            problems.append(f"{name} is {got.dtype} {tuple(got.shape)}, expected {want.dtype} {tuple(want.shape)}")
        elif not got.isfinite().all():
            problems.append(f"{name} holds NaN or infinity")
    if problems:
        listed = sorted(problems)[:_MAX_LISTED]
        more = f" and {len(problems) - len(listed)} more" if len(problems) > len(listed) else ""
        raise WeightsError(f"head {str(path)!r} does not fit its network: {'; '.join(listed)}{more}")
