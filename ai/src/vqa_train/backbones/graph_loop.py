"""A loop recorded as one ONNX Loop while exporting: a turn fits into cache, memory does not grow with turns."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor
from torch.jit._trace import TracerWarning  # torch.jit has it too, but does not export it to type checkers


def export_loop(step: Callable[[Tensor, Tensor, Tensor], Tensor], items: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """`torch.cat([step(items[i : i + 1], one, other) for i in range(len(items))])` as a Loop of the graph.

    Unrolled, the graph would have a copy of the step per item, and onnxruntime's start-up grows with the square of its
    nodes; as one batch, intermediate tensors grow with the items.

    Args:
        step: (1, ...), `one` and `other` to (1, K, ...).
        items: (N, ...).
        one, other: the same in every turn.
    """
    examples = tuple(given.detach().clone() for given in (items[:1], one, other))
    # Tracing state belongs to a thread: the step is traced apart from the export that is under way in this one.
    with ThreadPoolExecutor(1) as thread:
        loop: Any = thread.submit(_script_loop, step, examples).result()
    result: Tensor = loop(items, one, other)
    return result


def export_map(step: Callable[[Tensor], Tensor], items: Tensor) -> Tensor:
    """`export_loop` of a step that takes nothing but the item."""
    nothing = torch.zeros(0)
    return export_loop(lambda item, _one, _other: step(item), items, nothing, nothing)


def _script_loop(step: Callable[[Tensor, Tensor, Tensor], Tensor], examples: tuple[Tensor, ...]) -> Any:
    with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
        # TorchScript is deprecated, and the only exporter to opset 17 is made of it.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", TracerWarning)
        trace: Any = torch.jit.trace
        traced = trace(step, examples, check_trace=False)

        def loop(items: Tensor, one: Tensor, other: Tensor) -> Tensor:
            rows: list[Tensor] = []
            for i in range(items.shape[0]):
                rows.append(traced(items[i : i + 1], one, other))
            return torch.cat(rows)

        return torch.jit.script(loop)
