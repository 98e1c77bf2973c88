"""Heads on disk: one safetensors file whose header says how to build the network. No pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

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

HEAD_SCHEMA = "vqa-train/head/1"
_HEADER_KEY = "vqa_train_head"
_MAX_LISTED = 5


class _Input(StrictModel):
    name: str
    dim: int = Field(ge=1)


class _Header(StrictModel):
    schema_: Literal["vqa-train/head/1"] = Field(alias="schema")
    head: HeadConfig
    inputs: tuple[_Input, ...] = Field(min_length=1)
    targets: tuple[str, ...] = Field(min_length=1)
    meta: dict[str, Any] = Field(default_factory=dict)


def save_head(path: Path, head: Head, meta: Mapping[str, Any] | None = None) -> None:
    """Write weights, scalings and how to rebuild the network, atomically; the same head gives the same bytes.

    Args:
        meta: JSON values kept beside it (config hash, best epoch, ...).

    Raises:
        ValueError: `meta` holds NaN or what JSON has no form for.
        OSError: the file cannot be written; an old one is then as it was.
    """
    header = {
        "schema": HEAD_SCHEMA,
        "head": head.config.model_dump(mode="json"),
        "inputs": [{"name": name, "dim": dim} for name, dim in head.inputs.items()],
        "targets": list(head.targets),
        "meta": dict(meta or {}),
    }
    tensors = {name: value.detach().cpu().contiguous() for name, value in head.state_dict().items()}
    # One metadata key: safetensors writes several in an order that changes from run to run.
    data = safetensors.torch.save(tensors, metadata={_HEADER_KEY: canonical_json(header)})
    atomic_write_bytes(path, data)


def load_head(path: Path) -> tuple[Head, dict[str, Any]]:
    """The head in a file, in eval mode on the CPU, and its `meta`.

    Raises:
        WeightsError: missing or damaged file, another schema, or tensors that do not fit the network (the
            difference is listed).
    """
    tensors, header = _read(path)
    inputs = {entry.name: entry.dim for entry in header.inputs}
    if len(inputs) < len(header.inputs):
        raise WeightsError(f"head {str(path)!r} names an input twice")
    try:
        # On "meta" a header that claims a huge network costs nothing before its shapes are compared.
        head: Head = HEADS.get(header.head.kind)(inputs, header.targets, header.head, device="meta")
    except (ConfigError, UsageError) as error:
        raise WeightsError(f"head {str(path)!r}: {error}") from error
    _check_shapes(path, head.state_dict(), tensors)
    head.load_state_dict(tensors, strict=True, assign=True)
    return head.eval(), dict(header.meta)


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
