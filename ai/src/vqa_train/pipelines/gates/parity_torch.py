"""A model's head against the heads of the run that it was exported from: identity, weights, every output."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.errors import RunError, VqaError
from vqa_train.core.plugins import needs
from vqa_train.onnx.parity import row_sets
from vqa_train.onnx.runtime import OnnxModel
from vqa_train.pipelines.gates.model import GateModel
from vqa_train.pipelines.gates.parity_compare import Difference, difference_of, held
from vqa_train.pipelines.gates.result import Check

_LISTED = 3


def compare_with_run(
    found: GateModel, head: OnnxModel, tolerance: float, checkpoint: Path, rows: Mapping[str, NDArray[np.float32]]
) -> tuple[list[Check], list[Difference]]:
    """Checks `torch.run`, `torch.weights` and one per output, and the differences behind them.

    `torch.weights` compares the tensors of the run with those of the same name in the graph, byte for byte: a flipped
    bit that no score shows is found.

    Raises:
        RunError: `checkpoint` is not a run folder.
        DependencyError: torch or the onnx package is not installed.
    """
    with needs("comparing with torch", "train"):
        import onnx.numpy_helper
        import safetensors  # noqa: F401
        import torch  # noqa: F401
    from vqa_train.onnx.parity import torch_reference
    from vqa_train.pipelines import runs
    from vqa_train.pipelines.export.graph import run_graph

    if not (checkpoint / runs.RUN_FILE).is_file():
        runs.open_run(checkpoint)  # says what it is instead
    try:
        record = runs.open_run(checkpoint)
        run = run_graph(checkpoint, record)
    except RunError as error:
        return [Check.failed("torch.run", str(error))], []
    sidecar = found.sidecar
    same = record.config_sha256 == sidecar.train_config_hash
    message = "the model was exported from a run of this recipe" if same else "the model was exported from another run"
    checks = [Check.equal("torch.run", record.config_sha256[:12], sidecar.train_config_hash[:12], message)]
    shapes = {item.name: tuple(item.dims) for item in sidecar.inputs}
    if run.ensemble.inputs != shapes or list(run.graph.output_names) != sidecar.output_names:
        text = f"the run has inputs {run.ensemble.inputs} and outputs {list(run.graph.output_names)}"
        return [*checks, Check.failed("torch.outputs", f"{text}, the model {shapes} and {sidecar.output_names}")], []
    state = {name: tensor.numpy() for name, tensor in run.graph.state_dict().items()}
    graph = onnx.load_model(found.head)
    tensors = {entry.name: onnx.numpy_helper.to_array(entry) for entry in graph.graph.initializer}
    checks += _weights(state, tensors)
    reference = torch_reference(run.graph, list(shapes), run.graph.output_names)
    differences = []
    try:
        for name, inputs in row_sets(rows, head.sha256, missing=True).items():
            expected = {output: np.asarray(values) for output, values in reference(inputs).items()}
            got = head.run(inputs)
            differences += [
                Difference("torch", difference_of(name, output, expected, got, run.floor, run.unbounded))
                for output in expected
            ]
    except VqaError as error:
        return [*checks, Check.failed("torch.outputs", str(error))], []
    return [*checks, *held(differences, tolerance)], differences


def _weights(state: Mapping[str, NDArray[Any]], tensors: Mapping[str, NDArray[Any]]) -> list[Check]:
    """Tensors of the run that the graph has under their names: bytes must be equal."""
    shared = sorted(state.keys() & tensors.keys())
    if not shared:
        return [Check.not_run("torch.weights", "the graph has none of the run's tensors under their names")]
    differing = [
        name
        for name in shared
        if state[name].shape != tensors[name].shape or state[name].tobytes() != tensors[name].tobytes()
    ]
    message = f"{len(shared)} tensors of the run are in the graph"
    if differing:
        message += f"; these differ: {', '.join(differing[:_LISTED])}{' ...' if len(differing) > _LISTED else ''}"
    return [Check.at_most("torch.weights", len(differing), 0, message)]
