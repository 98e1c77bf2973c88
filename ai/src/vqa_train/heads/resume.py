"""The state of a training on disk, so that an interrupted one goes on where it was, to the same weights."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqa_train.core.errors import RunError
from vqa_train.core.files import atomic_write_bytes
from vqa_train.core.hashing import canonical_json, sha256_bytes, sha256_json
from vqa_train.heads.loop import BatchedLoop
from vqa_train.heads.member import Member

SECONDS = 10.0
"""The state is written this often, and at the end."""
_KEY = "vqa_train_training"


class Saved:
    """The state of one batch of heads in `folder`, in a file named by everything that decides its result.

    Args:
        folder: made when needed.
        loop: not begun.
    """

    def __init__(self, folder: Path, loop: BatchedLoop) -> None:
        self._loop = loop
        self.path = folder / f"{_identity(loop)[:32]}.safetensors"
        self._last = time.monotonic()

    def keep(self, *, now: bool = False) -> None:
        """Write the state, unless that was done less than `SECONDS` ago.

        Raises:
            OSError: the file cannot be written; an old one is then as it was.
        """
        if not now and time.monotonic() - self._last < SECONDS:
            return
        loop = self._loop
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in _tensors(loop).items()}
        meta: dict[str, Any] = {
            "alive": loop.alive,
            "digest": _digest(tensors),
            "members": [
                {
                    "history": member.history,
                    # JSON has no infinity; Python's own form of a float comes back exactly.
                    "best": None if member.best is None else [repr(value) for value in member.best],
                    "best_epoch": member.best_epoch,
                    "steps": member.steps,
                    "diverged": member.diverged,
                }
                for member in loop.members
            ],
        }
        data = safetensors.torch.save(tensors, metadata={_KEY: canonical_json(meta)})
        self.path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_bytes(self.path, data)
        self._last = time.monotonic()

    def restore(self) -> None:
        """Put the loop into the state on disk, where there is one.

        Raises:
            RunError: the file is damaged.
        """
        if not self.path.is_file():
            return
        loop = self._loop
        try:
            with safetensors.safe_open(str(self.path), framework="pt", device="cpu") as file:
                meta = json.loads((file.metadata() or {})[_KEY])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if _digest(tensors) != meta["digest"]:
                raise ValueError("its tensors are not those that were written")
        except (OSError, KeyError, TypeError, ValueError, safetensors.SafetensorError) as error:
            raise RunError(
                f"training state {str(self.path)!r} cannot be read: {error}", hint="delete it to begin again"
            ) from error
        for member, entry in zip(loop.members, meta["members"], strict=True):
            member.history[:] = entry["history"]
            member.best = None if entry["best"] is None else (float(entry["best"][0]), float(entry["best"][1]))
            member.best_epoch, member.steps = entry["best_epoch"], entry["steps"]
            member.diverged = entry["diverged"]
        loop.reduce_to(meta["alive"])
        with torch.no_grad():
            for name, tensor in _tensors(loop).items():
                tensor.copy_(tensors[name])


def _tensors(loop: BatchedLoop) -> dict[str, Tensor]:
    """What training changes."""
    if not loop.alive:
        return {"best": loop.best}
    return {
        "best": loop.best,
        "matrix": loop.packed.matrix,
        "kept": loop.kept,
        "mean": loop.optimizer.mean,
        "square": loop.optimizer.square,
    }


def _digest(tensors: dict[str, Tensor]) -> str:
    return sha256_json({name: sha256_bytes(tensors[name].numpy().tobytes()) for name in sorted(tensors)})


def _identity(loop: BatchedLoop) -> str:
    """Hash of rows, labels, scalings (which the features decide), recipes, first weights, metric and device."""
    table = loop.table
    arrays: list[NDArray[Any]] = [table.targets, table.dataset]
    arrays += [] if table.target_std is None else [table.target_std]
    metric = getattr(loop.metric, "name", None) or getattr(loop.metric, "__qualname__", type(loop.metric).__qualname__)
    return sha256_json(
        {
            "rows": table.identity,
            "labels": [sha256_bytes(array.tobytes()) for array in arrays],
            "metric": metric,
            "device": loop.device.type,
            "first": sha256_bytes(loop.packed.matrix.detach().cpu().numpy().tobytes()),
            "members": [_of_member(member) for member in loop.members],
        }
    )


def _of_member(member: Member) -> list[Any]:
    statistics = member.scaling.statistics
    arrays: list[NDArray[Any]] = [member.train, member.validation, statistics.input_mean, statistics.input_std]
    return [member.config.model_dump(mode="json"), *(sha256_bytes(array.tobytes()) for array in arrays)]
