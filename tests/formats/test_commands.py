"""Reports of commands that no other test reads in its own process: a ladder, and the extraction of its features."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.testing import CliRunner

from vqa_train.cli.main import app
from vqa_train.pipelines.datasets import build_ladder

FEW_CLIPS = {"scenes": 1, "seconds": 0.3, "size": (64, 64), "levels": 2, "kinds": ("blur",)}


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Schema -> what a command reported under it."""
    at = tmp_path_factory.mktemp("commands")
    found: dict[str, Any] = {}

    def run(*words: str) -> None:
        done = CliRunner().invoke(app, [*words, "--json", str(at / "report.json")], catch_exceptions=False)
        assert done.exit_code == 0, f"{words}: {done.output}"
        value = json.loads((at / "report.json").read_text())
        found[value["schema"]] = value

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(at)
        found["vqa-train/ladder/1"] = build_ladder(Path("ladder"), sources=None, options=FEW_CLIPS, workers=1)
        extract = ("extract-features", "--dataset", "ladder/manifest.yaml", "--backbone", "nss", "--output", "store")
        run(*extract, "--dry-run")
        run(*extract, "--workers", "1")
        run("status", "store")
    return found


@pytest.mark.parametrize("schema", ["ladder", "extract-estimate", "extract-report", "status"])
def test_a_report_follows_its_schema(documents: ModuleType, reports: dict[str, Any], schema: str) -> None:
    assert documents.problems(reports[f"vqa-train/{schema}/1"]) == []


def test_what_a_study_keeps_follows_its_schema(documents: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="optuna is not installed")
    from vqa_train.pipelines.tune.study import opened

    kept = json.loads((Path(__file__).parent / "documents" / "tune-report-1.json").read_text("utf-8"))
    identity = {name: value for name, value in kept["study"].items() if name not in ("path", "name")}
    with opened(tmp_path / "study.db", "any", identity, maximise=True) as study:
        assert documents.problems(study.study.user_attrs["vqa-train"]) == []


@pytest.mark.parametrize("text", ["float:1e-4:1e-2:log", {"kind": "int", "low": 1, "high": 9}])
def test_a_search_space_follows_its_schema(documents: ModuleType, text: Any) -> None:
    space = {"schema": "vqa-train/space/1", "params": {"lr": text, "hidden": {"kind": "categorical", "choices": [[8]]}}}
    assert documents.problems(space) == []
    assert documents.problems({**space, "params": {"lr": {"kind": "float", "low": 1}}}) != []
