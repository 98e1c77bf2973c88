"""Whether a head's graph and its sidecar belong together; imports no torch."""

from __future__ import annotations

import json
from typing import Any

from vqa_train.core.errors import ModelError
from vqa_train.onnx.runtime import OnnxModel
from vqa_train.registry.sidecar import INTERVAL_KEY, SCORES, ModelSidecar


def check_head(head: OnnxModel, sidecar: ModelSidecar) -> None:
    """Whether a head's graph is what its sidecar says: inputs and outputs with their dimensions, the half widths of
    its intervals, opset.

    Raises:
        ModelError: names the first difference.
    """
    pairs: list[tuple[str, Any, Any]] = [
        ("inputs", sorted(item.name for item in sidecar.inputs), sorted(head.inputs)),
        ("outputs", sidecar.output_names, list(head.outputs)),
        ("opset", sidecar.onnx.opset, head.opset),
    ]
    for item in sidecar.inputs:
        if item.name in head.inputs:
            shape = list(head.inputs[item.name].shape[1:])
            pairs.append((f"dimensions of input {item.name!r}", list(item.dims), shape))
    for name, info in head.outputs.items():
        width = info.shape[-1]
        if isinstance(width, int):
            what = "number of targets" if name == SCORES else f"number of targets in output {name!r}"
            pairs.append((what, len(sidecar.targets), width))
    if sidecar.calibration is not None and sidecar.calibration.bounded:
        pairs.append(("intervals", sidecar.calibration.in_graph(), _interval(head)))
    for what, claimed, found in pairs:
        if claimed != found:
            raise ModelError(
                f"model {sidecar.name!r}: its sidecar says {what} {claimed}, the graph {str(head.path)!r} has {found}",
                hint="sidecar and graph do not belong together; export again",
            )


def _interval(head: OnnxModel) -> Any:
    text = head.metadata.get(INTERVAL_KEY)
    try:
        return None if text is None else json.loads(text)
    except ValueError as error:
        raise ModelError(f"ONNX file {str(head.path)!r} has malformed metadata {INTERVAL_KEY!r}") from error
