"""Operators that an ONNX file needs, read from its bytes, and lists of operators that a runtime has; no onnx package.

The lists are ONNX Runtime's reduced-operator configuration, `domain;opset;Op1,Op2` a line:
https://onnxruntime.ai/docs/reference/operators/reduced-operator-config-file.html.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vqa_train.core.errors import ConfigError, ModelError
from vqa_train.onnx.proto import MAX_DEPTH, fields, opset_entry

DEFAULT_DOMAIN = "ai.onnx"
# onnx.proto: field numbers of what can lead to a node.
_MODEL_GRAPH, _MODEL_OPSET, _MODEL_TRAINING, _MODEL_FUNCTION = 7, 8, 20, 25
_TRAINING_GRAPHS = (1, 2)
_GRAPH_NODE = 1
_NODE_OP, _NODE_ATTRIBUTE, _NODE_DOMAIN, _NODE_OVERLOAD = 4, 5, 7, 8
_ATTRIBUTE_GRAPHS = (6, 11)
_FUNCTION_NAME, _FUNCTION_NODE, _FUNCTION_OPSET, _FUNCTION_DOMAIN, _FUNCTION_ATTRIBUTE = 1, 7, 9, 10, 11
_FUNCTION_OVERLOAD = 13
_SIGNATURE = (_FUNCTION_DOMAIN, _FUNCTION_NAME, _FUNCTION_OVERLOAD)

_TYPES_LINE = "!globally_allowed_types;"
_ALL_LINE = "!no_ops_specified_means_all_ops_are_required"


@dataclass(frozen=True, order=True)
class Operator:
    """One operator: its domain (`ai.onnx` for the default one), the opset that the file imports, its name."""

    domain: str
    opset: int
    name: str

    def __str__(self) -> str:
        return f"{self.domain};{self.opset};{self.name}"


@dataclass(frozen=True)
class OperatorList:
    """What a list allows.

    Attributes:
        operators: every operator named.
        typed: whether the list also restricts the types of tensors, which is not looked at here.
    """

    operators: frozenset[Operator]
    typed: bool = False

    def opsets(self, operator: Operator) -> list[int]:
        """Opsets under which an operator of this domain and name is listed."""
        return sorted(o.opset for o in self.operators if (o.domain, o.name) == (operator.domain, operator.name))


@dataclass
class _Walk:
    """Nodes met so far, and the functions that the file defines itself, whose calls are no operators."""

    functions: set[tuple[str, str, str]] = field(default_factory=set)
    found: Counter[Operator] = field(default_factory=Counter)


def operators_of(data: bytes) -> dict[Operator, int]:
    """Operators of a serialised ModelProto and how many nodes have each, sorted.

    Nodes inside subgraphs (`If`, `Loop`, `Scan`), inside functions and in training graphs count. A call of a function
    that the file defines is no operator, what is inside the function is.

    Raises:
        ModelError: the bytes are not an ONNX file, or a node is of a domain that the file does not import.
    """
    try:
        walk = _Walk()
        view = memoryview(data)
        opsets, graphs, functions = {}, [], []
        for number, value in fields(view):
            if isinstance(value, int):
                continue
            if number == _MODEL_OPSET:
                domain, version = opset_entry(value)
                opsets[domain or DEFAULT_DOMAIN] = version
            elif number == _MODEL_GRAPH:
                graphs.append(value)
            elif number == _MODEL_TRAINING:
                graphs += [part for key, part in fields(value) if key in _TRAINING_GRAPHS and not isinstance(part, int)]
            elif number == _MODEL_FUNCTION:
                functions.append(value)
        walk.functions = {_signature(function) for function in functions}
        for graph in graphs:
            _walk_graph(graph, opsets, walk, 0)
        for function in functions:
            _walk_function(function, opsets, walk)
    except (IndexError, ValueError, RecursionError) as error:
        raise ModelError(f"not an ONNX file: {error}") from error
    return dict(sorted(walk.found.items()))


def read_list(path: Path) -> OperatorList:
    """The operators that a file allows.

    Raises:
        ConfigError: it is missing or a line is not `domain;opset[,opset];Op1,Op2`.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"operator list {str(path)!r} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"operator list {str(path)!r} is not UTF-8 text") from error
    operators: set[Operator] = set()
    typed = False
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith("#") or line == _ALL_LINE:
            continue
        if line.startswith(_TYPES_LINE):
            typed = True
            continue
        try:
            domain, versions, rest = line.split(";", 2)
            names, with_types = _names(rest)
            opsets = [int(version) for version in versions.split(",")]
        except ValueError as error:
            raise ConfigError(
                f"operator list {str(path)!r} line {number}: {line[:80]!r} is not `domain;opset;Op1,Op2`"
            ) from error
        typed = typed or with_types
        operators.update(Operator(domain.strip() or DEFAULT_DOMAIN, o, name) for o in opsets for name in names)
    if not operators:
        raise ConfigError(f"operator list {str(path)!r} names no operators, so it would allow none")
    return OperatorList(frozenset(operators), typed)


def render_list(operators: Iterable[Operator], comment: str) -> str:
    """The file's text: a comment, then one line per domain and opset."""
    lines: dict[tuple[str, int], list[str]] = {}
    for operator in sorted(set(operators)):
        lines.setdefault((operator.domain, operator.opset), []).append(operator.name)
    body = [f"{domain};{opset};{','.join(names)}" for (domain, opset), names in lines.items()]
    return "\n".join([*(f"# {line}" for line in comment.splitlines()), *body]) + "\n"


def _names(text: str) -> tuple[list[str], bool]:
    """Names in `Add,Cast{"inputs": {"0": ["float"]}},Concat`, and whether there was anything in braces."""
    outside, depth = [], 0
    for character in text:
        depth += character == "{"
        if depth == 0:
            outside.append(character)
        depth -= character == "}"
        if depth < 0:
            raise ValueError("a brace closes that was not opened")
    names = [name.strip() for name in "".join(outside).split(",")]
    if depth or any(not name.isidentifier() for name in names):
        raise ValueError("not a list of operators")
    return names, "{" in text


def _signature(function: memoryview) -> tuple[str, str, str]:
    parts = {n: _text(v) for n, v in fields(function) if not isinstance(v, int) and n in _SIGNATURE}
    domain, name, overload = (parts.get(number, "") for number in _SIGNATURE)
    return domain or DEFAULT_DOMAIN, name, overload


def _walk_function(function: memoryview, model_opsets: Mapping[str, int], walk: _Walk) -> None:
    opsets = dict(model_opsets)
    for number, value in fields(function):
        if number == _FUNCTION_OPSET and not isinstance(value, int):
            domain, version = opset_entry(value)
            opsets[domain or DEFAULT_DOMAIN] = version
    for number, value in fields(function):
        if number == _FUNCTION_NODE and not isinstance(value, int):
            _walk_node(value, opsets, walk, 0)
        elif number == _FUNCTION_ATTRIBUTE and not isinstance(value, int):
            _walk_attribute(value, opsets, walk, 0)


def _walk_graph(graph: memoryview, opsets: Mapping[str, int], walk: _Walk, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ValueError("graphs are nested too deeply")
    for number, value in fields(graph):
        if number == _GRAPH_NODE and not isinstance(value, int):
            _walk_node(value, opsets, walk, depth)


def _walk_node(node: memoryview, opsets: Mapping[str, int], walk: _Walk, depth: int) -> None:
    name = domain = overload = ""
    for number, value in fields(node):
        if isinstance(value, int):
            continue
        if number == _NODE_OP:
            name = _text(value)
        elif number == _NODE_DOMAIN:
            domain = _text(value)
        elif number == _NODE_OVERLOAD:
            overload = _text(value)
        elif number == _NODE_ATTRIBUTE:
            _walk_attribute(value, opsets, walk, depth)
    domain = domain or DEFAULT_DOMAIN
    if (domain, name, overload) in walk.functions:
        return
    if domain not in opsets:
        raise ModelError(f"operator {name!r} is of domain {domain!r}, which the file does not import")
    walk.found[Operator(domain, opsets[domain], name)] += 1


def _walk_attribute(attribute: memoryview, opsets: Mapping[str, int], walk: _Walk, depth: int) -> None:
    for number, value in fields(attribute):
        if number in _ATTRIBUTE_GRAPHS and not isinstance(value, int):
            _walk_graph(value, opsets, walk, depth + 1)


def _text(value: memoryview) -> str:
    return bytes(value).decode("utf-8", "replace")
