"""Whether a head's graph and its sidecar belong together; imports no torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from vqa_train.core.errors import ModelError
from vqa_train.onnx.runtime import TensorInfo
from vqa_train.registry.sidecar import INTERVAL_KEY, SCORES, ModelSidecar


class HeadGraph(Protocol):
    """A graph whose interface is known, loaded (`OnnxModel`) or only read (`GraphInterface`)."""

    @property
    def path(self) -> Path:
        """Of the file."""

    @property
    def inputs(self) -> Mapping[str, TensorInfo]:
        """By name, in the graph's order."""

    @property
    def outputs(self) -> Mapping[str, TensorInfo]:
        """By name, in the graph's order."""

    @property
    def opset(self) -> int:
        """Version of the default operator set."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """Embedded in the file."""


@dataclass(frozen=True)
class Comparison:
    """One thing that both say.

    Attributes:
        name: stable, for programs.
        what: for people.
        claimed, found: by the sidecar, in the graph.
    """

    name: str
    what: str
    claimed: Any
    found: Any

    @property
    def same(self) -> bool:
        """Whether they agree."""
        return bool(self.claimed == self.found)


def check_head(head: HeadGraph, sidecar: ModelSidecar) -> None:
    """Whether a head's graph is what its sidecar says: inputs and outputs with their dimensions, the half widths of
    its intervals, opset.

    Raises:
        ModelError: names the first difference.
    """
    for found in comparisons(head, sidecar):
        if not found.same:
            raise ModelError(
                f"model {sidecar.name!r}: its sidecar says {found.what} {found.claimed}, the graph {str(head.path)!r} "
                f"has {found.found}",
                hint="sidecar and graph do not belong together; export again",
            )


def comparisons(head: HeadGraph, sidecar: ModelSidecar) -> Iterator[Comparison]:
    """Everything that scoring relies on and both say.

    Raises:
        ModelError: at the last one, where the graph's metadata of its intervals are malformed.
    """
    yield Comparison("inputs", "inputs", sorted(item.name for item in sidecar.inputs), sorted(head.inputs))
    yield Comparison("outputs", "outputs", sidecar.output_names, list(head.outputs))
    yield Comparison("opset", "opset", sidecar.onnx.opset, head.opset)
    for item in sidecar.inputs:
        if item.name in head.inputs:
            shape = list(head.inputs[item.name].shape[1:])
            yield Comparison(f"dims.{item.name}", f"dimensions of input {item.name!r}", list(item.dims), shape)
    for name, info in head.outputs.items():
        width = info.shape[-1] if info.shape else None
        if isinstance(width, int):
            what = "number of targets" if name == SCORES else f"number of targets in output {name!r}"
            yield Comparison(f"width.{name}", what, len(sidecar.targets), width)
    if sidecar.calibration is not None and sidecar.calibration.bounded:
        yield Comparison("intervals", "intervals", sidecar.calibration.in_graph(), _interval(head))


def _interval(head: HeadGraph) -> Any:
    text = head.metadata.get(INTERVAL_KEY)
    try:
        return None if text is None else json.loads(text)
    except ValueError as error:
        raise ModelError(f"ONNX file {str(head.path)!r} has malformed metadata {INTERVAL_KEY!r}") from error
