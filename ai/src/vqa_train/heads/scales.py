"""Several datasets, one quality scale: a map per dataset from the shared quality to that dataset's labels.

The first dataset's scale is the shared one. Labels of every dataset are standardised by their own training rows, and
the map (affine, or affine plus smooth steps) is learned beside the head; all maps rise.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from vqa_train.heads.table import Scaling, TrainingTable

# Places of the smooth steps of a monotone map, in standard deviations of quality.
_KNOTS = (-1.5, -0.5, 0.5, 1.5)
# A new step has this height: softplus(-4) = 0.018, nearly none.
_FLAT = -4.0
_HALVINGS = 20


class ScaleMaps(nn.Module):
    """Maps of D datasets for M models and K targets.

    Args:
        kind: `affine`: exp(s) q + b; `monotone`: the same plus four steps softplus(c) tanh(q - knot).
        datasets: D.
        reference: int64 (M, K), number of the dataset that the shared scale of each target is that of, and that is
            not mapped.
    """

    def __init__(self, kind: Literal["affine", "monotone"], datasets: int, reference: Tensor) -> None:
        super().__init__()
        models, targets = reference.shape
        self.kind = kind
        self.log_slope = nn.Parameter(torch.zeros(models, datasets, targets))
        self.offset = nn.Parameter(torch.zeros(models, datasets, targets))
        if kind == "monotone":
            self.steps = nn.Parameter(torch.full((models, datasets, targets, len(_KNOTS)), _FLAT))
        for parameter in self.parameters():
            parameter.no_decay = True  # type: ignore[attr-defined]  # read by optimizer.Packed
        mapped = torch.ones(models, datasets, targets).scatter_(1, reference.unsqueeze(1), 0.0)
        self.register_buffer("mapped", mapped)
        self.mapped: Tensor

    def forward(self, quality: Tensor, dataset: Tensor) -> Tensor:
        """Standardised quality (M, N, K) to standardised labels of each row's dataset (M, N, K).

        Args:
            dataset: int64 (M, N), number of each row's dataset.
        """
        member = functional.one_hot(dataset, self.mapped.shape[1]).to(quality.dtype)
        slope = torch.bmm(member, (self.log_slope * self.mapped).exp())
        result = quality * slope + torch.bmm(member, self.offset * self.mapped)
        if self.kind == "monotone":
            height = functional.softplus(self.steps) * self.mapped.unsqueeze(-1)
            models, rows, targets = quality.shape
            picked = torch.bmm(member, height.flatten(2)).view(models, rows, targets, len(_KNOTS))
            knots = torch.tensor(_KNOTS, device=quality.device)
            result = result + (picked * torch.tanh(quality.unsqueeze(-1) - knots)).sum(-1)
        return result

    @torch.no_grad()
    def inverse(self, label: Tensor, dataset: Tensor) -> Tensor:
        """Quality (M, N, K) whose label is the given one, both standardised; without gradient."""
        member = functional.one_hot(dataset, self.mapped.shape[1]).to(label.dtype)
        slope = torch.bmm(member, (self.log_slope * self.mapped).exp())
        centre = (label - torch.bmm(member, self.offset * self.mapped)) / slope
        if self.kind == "affine":
            return centre
        # Each step is within plus or minus its height, so the answer is bracketed, and the map rises: halve.
        height = torch.bmm(member, (functional.softplus(self.steps) * self.mapped.unsqueeze(-1)).sum(-1)) / slope
        low, high = centre - height, centre + height
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            above = self(middle, dataset) > label
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        return (low + high) / 2

    @torch.no_grad()
    def numbers(self, model: int, dataset: int, target: int) -> dict[str, Any]:
        """One map: `slope`, `offset` and, where monotone, `steps` at `knots`; all in standard deviations."""
        if not self.mapped[model, dataset, target]:
            return {"kind": "reference", "slope": 1.0, "offset": 0.0}
        entry: dict[str, Any] = {
            "kind": self.kind,
            "slope": float(self.log_slope[model, dataset, target].exp()),
            "offset": float(self.offset[model, dataset, target]),
        }
        if self.kind == "monotone":
            entry["steps"] = functional.softplus(self.steps[model, dataset, target]).tolist()
            entry["knots"] = list(_KNOTS)
        return entry


def described(
    maps: ScaleMaps | None, model: int, table: TrainingTable, scaling: Scaling
) -> dict[str, dict[str, dict[str, Any]]]:
    """Dataset -> target -> the map of one model from the shared scale to that dataset's labels.

    With q a score on the reference dataset's scale and z = (q - `reference_mean`) / `reference_std`, the label to
    expect is `label_mean` + `label_std` * (`slope` * z + `offset` + sum of `steps` * tanh(z - `knots`)); for all but
    `monotone` that is `a` * q + `b`. Kind `same`: nothing was learned, equal standardised labels are equal quality.
    """
    result: dict[str, dict[str, dict[str, Any]]] = {}
    for number, name in enumerate(table.dataset_names):
        result[name] = {}
        for column, target in enumerate(table.target_names):
            reference = int(scaling.reference[column])
            if maps is not None:
                entry = maps.numbers(model, number, column)
            else:
                entry = {"kind": "reference" if number == reference else "same", "slope": 1.0, "offset": 0.0}
            mean, std = float(scaling.label_mean[number, column]), float(scaling.label_std[number, column])
            zero, one = float(scaling.label_mean[reference, column]), float(scaling.label_std[reference, column])
            entry |= {"label_mean": mean, "label_std": std, "reference_mean": zero, "reference_std": one}
            if "steps" not in entry:
                slope = std * entry["slope"] / one
                entry |= {"a": slope, "b": mean + std * entry["offset"] - slope * zero}
            result[name][target] = entry
    return result
