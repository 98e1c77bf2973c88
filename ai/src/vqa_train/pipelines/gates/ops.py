"""check ops: does a model need only operators that a constrained runtime has? Needs no onnx package."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vqa_train.core.config import StrictModel
from vqa_train.core.errors import ModelError, UsageError
from vqa_train.core.files import atomic_write_bytes
from vqa_train.core.hashing import sha256_bytes
from vqa_train.core.provenance import file_entry
from vqa_train.onnx.operators import Operator, OperatorList, operators_of, read_list, render_list
from vqa_train.pipelines.gates.model import GateModel, open_model, provenance_of
from vqa_train.pipelines.gates.result import Check, GateReport

_LISTED = 8


class OpsLimits(StrictModel):
    """The gate file's section `ops`.

    Attributes:
        allow: file of the operators that the runtime has.
        backbones: the graphs of the backbones count too.
        ignore_types: a list that also restricts types of tensors, which is not looked at, is no reason not to pass.
    """

    allow: Path | None = None
    backbones: bool = False
    ignore_types: bool = False


def check_ops(
    model: str, limits: OpsLimits, *, registry: Path = Path("model"), write: Path | None = None
) -> GateReport:
    """Hold the operators of a model's graphs against a list, after writing the list that they need.

    Args:
        model: reference of a registered model or an exported ONNX file.
        limits: `allow` None checks nothing: the report then has no checks and its verdict is `not_run`.
        write: file for the list that the model needs, in the same format.

    Raises:
        UsageError: neither a list nor a file to write, or `backbones` of a model that is not registered.
        ModelError: the model is missing or malformed.
        ConfigError: the list is missing or malformed.
    """
    if limits.allow is None and write is None:
        raise UsageError("name the list with --allow FILE", hint="or write the one that the model needs with --write")
    found = open_model(model, registry)
    if limits.backbones and not found.backbones:
        raise UsageError(f"model {found.label!r} has no backbones: it is not registered", hint="leave out --backbones")
    allowed = read_list(limits.allow) if limits.allow is not None else None
    provenance = provenance_of("check ops", found, limits.model_dump(mode="json"))
    if limits.allow is not None:
        provenance.inputs["allow"] = file_entry(limits.allow, "operator-list")
    checks, graphs = [], {}
    for name, (path, sha256) in _files(found, limits.backbones).items():
        try:
            operators = operators_of(_verified(path, sha256))
        except ModelError as error:
            checks.append(Check.failed(f"{name}.file", str(error)))
            continue
        graphs[name] = operators
        if allowed is not None:
            checks.append(_held(name, operators, allowed))
    if allowed is not None and allowed.typed and not limits.ignore_types:
        checks.append(
            Check.not_run("types", f"{limits.allow} restricts types of tensors, which is not looked at: --ignore-types")
        )
    if write is not None and len(graphs) == len(_files(found, limits.backbones)):
        needed = {operator for operators in graphs.values() for operator in operators}
        what = f"Operators of {found.label}{' and its backbones' if limits.backbones else ''}."
        atomic_write_bytes(write, render_list(needed, what).encode())
    return GateReport(
        gate="ops",
        model=found.label,
        model_sha256=found.sidecar.onnx.sha256,
        checks=checks,
        details={"operators": {name: _counts(operators) for name, operators in graphs.items()}},
        provenance=provenance.to_json(),
    )


def _files(model: GateModel, backbones: bool) -> dict[str, tuple[Path, str]]:
    """Name of a graph -> its file and the hash that its bytes must have."""
    files = {"head": (model.head, model.sidecar.onnx.sha256)}
    if backbones:
        for name, item in model.backbones.items():
            if item.backbone_onnx is not None:
                files[name] = (model.backbone_file(item), item.backbone_onnx.sha256)
    return files


def _verified(path: Path, sha256: str) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"ONNX file {str(path)!r} cannot be read: {error.strerror}") from error
    found = sha256_bytes(data)
    if found != sha256:
        raise ModelError(f"ONNX file {str(path)!r} has sha256 {found[:12]}, the sidecar says {sha256[:12]}")
    return data


def _held(name: str, operators: Mapping[Operator, int], allowed: OperatorList) -> Check:
    outside = [operator for operator in operators if operator not in allowed.operators]
    words = []
    for operator in outside[:_LISTED]:
        other = allowed.opsets(operator)
        words.append(f"{operator}{f' (listed under opset {other[-1]})' if other else ''}")
    more = f" and {len(outside) - _LISTED} more" if len(outside) > _LISTED else ""
    message = f"not listed: {', '.join(words)}{more}" if outside else f"{len(operators)} operators, all listed"
    return Check.at_most(f"{name}.operators", len(outside), 0, message)


def _counts(operators: Mapping[Operator, int]) -> dict[str, Any]:
    return {str(operator): count for operator, count in operators.items()}
