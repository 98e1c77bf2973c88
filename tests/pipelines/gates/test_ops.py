"""check ops: every operator that a file needs is found, wherever it is, and one outside the list fails."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.tools.reduced_build_config_parser import parse_config
from typer.testing import CliRunner

from vqa_train.core.errors import ConfigError, ModelError, UsageError
from vqa_train.onnx.operators import Operator, operators_of, read_list, render_list
from vqa_train.pipelines.gates.ops import OpsLimits, check_ops


def value(name: str, shape: list[int] | None = None) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape or [2])


def branch(name: str, *nodes: Any) -> Any:
    return helper.make_graph(list(nodes), name, [], [value(nodes[-1].output[0])])


def nested() -> Any:
    """`If` inside `If`; a function that holds another `If`, calls itself nothing and is called twice."""
    inner = helper.make_node(
        "If", ["c"], ["i"],
        then_branch=branch("t", helper.make_node("Softsign", ["x"], ["a"])),
        else_branch=branch("e", helper.make_node("Neg", ["x"], ["b"])),
    )  # fmt: skip
    outer = helper.make_node(
        "If", ["c"], ["o"],
        then_branch=branch("t2", inner),
        else_branch=branch("e2", helper.make_node("Abs", ["x"], ["d"])),
    )  # fmt: skip
    function = helper.make_function(
        "mine", "Twice", ["p"], ["q"],
        [helper.make_node("Add", ["p", "p"], ["r"]), helper.make_node("Gelu", ["r"], ["q"], domain="com.microsoft")],
        [helper.make_opsetid("", 15), helper.make_opsetid("com.microsoft", 1)],
    )  # fmt: skip
    calls = [
        helper.make_node("Twice", ["o"], ["s"], domain="mine"),
        helper.make_node("Twice", ["s"], ["y"], domain="mine"),
    ]
    graph = helper.make_graph(
        [outer, *calls], "g", [helper.make_tensor_value_info("c", TensorProto.BOOL, []), value("x")], [value("y")]
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    return helper.make_model(graph, opset_imports=opsets, functions=[function])


def by_the_onnx_package(model: Any) -> dict[str, int]:
    """The same, counted with the onnx package."""
    found: Counter[str] = Counter()
    functions = {(f.domain, f.name) for f in model.functions}

    def walk(nodes: Any, opsets: dict[str, int]) -> None:
        for node in nodes:
            if (node.domain, node.op_type) not in functions:
                domain = node.domain or "ai.onnx"
                found[f"{domain};{opsets[domain]};{node.op_type}"] += 1
            for attribute in node.attribute:
                for graph in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                    walk(graph.node, opsets)

    opsets = {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}
    walk(model.graph.node, opsets)
    for function in model.functions:
        walk(function.node, opsets | {entry.domain or "ai.onnx": entry.version for entry in function.opset_import})
    return dict(found)


def test_operators_are_those_that_the_onnx_package_finds(fitted: Any) -> None:
    model = nested()
    onnx.checker.check_model(model)
    found = {str(operator): count for operator, count in operators_of(model.SerializeToString()).items()}
    assert found == by_the_onnx_package(model)
    assert found == {
        "ai.onnx;15;Add": 1, "ai.onnx;17;Abs": 1, "ai.onnx;17;If": 2, "ai.onnx;17;Neg": 1, "ai.onnx;17;Softsign": 1,
        "com.microsoft;1;Gelu": 1,
    }  # fmt: skip
    head = operators_of(fitted.model.read_bytes())
    assert {str(o): n for o, n in head.items()} == by_the_onnx_package(onnx.load(fitted.model))


def test_training_graphs_count(fitted: Any) -> None:
    model = nested()
    info = model.training_info.add()
    info.algorithm.CopyFrom(branch("step", helper.make_node("Sqrt", ["x"], ["z"])))
    assert Operator("ai.onnx", 17, "Sqrt") in operators_of(model.SerializeToString())


def test_a_domain_that_is_not_imported_is_an_error() -> None:
    model = nested()
    del model.opset_import[0]
    with pytest.raises(ModelError, match="does not import"):
        operators_of(model.SerializeToString())


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 255))
def test_a_damaged_file_is_an_error_or_other_operators_never_a_crash(place: int, byte: int) -> None:
    data = bytearray(nested().SerializeToString())
    data[place % len(data)] = byte
    with contextlib.suppress(ModelError):
        operators_of(bytes(data))


LIST = """\
# what the runtime has
ai.onnx;17;Add,Cast{"inputs": {"0": ["float", "int32_t"]}, "outputs": {"0": ["int64_t"]}},Concat
ai.onnx;12,13;MatMul, Gemm

com.microsoft;1;Gelu
"""


def test_a_list_is_read_as_onnxruntime_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "ops.config"
    path.write_text(LIST)
    expected, _ = parse_config(str(path))
    mine: dict[str, dict[int, set[str]]] = {}
    found = read_list(path)
    for operator in found.operators:
        mine.setdefault(operator.domain, {}).setdefault(operator.opset, set()).add(operator.name)
    assert mine == expected
    assert found.typed


def test_a_written_list_is_read_by_onnxruntime_and_allows_what_it_was_written_for(fitted: Any, tmp_path: Path) -> None:
    path = tmp_path / "ops.config"
    report = check_ops(str(fitted.model), OpsLimits(), write=path)
    assert report.verdict == "not_run"
    expected, _ = parse_config(str(path))
    assert expected == {"ai.onnx": {17: {operator.name for operator in operators_of(fitted.model.read_bytes())}}}
    assert check_ops(str(fitted.model), OpsLimits(allow=path)).verdict == "pass"


@pytest.mark.parametrize(
    "line", ["ai.onnx;17", "ai.onnx;seventeen;Add", "ai.onnx;17;Add,,Mul", 'ai.onnx;17;Cast{"inputs"', "Add", "a;1;B}"]
)
def test_a_line_that_is_none_is_refused_with_its_number(line: str, tmp_path: Path) -> None:
    path = tmp_path / "ops.config"
    path.write_text(f"ai.onnx;17;Add\n{line}\n")
    with pytest.raises(ConfigError, match="line 2"):
        read_list(path)


def test_an_empty_list_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ops.config"
    path.write_text("# nothing\n!no_ops_specified_means_all_ops_are_required\n")
    with pytest.raises(ConfigError, match="names no operators"):
        read_list(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_list(tmp_path / "none")


@pytest.fixture
def allow(fitted: Any, tmp_path: Path) -> Path:
    path = tmp_path / "allow.config"
    path.write_text(render_list(operators_of(fitted.model.read_bytes()), "of the honest model"))
    return path


def hide_in_a_branch(model: Any) -> None:
    """Put `Softsign` into a branch of an `If` inside a branch of an `If` that is never taken, before the output."""
    name = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = [f"{n}_straight" if n == name else n for n in node.output]
        node.input[:] = [f"{n}_straight" if n == name else n for n in node.input]
    model.graph.initializer.append(numpy_helper.from_array(np.array(False), "never"))
    straight = helper.make_node("Identity", [f"{name}_straight"], ["kept"])
    deep = helper.make_node(
        "If", ["never"], ["deep"],
        then_branch=branch("d", helper.make_node("Softsign", [f"{name}_straight"], ["soft"])),
        else_branch=branch("s", helper.make_node("Identity", [f"{name}_straight"], ["kept2"])),
    )  # fmt: skip
    model.graph.node.append(
        helper.make_node("If", ["never"], [name], then_branch=branch("o", deep), else_branch=branch("k", straight))
    )


def test_an_operator_outside_the_list_in_a_nested_subgraph_is_caught(
    fitted: Any, retouch: Callable[..., Path], tmp_path: Path, allow: Path
) -> None:
    allow.write_text(allow.read_text().rstrip() + ",If,Identity\n")
    assert check_ops(str(fitted.model), OpsLimits(allow=allow)).verdict == "pass"
    path = retouch(fitted.copy(tmp_path), hide_in_a_branch)
    report = check_ops(str(path), OpsLimits(allow=allow))
    (check,) = report.checks
    assert (report.verdict, check.name, check.value) == ("fail", "head.operators", 1)
    assert "ai.onnx;17;Softsign" in check.message


def test_an_operator_listed_under_another_opset_is_not_listed(fitted: Any, allow: Path) -> None:
    allow.write_text(allow.read_text().replace(";17;", ";13;"))
    (check,) = check_ops(str(fitted.model), OpsLimits(allow=allow)).checks
    assert check.verdict == "fail"
    assert "ai.onnx;17;Abs (listed under opset 13)" in check.message


def test_types_that_are_not_looked_at_are_no_pass(fitted: Any, allow: Path) -> None:
    allow.write_text(allow.read_text() + "!globally_allowed_types;float,int64_t\n")
    report = check_ops(str(fitted.model), OpsLimits(allow=allow))
    assert {check.name: check.verdict for check in report.checks} == {"head.operators": "pass", "types": "not_run"}
    assert report.verdict == "not_run"
    assert check_ops(str(fitted.model), OpsLimits(allow=allow, ignore_types=True)).verdict == "pass"


def test_a_changed_file_fails(fitted: Any, tmp_path: Path, allow: Path) -> None:
    path = fitted.copy(tmp_path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    (check,) = check_ops(str(path), OpsLimits(allow=allow)).checks
    assert (check.name, check.verdict) == ("head.file", "fail")
    assert "has sha256" in check.message


def test_wrong_usage_is_said(fitted: Any, allow: Path) -> None:
    with pytest.raises(UsageError, match="--allow"):
        check_ops(str(fitted.model), OpsLimits())
    with pytest.raises(UsageError, match="no backbones"):
        check_ops(str(fitted.model), OpsLimits(allow=allow, backbones=True))


def test_the_command_writes_checks_and_ends_with_3(fitted: Any, tmp_path: Path) -> None:
    from vqa_train.cli.main import app

    path = tmp_path / "ops.config"
    done = CliRunner().invoke(app, ["check", "ops", str(fitted.model), "--write", str(path)])
    assert done.exit_code == 0
    assert "nothing was checked" in done.stdout
    gates = tmp_path / "gates.yaml"
    gates.write_text(f"schema: vqa-train/gates/1\nops: {{allow: {path}}}\n")
    words = ["check", "ops", str(fitted.model), "--gates", str(gates)]
    assert CliRunner().invoke(app, words).exit_code == 0
    path.write_text(path.read_text().replace("Gemm", "MatMul"))
    done = CliRunner().invoke(app, [*words, "--json", "-"])
    assert done.exit_code == 3
    assert json.loads(done.stdout)["verdict"] == "fail"
