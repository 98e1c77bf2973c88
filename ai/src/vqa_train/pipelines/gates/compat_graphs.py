"""Graphs of a model against its sidecar: interface, embedded metadata, versions, golden rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from vqa_train.core.errors import VqaError
from vqa_train.core.types import FeatureSpec
from vqa_train.onnx.interface import GraphInterface
from vqa_train.onnx.runtime import FINGERPRINT_KEY, OnnxModel, TensorInfo
from vqa_train.onnx.support import highest_ir_version, highest_opset
from vqa_train.pipelines.gates.compat_files import GraphFile, same_hash
from vqa_train.pipelines.gates.result import Check
from vqa_train.pipelines.models.check_head import comparisons
from vqa_train.pipelines.models.replay import replay_golden
from vqa_train.registry.sidecar import SCORES, ModelInput, ModelSidecar

TARGETS_KEY, FINGERPRINTS_KEY = "vqa_train.targets", "vqa_train.fingerprints"


def compared(name: str, found: Any, expected: Any, message: str = "") -> Check:
    """A check of equality; values that are no scalars are shown as JSON."""
    return Check.equal(name, _shown(found), _shown(expected), message)


def head_checks(sidecar: ModelSidecar, graph: GraphInterface) -> Iterator[Check]:
    """What the head's graph and its sidecar both say; the sidecar's word is the limit."""
    try:
        for item in comparisons(graph, sidecar):
            yield compared(f"head.{item.name}", item.found, item.claimed)
    except VqaError as error:
        yield Check.failed("head.intervals", str(error))
    order = [item.name for item in sidecar.inputs]
    yield compared("head.order", [name for name in graph.inputs if name in order], order, "order of the inputs")
    tensors = {**graph.inputs, **graph.outputs}
    dtypes = sorted({f"{name} {np.dtype(info.dtype)}" for name, info in tensors.items() if info.dtype != np.float32})
    yield compared("head.dtypes", dtypes, [], "inputs and outputs that are not float32")
    fixed = [name for name, info in tensors.items() if not info.shape or isinstance(info.shape[0], int)]
    yield compared("head.batch", fixed, [], "inputs and outputs whose number of rows is fixed")
    yield _metadata(graph, TARGETS_KEY, "head.targets", list(sidecar.targets))
    yield _metadata(
        graph, FINGERPRINTS_KEY, "head.fingerprints", {item.name: item.fingerprint for item in sidecar.inputs}, _short
    )


def version_checks(
    name: str, graph: GraphInterface, max_opset: int | None, max_ir_version: int | None
) -> Iterator[Check]:
    """Versions of operators and of the file format against the installed onnxruntime and against limits."""
    versions = {"opset": (graph.opset, highest_opset(), max_opset)}
    versions["ir_version"] = (graph.facts.ir_version, highest_ir_version(), max_ir_version)
    for what, (found, supported, limit) in versions.items():
        yield Check.at_most(f"{name}.{what}.supported", found, supported, "newest that this onnxruntime loads")
        if limit is not None:
            yield Check.at_most(f"{name}.{what}.limit", found, limit, f"max_{what}")


def backbone_checks(
    name: str, item: ModelInput, spec: FeatureSpec | None, graph: GraphInterface, outputs: Mapping[str, TensorInfo]
) -> Iterator[Check]:
    """A backbone's graph against the input that takes its features."""
    yield same_hash(f"{name}.fingerprint", graph.metadata.get(FINGERPRINT_KEY), item.fingerprint, "as embedded")
    claimed = item.backbone_onnx.inputs if item.backbone_onnx is not None else {}
    yield compared(f"{name}.inputs", _dims(graph.inputs), {n: _fixed(dims) for n, dims in claimed.items()})
    for output in spec.outputs if spec is not None else ():
        shape = outputs[output.name].shape if output.name in outputs else None
        if shape is None:
            there = ", ".join(outputs) or "none"
            yield Check.failed(f"{name}.output.{output.name}", f"the graph has no such output, it has: {there}")
            continue
        # A text encoder's outputs begin with the number of texts; a size that the graph leaves open fits any.
        found = list(shape[len(shape) - len(output.shape) :])
        fits = len(shape) >= len(output.shape) and all(
            not isinstance(size, int) or size == wanted for size, wanted in zip(found, output.shape, strict=True)
        )
        expected = list(output.shape)
        yield compared(f"{name}.output.{output.name}", expected if fits else list(shape), expected)


def load_check(name: str, file: GraphFile, sha256: str) -> tuple[OnnxModel | None, Check]:
    """Whether onnxruntime takes an ONNX file; one with other bytes than promised is not given to it."""
    if not file.intact:
        return None, Check.not_run(f"{name}.loads", "its bytes are not those of the sidecar: not given to onnxruntime")
    try:
        return OnnxModel(file.path, expected_sha256=sha256, threads=1), Check.passed(f"{name}.loads")
    except VqaError as error:
        return None, Check.failed(f"{name}.loads", str(error))


def golden_checks(sidecar: ModelSidecar, head: OnnxModel | None) -> Iterator[Check]:
    """Shapes of the golden rows, and what the head says of them."""
    golden = sidecar.golden_rows
    rows = len(golden.scores)
    yield Check.at_least("golden.rows", rows, 1)
    sizes = {item.name: [rows, prod(item.dims)] for item in sidecar.inputs}
    yield compared("golden.inputs", {name: _size(values) for name, values in golden.inputs.items()}, sizes)
    claimed = {SCORES: golden.scores, **(golden.outputs or {})}
    expected = {name: [rows, len(sidecar.targets)] for name in sidecar.output_names}
    yield compared("golden.outputs", {name: _size(values) for name, values in claimed.items()}, expected)
    if head is None:
        yield Check.not_run("golden.replay", "the head was not loaded")
        return
    try:
        replay_golden(head, sidecar)
    except VqaError as error:
        yield Check.failed("golden.replay", str(error))
    else:
        yield Check.passed("golden.replay", f"{rows} rows give the scores of the sidecar")


def _metadata(
    graph: GraphInterface, key: str, name: str, expected: Any, show: Callable[[Any], Any] = lambda value: value
) -> Check:
    text = graph.metadata.get(key)
    if text is None:
        return Check.not_run(name, f"the graph does not say (metadata {key!r})")
    try:
        found = json.loads(text)
    except ValueError:
        return Check.failed(name, f"malformed metadata {key!r}")
    check = compared(name, show(found), show(expected), "as embedded in the graph")
    return check if found == expected else replace(check, verdict="fail")


def _short(hashes: Any) -> Any:
    """Twelve digits of each hash."""
    known = isinstance(hashes, Mapping)
    return {name: str(sha256)[:12] for name, sha256 in hashes.items()} if known else hashes


def _dims(infos: Mapping[str, TensorInfo]) -> dict[str, list[int | None]]:
    return {name: _fixed(info.shape) for name, info in infos.items()}


def _fixed(dims: Any) -> list[int | None]:
    """Sizes; None for one that may vary, whatever its name."""
    return [size if isinstance(size, int) else None for size in dims]


def _size(rows: Any) -> list[Any]:
    """[rows, columns]; the columns are a list where rows differ."""
    widths = sorted({len(row) for row in rows})
    return [len(rows), widths[0] if len(widths) == 1 else widths]


def _shown(value: Any) -> Any:
    return (
        value if isinstance(value, str | int | float | None) else json.dumps(value, ensure_ascii=False, sort_keys=True)
    )
