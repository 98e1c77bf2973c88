"""DOVER's networks with the goldens' weights, and the goldens' numbers."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import dover_recipe as recipe
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
MODELS = ("dover", "dover_mobile")
CASES = ("ref", "odd", "faint")
BRANCHES = ("technical", "aesthetic")
# What the official code's own reruns differ by is 2e-6.
TOLERANCE = 1e-5


@cache
def numbers(model: str, case: str) -> dict[str, NDArray[Any]]:
    """The arrays of one golden file."""
    return dict(np.load(GOLDEN / f"{model}_{case}.npz"))


@cache
def keys(model: str) -> dict[str, tuple[int, ...]]:
    """State-dict key -> shape, in the published order."""
    with (GOLDEN / f"{model}_keys.csv").open(newline="") as lines:
        return {row["key"]: tuple(int(n) for n in row["shape"].split("x")) for row in csv.DictReader(lines)}


@cache
def weights(model: str, case: str) -> dict[str, Tensor]:
    """The floating entries of a state dict by the goldens' recipe."""
    rule = recipe.faint if case == "faint" else recipe.fill
    shapes = {key: shape for key, shape in keys(model).items() if not key.endswith("relative_position_index")}
    return {key: torch.from_numpy(rule(key, shape)) for key, shape in shapes.items()}


def load(network: nn.Module, model: str, case: str) -> nn.Module:
    """`network` with the weights of a case, which it shares with others; integer entries stay as they were made."""
    held = {key: entry for key, entry in network.state_dict().items() if not entry.is_floating_point()}
    network.load_state_dict({**weights(model, case), **held}, assign=True)
    return network.eval().requires_grad_(False)


@cache
def clips(model: str, case: str, branch: str) -> Tensor:
    """A branch's input, (B, 3, T, H, W)."""
    return torch.from_numpy(recipe.clip(*numbers(model, case)[f"{branch}/input_spec"].tolist()))


def distances(outputs: tuple[Tensor, Tensor], model: str, case: str, branch: str) -> Iterator[float]:
    """How far features and score map of a branch are from the golden pooled features, score map and score."""
    features, scores = (output.double().numpy() for output in outputs)
    found = {"pooled": features.mean((2, 3, 4)), "score_map": scores, "score": scores.mean((1, 2, 3, 4))}
    for name, values in found.items():
        expected = numbers(model, case)[f"{branch}/{name}"]
        assert values.shape == expected.shape
        yield float(np.abs(values - expected).max())
