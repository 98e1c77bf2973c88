"""A loop over bursts as one ONNX Loop: each turn's planes fit into cache, and memory does not grow with the bursts."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor
from torch.jit._trace import TracerWarning  # torch.jit has it too, but does not export it to type checkers


def export_loop(step: Callable[[Tensor], Tensor], frames: Tensor) -> Tensor:
    """`torch.cat([step(frames[i : i + 1]) for i in range(len(frames))])`, recorded as a Loop while exporting to ONNX.

    As one batch, the bursts take onnxruntime six times the memory (docs/features/nss.md); unrolled, the graph would
    have eight times the nodes, and onnxruntime's start-up grows with the square of those.

    Args:
        step: (1, ...) -> (1, K).
        frames: (N, ...).
    """
    example = frames[:1].detach().clone()
    # Tracing state belongs to a thread: the step is traced apart from the export that is under way in this one.
    with ThreadPoolExecutor(1) as thread:
        loop: Any = thread.submit(_script_loop, step, example).result()
    result: Tensor = loop(frames)
    return result


def _script_loop(step: Callable[[Tensor], Tensor], example: Tensor) -> Any:
    with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
        # TorchScript is deprecated, and the only exporter to opset 17 is made of it.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", TracerWarning)
        trace: Any = torch.jit.trace
        traced = trace(step, example, check_trace=False)

        def loop(frames: Tensor) -> Tensor:
            rows: list[Tensor] = []
            for i in range(frames.shape[0]):
                rows.append(traced(frames[i : i + 1]))
            return torch.cat(rows)

        return torch.jit.script(loop)
