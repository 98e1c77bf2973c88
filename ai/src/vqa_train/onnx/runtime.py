"""Runs a verified ONNX file with onnxruntime; imports neither torch nor the onnx package."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from vqa_train.core.errors import ModelError, UsageError
from vqa_train.core.hashing import sha256_bytes, sha256_file
from vqa_train.onnx.proto import OnnxFacts, read_facts

CPU = ("CPUExecutionProvider",)
FINGERPRINT_KEY = "vqa_train.fingerprint"
"""Key of the embedded metadata that says which features a backbone's graph computes."""
EXTERNAL_KEY = "vqa_train.external"
"""Key of the embedded metadata that names files of weights beside the graph: {name: {"sha256", "bytes"}}."""

_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
}
_ERRORS_ONLY = 3


_Form = tuple[np.dtype[Any], int, tuple[tuple[int, int], ...]]
"""What an array must be: dtype, number of axes, (axis, size) of those that are fixed."""


@dataclass(frozen=True)
class TensorInfo:
    """One input or output of a graph; a dimension is its size, or a name (or None) where it may vary."""

    name: str
    dtype: type[np.generic]
    shape: tuple[int | str | None, ...]


class OnnxModel:
    """An ONNX file whose bytes were verified before onnxruntime saw them.

    Args:
        path: the file.
        expected_sha256: hex digest that the bytes must have; None skips the check (a file just written).
        threads: intra-operator threads; 0 lets onnxruntime take all cores.
        providers: execution providers, in order of preference; every one of them must be usable.
        optimised: False runs every node as the file has it, without onnxruntime's graph optimisations.

    Attributes:
        path: as given.
        sha256: of the bytes.
        opset, ir_version: versions of the default operator set and of the file format.
        inputs, outputs: name -> `TensorInfo`, in the graph's order.
        metadata: the key-value pairs embedded in the file.
        external: files of weights beside the graph, each verified against the hash that the graph names.

    Raises:
        ModelError: missing file, another hash, external data that no hash covers, not ONNX, an unusable provider.
    """

    def __init__(
        self,
        path: Path,
        *,
        expected_sha256: str | None = None,
        threads: int = 0,
        providers: Sequence[str] = CPU,
        optimised: bool = True,
    ) -> None:
        if threads < 0:
            raise UsageError(f"threads must be 0 (all cores) or more, got {threads}")
        self.path = path
        data = _read(path)
        self.sha256 = sha256_bytes(data)
        if expected_sha256 is not None and self.sha256 != expected_sha256:
            raise ModelError(
                f"ONNX file {str(path)!r} has sha256 {self.sha256[:12]}, expected {expected_sha256[:12]}",
                hint="it was changed after it was registered; restore it or register the model again",
            )
        facts = _facts(path, data)
        self.external = _external_files(path, facts)
        self._session = _session(path, data, threads, providers, optimised)
        self.opset, self.ir_version = facts.opset, facts.ir_version
        self.inputs = _infos(self._session.get_inputs())
        self.outputs = _infos(self._session.get_outputs())
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        # A head takes tens of microseconds a row, so what `run` compares is worked out once.
        self._forms = {name: _form(info) for name, info in self.inputs.items()}
        self._names = list(self.outputs)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The outputs by name for `inputs` by name.

        Raises:
            ModelError: names, dtypes or fixed dimensions differ from the graph's, or onnxruntime fails.
        """
        if inputs.keys() != self._forms.keys():
            raise ModelError(f"{self.path.name!r} takes inputs {sorted(self.inputs)}, got {sorted(inputs)}")
        for name, array in inputs.items():
            dtype, axes, fixed = self._forms[name]
            shape = array.shape
            if array.dtype != dtype or len(shape) != axes or any(shape[axis] != size for axis, size in fixed):
                raise _misfit(self.path, self.inputs[name], array)
        try:
            values = self._session.run(self._names, dict(inputs))
        except Exception as error:  # onnxruntime raises classes of its own that share no public base
            raise ModelError(f"onnxruntime failed on {self.path.name!r}: {str(error)[:300]}") from error
        return dict(zip(self._names, values, strict=True))


def _form(info: TensorInfo) -> _Form:
    fixed = tuple((axis, size) for axis, size in enumerate(info.shape) if isinstance(size, int))
    return np.dtype(info.dtype), len(info.shape), fixed


def _misfit(path: Path, info: TensorInfo, array: NDArray[Any]) -> ModelError:
    return ModelError(
        f"input {info.name!r} of {path.name!r} is {np.dtype(info.dtype)} {list(info.shape)}, "
        f"got {array.dtype} {list(array.shape)}"
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ModelError(f"ONNX file {str(path)!r} does not exist") from error
    except OSError as error:
        raise ModelError(f"ONNX file {str(path)!r} cannot be read: {error.strerror}") from error


def _facts(path: Path, data: bytes) -> OnnxFacts:
    try:
        facts = read_facts(data)
    except ModelError as error:
        raise ModelError(f"{str(path)!r} is {error.message}") from error
    return facts


def _external_files(path: Path, facts: OnnxFacts) -> tuple[Path, ...]:
    """The files of weights beside the graph, verified; the graph's own hash covers their hashes."""
    try:
        claimed = json.loads(facts.metadata.get(EXTERNAL_KEY, "{}"))
        hashes = {str(name): str(entry["sha256"]) for name, entry in claimed.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ModelError(f"ONNX file {str(path)!r} has malformed metadata {EXTERNAL_KEY!r}") from error
    uncovered = sorted(facts.locations - hashes.keys())
    if uncovered or (facts.external and not facts.locations):
        raise ModelError(
            f"ONNX file {str(path)!r} keeps {len(facts.external)} tensors outside the file "
            f"(first: {facts.external[0]!r})",
            hint="its hash does not cover those; save it with its weights inside",
        )
    found = []
    for name, sha256 in sorted(hashes.items()):
        if Path(name).name != name or name in ("", ".", ".."):
            raise ModelError(f"ONNX file {str(path)!r} names weights {name!r}, expected a file beside it")
        beside = path.parent / name
        try:
            actual = sha256_file(beside)
        except OSError as error:
            raise ModelError(
                f"weights {str(beside)!r} of ONNX file {path.name!r} cannot be read: {error.strerror}",
                hint="they must lie beside it",
            ) from error
        if actual != sha256:
            raise ModelError(f"weights {str(beside)!r} have sha256 {actual[:12]}, {path.name!r} expects {sha256[:12]}")
        found.append(beside)
    return tuple(found)


def _session(
    path: Path, data: bytes, threads: int, providers: Sequence[str], optimised: bool
) -> onnxruntime.InferenceSession:
    available = onnxruntime.get_available_providers()
    missing = [provider for provider in providers if provider not in available]
    if missing:
        raise ModelError(f"execution provider {missing[0]!r} is not installed", hint=f"available: {available}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Idle threads that spin take the core from whoever shares it: nss on two busy cores took twice as long with them.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(path.parent))
    options.log_severity_level = _ERRORS_ONLY
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(data, sess_options=options, providers=list(providers))
    except Exception as error:  # onnxruntime raises classes of its own that share no public base
        raise ModelError(f"onnxruntime cannot load {str(path)!r}: {str(error)[:300]}") from error
    # A provider whose libraries are missing is dropped by onnxruntime with a log line only.
    dropped = [provider for provider in providers if provider not in session.get_providers()]
    if dropped:
        raise ModelError(f"execution provider {dropped[0]!r} is installed but could not be started")
    return session


def _infos(nodes: Sequence[Any]) -> dict[str, TensorInfo]:
    infos = {}
    for node in nodes:
        if node.type not in _DTYPES:
            raise ModelError(f"graph input or output {node.name!r} has the unsupported type {node.type!r}")
        infos[node.name] = TensorInfo(node.name, _DTYPES[node.type], tuple(node.shape))
    return infos
