"""The one place that turns a torch module into an ONNX file: no machine paths, the same bytes every time."""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from torch.jit._trace import TracerWarning  # torch.jit has it too, but does not export it to type checkers

from vqa_train.core.errors import ModelError
from vqa_train.core.files import atomic_write_bytes
from vqa_train.core.hashing import canonical_json, sha256_bytes
from vqa_train.onnx.external import attach_weights

MAX_INSIDE = (1 << 31) - (1 << 24)
_MAX_IR_VERSION = 10


@dataclass(frozen=True)
class Exported:
    """An ONNX file just written: where, the sha256 and size of its bytes, its default operator set, and the file of
    weights beside it where they were too large to be inside (the sha256 covers it)."""

    path: Path
    sha256: str
    bytes: int
    opset: int
    weights: Path | None = None


def export_module(
    module: nn.Module,
    example_inputs: Tensor | tuple[Tensor, ...],
    path: Path,
    *,
    input_names: Sequence[str],
    output_names: Sequence[str],
    dynamic_axes: Mapping[str, Mapping[int, str]],
    opset: int = 17,
    metadata: Mapping[str, Any] | None = None,
    max_inside: int = MAX_INSIDE,
    fold: bool = True,
) -> Exported:
    """Write `module` to `path` as an ONNX file, in inference mode whatever mode it is in.

    Weights of more than `max_inside` bytes go into a file beside it (`onnx.external`), since no ONNX file may be
    larger than 2 GiB; the graph names that file's hash, so its own hash covers both.

    The TorchScript exporter is used on purpose: it writes opset 17 itself, where the newer one writes 18 and
    converts down. Tracing turns Python decisions into constants; whether that was right is what the parity
    check of every exported file finds out.

    Args:
        module: takes the example inputs positionally and returns a tensor or a tuple of tensors.
        example_inputs: what to trace with.
        path: written atomically.
        input_names, output_names: in the module's order.
        dynamic_axes: input or output name -> {axis: name}; other dimensions are fixed as traced.
        opset: version of the default operator set.
        metadata: key -> text or JSON value, embedded in the file.
        max_inside: bytes of weights that one file may hold.
        fold: compute in advance what depends on weights alone. False keeps weights as the module has them, which a
            runtime then folds when it loads the file: smaller where weights are cast or transposed.

    Raises:
        ModelError: torch cannot export it, the checker refuses it, it names a path of this machine.
    """
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    outside = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) > max_inside
    inputs = (example_inputs,) if isinstance(example_inputs, Tensor) else example_inputs
    names = (input_names, output_names)
    traced = _trace(module, inputs, path, *names, dynamic_axes, opset, inside=not outside, fold=fold and not outside)
    model = onnx.load_model_from_string(traced)
    weights = None
    if outside:
        path.parent.mkdir(parents=True, exist_ok=True)
        weights = attach_weights(model, tensors, path.parent)
        left = [value.name for value in model.graph.input if value.name not in input_names]
        if left:
            raise ModelError(f"{path.name!r} has inputs {left[:3]} that are no tensors of the network")
    for key, value in sorted((metadata or {}).items()):
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value if isinstance(value, str) else canonical_json(value)
    _check(model, path, opset, inside=not outside)
    data = model.SerializeToString(deterministic=True)
    _refuse_machine_paths(data, path)
    atomic_write_bytes(path, data)
    return Exported(path=path, sha256=sha256_bytes(data), bytes=len(data), opset=opset, weights=weights)


def _trace(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    path: Path,
    input_names: Sequence[str],
    output_names: Sequence[str],
    dynamic_axes: Mapping[str, Mapping[int, str]],
    opset: int,
    *,
    inside: bool,
    fold: bool,
) -> bytes:
    buffer = io.BytesIO()
    try:
        with warnings.catch_warnings(), torch.no_grad():
            # The exporter announces its own age, each traced decision, and each operator it builds from others.
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            warnings.filterwarnings("ignore", category=TracerWarning)
            warnings.filterwarnings("ignore", message="Exporting aten::", category=UserWarning)
            warnings.filterwarnings("ignore", message="Constant folding", category=UserWarning)
            torch.onnx.export(
                module,
                inputs,
                buffer,  # type: ignore[arg-type]  # the TorchScript exporter takes a buffer, the signature says path
                dynamo=False,
                opset_version=opset,
                export_params=inside,
                # Where weights are outside, folding would make tensors that the network does not have.
                do_constant_folding=fold,
                input_names=list(input_names),
                output_names=list(output_names),
                dynamic_axes={name: dict(axes) for name, axes in dynamic_axes.items()},
            )
    except (RuntimeError, torch.onnx.errors.OnnxExporterError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"torch cannot export {path.name!r} to ONNX opset {opset}: {first[:300]}") from error
    return buffer.getvalue()


def _check(model: onnx.ModelProto, path: Path, opset: int, *, inside: bool) -> None:
    versions = {entry.domain: entry.version for entry in model.opset_import}
    if versions.get("") != opset:
        raise ModelError(f"{path.name!r} came out as opset {versions.get('')}, asked for {opset}")
    if model.ir_version > _MAX_IR_VERSION:
        raise ModelError(f"{path.name!r} has IR version {model.ir_version}, runtimes are sure of {_MAX_IR_VERSION}")
    if not inside:
        return  # the checker looks for external data in the working folder; the parity check runs the graph
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(f"{path.name!r} fails the ONNX checker: {str(error)[:300]}") from error


def _refuse_machine_paths(data: bytes, path: Path) -> None:
    suspects = {"site-packages", str(Path.home()) + os.sep, os.fspath(sys.prefix) + os.sep}
    if len(Path.cwd().parts) > 2:  # "/net/" alone could be the name of a layer
        suspects.add(str(Path.cwd()) + os.sep)
    for suspect in sorted(suspects - {os.sep, os.sep * 2}):
        if suspect.encode() in data:
            raise ModelError(f"{path.name!r} would contain the machine path {suspect!r}")
