"""One graph behind one execution provider, compared with what it gives on the CPU without graph optimisations."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.errors import VqaError
from vqa_train.onnx.parity import ParitySet, measure
from vqa_train.onnx.placement import nodes_by_provider
from vqa_train.onnx.providers import PROVIDERS, resolve
from vqa_train.onnx.runtime import OnnxModel
from vqa_train.pipelines.gates.result import Check

Arrays = Mapping[str, NDArray[Any]]

# A feature that is under a tenth on every probe is compared absolutely, as when the backbone was exported.
_FEATURE_FLOOR = 0.1


@dataclass(frozen=True)
class Provided:
    """A graph behind a provider: how reports name it, the provider's short name, the file and its hash."""

    label: str
    provider: str
    path: Path
    sha256: str

    @property
    def name(self) -> str:
        """Start of the names of its checks: `head.cpu`."""
        return f"{self.label}.{self.provider}"


@dataclass(frozen=True)
class Difference:
    """The largest differences of one output over one set of rows, and what was compared: `head.cpu`, `torch`."""

    what: str
    found: ParitySet

    def to_json(self) -> dict[str, Any]:
        """JSON values; NaN is null."""
        numbers = {k: None if isinstance(v, float) and np.isnan(v) else v for k, v in asdict(self.found).items()}
        return {"compared": self.what, "rows_from": numbers.pop("name"), **numbers}


@dataclass(frozen=True)
class Compared:
    """Differences per set of rows and output, and how many nodes each provider ran."""

    sets: Sequence[Difference] = ()
    nodes: Mapping[str, int] = field(default_factory=dict)


def compare_graphs(
    graph: Provided,
    inputs: Mapping[str, Arrays],
    expected: Mapping[str, Arrays],
    tolerance: float,
    *,
    floor: Arrays | None = None,
    unbounded: Collection[str] = (),
    per_feature: bool = False,
) -> tuple[list[Check], Compared]:
    """Run a graph behind its provider and hold every output against what is expected.

    Args:
        graph: what to run.
        inputs: set of rows -> input name -> array.
        expected: set of rows -> output name -> array.
        tolerance: largest scaled difference.
        floor: output -> (K,) that a difference counts against at least; `scores` counts where it is larger.
        unbounded: outputs that may be infinite.
        per_feature: every set is one row, and a difference counts against the largest size of its feature over the
            sets.

    Returns:
        One check per output, or the one that could not be passed.
    """
    try:
        provider = resolve(graph.provider)
        model = OnnxModel(graph.path, expected_sha256=graph.sha256, providers=(provider,))
        got = {name: model.run(arrays) for name, arrays in inputs.items()}
        del model  # a large backbone need not be in memory twice
        nodes = nodes_by_provider(graph.path, provider, next(iter(inputs.values())))
    except VqaError as error:
        return [Check.failed(f"{graph.name}.provider", str(error))], Compared()
    checks = []
    if graph.provider != "cpu":
        share = f"of {sum(nodes.values())} nodes, the rest ran on the CPU"
        checks.append(Check.at_least(f"{graph.name}.provider", nodes.get(PROVIDERS[graph.provider], 0), 1, share))
    sets = (
        _features(graph.name, expected, got)
        if per_feature
        else _rows(graph.name, expected, got, floor or {}, unbounded)
    )
    return [*checks, *held(sets, tolerance)], Compared(sets, nodes)


def held(differences: Sequence[Difference], tolerance: float) -> list[Check]:
    """One check per thing compared and output: its largest difference over all sets of rows."""
    checks = []
    for what, output in dict.fromkeys((one.what, one.found.output) for one in differences):
        mine = [one.found for one in differences if (one.what, one.found.output) == (what, output)]
        # NaN is the worst.
        worst = max(mine, key=lambda one: (np.isnan(one.max_scaled_diff), one.max_scaled_diff))
        rows = sum(one.rows for one in mine)
        message = f"{rows} rows; most on {worst.name}: {worst.max_abs_diff:.3g}"
        checks.append(Check.at_most(f"{what}.{output}", worst.max_scaled_diff, tolerance, message))
    return checks


def _rows(
    what: str,
    expected: Mapping[str, Arrays],
    got: Mapping[str, Arrays],
    floor: Arrays,
    unbounded: Collection[str],
) -> list[Difference]:
    return [
        Difference(what, difference_of(name, output, outputs, got[name], floor, unbounded))
        for name, outputs in expected.items()
        for output in outputs
    ]


def difference_of(
    name: str, output: str, expected: Arrays, got: Arrays, floor: Arrays, unbounded: Collection[str]
) -> ParitySet:
    """One output over one set of rows, measured against its floor, the score, or its own size."""
    values = expected[output]
    if values.shape != got[output].shape:
        return ParitySet(name, len(values), float("nan"), float("nan"), output)
    scores = np.abs(next(iter(expected.values())))
    scale = np.maximum(floor.get(output, 1.0), np.maximum(scores, np.where(np.isfinite(values), np.abs(values), 0)))
    return measure(name, values, got[output], scale=scale, unbounded=output in unbounded, output=output)


def _features(what: str, expected: Mapping[str, Arrays], got: Mapping[str, Arrays]) -> list[Difference]:
    """Differences of features, whose last axis is compared column by column over the sets."""
    found = []
    for output in next(iter(expected.values())):
        largest = np.max([_columns(outputs[output]) for outputs in expected.values()], axis=0)
        scale = np.maximum(largest, _FEATURE_FLOOR)
        for name, outputs in expected.items():
            values, mine = outputs[output], got[name][output]
            if values.shape != mine.shape:
                one = ParitySet(name, 1, float("nan"), float("nan"), output)
            else:
                one = measure(name, values, mine, scale=scale, output=output)
            found.append(Difference(what, ParitySet(name, 1, one.max_abs_diff, one.max_scaled_diff, output)))
    return found


def _columns(values: NDArray[Any]) -> NDArray[Any]:
    """(D,) largest size of each feature over all other axes."""
    largest: NDArray[Any] = np.abs(values).reshape(-1, values.shape[-1]).max(axis=0)
    return largest
