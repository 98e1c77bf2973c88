"""The manifest schema: what it accepts, what it refuses and how it says so."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from vqa_train.core.config import parse
from vqa_train.core.errors import ConfigError, ManifestError
from vqa_train.datasets.manifest import DatasetManifest, read_manifest, write_manifest

ROOT = Path(__file__).resolve().parents[2]


def value(**changes: Any) -> dict[str, Any]:
    """The smallest valid manifest, with changes."""
    return {
        "schema": "vqa-train/dataset/1",
        "name": "tiny",
        "license": "CC0-1.0",
        "mos": {"min": 1, "max": 5},
        "targets": ["overall"],
        "columns": {"id": "video"},
        "labels": [{"path": "labels.csv"}],
        **changes,
    }


def parsed(**changes: Any) -> DatasetManifest:
    return parse(DatasetManifest, value(**changes), "test")


def test_defaults_are_filled_in() -> None:
    manifest = parsed()
    assert (manifest.version, manifest.adapter, manifest.mos.direction) == ("1", "csv", "higher_is_better")
    assert manifest.column_of("overall") == "overall"
    assert manifest.files is None


def test_a_target_may_have_a_scale_of_its_own() -> None:
    manifest = parsed(
        targets=["overall", {"name": "blur", "mos": {"min": 0, "max": 100, "direction": "lower_is_better"}}]
    )
    assert manifest.target_names == ("overall", "blur")
    assert manifest.range_of("overall").middle == 3
    assert manifest.range_of("blur").middle == 50
    assert manifest.range_of("blur").direction == "lower_is_better"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"mos": {"min": 5, "max": 1}}, "mos"),
        ({"mos": {"min": 1, "max": math.inf}}, "mos.max"),
        ({"mos": {"min": 1, "max": 5, "direction": "up"}}, "mos.direction"),
        ({"targets": []}, "targets"),
        ({"targets": ["a", "a"]}, "twice"),
        ({"labels": [{"path": "l.csv"}, {"path": "l.csv"}]}, "twice"),
        ({"columns": {"id": "video", "targets": {"other": "x"}}}, "'other'"),
        ({"columns": {"id": "video", "std": {"other": "x"}}}, "'other'"),
        ({"columns": {"id": "v", "split": "s"}, "labels": [{"path": "l.csv", "split": "test"}]}, "keep one"),
        ({"labels": [{"path": "l.csv", "split": "dev"}]}, "labels.0.split"),
        ({"name": "../evil"}, "name"),
        ({"root": "/etc"}, "root"),
        ({"splits": {"fractions": {"train": 0.5}}}, "sum to 1"),
        ({"splits": {"fractions": {"train": 1.5, "test": -0.5}}}, "fractions"),
        ({"files": {"table": "../t.csv", "sha256": "0" * 64, "rows": 0, "bytes_total": 0}}, "files.table"),
        ({"files": {"table": "t.csv", "sha256": "0" * 64, "rows": 0, "bytes_total": 0}}, "labels need sha256"),
    ],
)
def test_a_broken_manifest_is_refused_and_the_place_named(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match="^test: ") as caught:
        parsed(**changes)
    assert named in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "place", "near"),
    [
        ({"licence": "MIT"}, "'licence'", "'license'"),
        ({"columns": {"id": "v", "promt": "p"}}, "'columns.promt'", "'prompt'"),
        ({"labels": [{"path": "l.csv", "slit": "test"}]}, "'labels.0.slit'", "'split'"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(changes: dict[str, Any], place: str, near: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parsed(**changes)
    assert f"unknown key {place}" in str(caught.value)
    assert f"did you mean {near}?" in str(caught.value)


def test_reading_names_the_file_and_another_version(tmp_path: Path) -> None:
    path = tmp_path / "new.yaml"
    path.write_text(yaml.safe_dump(value(schema="vqa-train/dataset/2")))
    with pytest.raises(ManifestError, match=r"new\.yaml.*dataset/2.*install the version"):
        read_manifest(path)
    path.write_text("schema: something/else\n")
    with pytest.raises(ManifestError, match="is it a dataset manifest"):
        read_manifest(path)
    path.write_text("- a list\n")
    with pytest.raises(ManifestError, match="schema None"):
        read_manifest(path)


def test_the_example_manifest_parses() -> None:
    manifest, _ = read_manifest(ROOT / "manifests" / "qualivision.example.yaml")
    assert manifest.adapter == "qualivision"
    assert manifest.target_names == ("technical", "alignment", "aesthetic", "temporal", "overall")


_text = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=20)
_name = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,10}", fullmatch=True)


@given(
    name=_name,
    version=_text,
    license=_text,
    citation=_text,
    column=_text,
    targets=st.lists(_name, min_size=1, max_size=4, unique=True),
    low=st.floats(-1e6, 1e6),
    span=st.floats(0.1, 1e6),
)
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    version: str,
    license: str,
    citation: str,
    column: str,
    targets: list[str],
    low: float,
    span: float,
) -> None:
    manifest = parsed(
        name=name,
        version=version,
        license=license,
        citation=citation,
        columns={"id": column, "targets": {targets[0]: column}},
        targets=targets,
        mos={"min": low, "max": low + span},
    )
    path = tmp_path_factory.getbasetemp() / "round-trip.yaml"
    write_manifest(manifest, path)
    assert read_manifest(path)[0] == manifest
