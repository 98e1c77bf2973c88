"""docs/reliability.md promises nothing, and docs/gates.md claims to catch nothing, that no test holds."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
GATES = (ROOT / "docs" / "gates.md").read_text(encoding="utf-8")
LINK = re.compile(r"\[`(tests/[\w/]+\.py)::(\w+)`\]")


@pytest.mark.parametrize(("page", "least"), [(PAGE, 30), (GATES, 20)], ids=["reliability", "gates"])
def test_every_linked_test_exists(page, least):
    links = LINK.findall(page)
    assert len(links) >= least
    for file, name in links:
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert name in functions, f"{file}::{name}"


def test_every_promise_links_to_a_test():
    promises, _, _ = PAGE.partition("## What can still go wrong")
    items = re.split(r"^- ", promises, flags=re.MULTILINE)[1:]
    assert len(items) >= 20
    for item in items:
        assert LINK.search(item), item


def test_no_link_is_written_in_another_way():
    assert len(LINK.findall(PAGE)) == PAGE.count("::") - PAGE.count("`file::test`")
    assert len(LINK.findall(GATES)) == GATES.count("::")
