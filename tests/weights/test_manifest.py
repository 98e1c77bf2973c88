"""The manifest of the checkout is whole and says what may be done with the weights; broken ones are refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from vqa_train.core.errors import ConfigError, UsageError
from vqa_train.weights.manifest import Source, WeightsFile, known_weights, read_manifest, weights_entry

ROOT = Path(__file__).parents[2]
NAMES = [
    *("dover", "dover++", "dover-mobile"),
    *(f"vjepa2-{size}" for size in ("vitl-fpc64-256", "vith-fpc64-256", "vitg-fpc64-256", "vitg-fpc64-384")),
    *(f"vjepa2-{size}-ssv2" for size in ("vitl-fpc16-256", "vitg-fpc64-384")),
    *(f"bge-{size}-en-v1.5" for size in ("large", "base", "small")),
    "minilm",
]
ENTRY = {"name": "one", "source": {"repo": "a/b"}, "files": [{"path": "f"}], "license": "MIT", "commercial_use": True}


def manifest(tmp_path: Path, *entries: dict[str, object], **top: object) -> Path:
    path = tmp_path / "weights.yaml"
    path.write_text(yaml.safe_dump({"schema": "vqa-train/weights/1", "weights": list(entries), **top}))
    return path


def test_the_manifest_of_the_checkout_has_every_backbone() -> None:
    assert list(known_weights()) == NAMES
    assert known_weights() == read_manifest(ROOT / "manifests" / "weights.yaml")
    assert all(entry.citation for entry in known_weights().values())


@pytest.mark.parametrize("name", ["dover", "dover++", "dover-mobile"])
def test_the_dover_family_is_marked_non_commercial_and_says_so_wherever_its_licence_travels(name: str) -> None:
    entry = weights_entry(name)
    assert (entry.license, entry.commercial_use) == ("S-Lab License 1.0", False)
    assert entry.terms == "S-Lab License 1.0 (non-commercial)"


def test_a_licence_that_allows_commercial_use_travels_as_it_is() -> None:
    assert weights_entry("minilm").terms == "Apache-2.0"


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"unknown weights 'dover\+' - did you mean 'dover"):
        weights_entry("dover+")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"licence": "MIT"}, r"unknown key 'weights\.0\.licence' - did you mean 'license'"),
        ({"source": {}}, "needs either url or repo"),
        ({"source": {"repo": "a/b", "url": "https://x.org/f"}}, "needs either url or repo"),
        ({"source": {"repo": "../b/c"}}, "source.repo"),
        ({"source": {"url": "ftp://x.org/f"}}, "http or https"),
        ({"source": {"url": "https://user:pw@x.org/f"}}, "without login"),
        ({"source": {"url": "https://x.org/f?token=abc"}}, "without login and query"),
        ({"source": {"url": "https://x.org/f"}, "files": [{"path": "f"}, {"path": "g"}]}, "is one file"),
        ({"files": []}, "files"),
        ({"files": [{"path": "f"}, {"path": "f"}]}, "a path twice"),
        ({"files": [{"path": "../f"}]}, "stay inside"),
        ({"files": [{"path": "/f"}]}, "stay inside"),
        ({"files": [{"path": "f", "sha256": "abc"}]}, "sha256"),
        ({"name": "../one"}, "name"),
    ],
)
def test_a_broken_entry_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_manifest(manifest(tmp_path, {**ENTRY, **change}))


def test_two_entries_of_one_name_and_other_schemas_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'one' twice"):
        read_manifest(manifest(tmp_path, ENTRY, ENTRY))
    with pytest.raises(ConfigError, match="schema"):
        read_manifest(manifest(tmp_path, ENTRY, schema="vqa-train/weights/2"))


def test_a_source_shows_as_a_link() -> None:
    assert str(Source(repo="a/b")) == "https://huggingface.co/a/b"
    assert str(Source(repo="a/b", revision="v2")) == "https://huggingface.co/a/b/tree/v2"
    assert str(Source(url="https://x.org/f")) == "https://x.org/f"


def test_a_files_path_may_not_hold_a_null_byte() -> None:
    with pytest.raises(ValidationError):
        WeightsFile(path="a\x00b")


def test_an_installed_package_without_a_checkout_finds_its_own_manifest(tmp_path: Path) -> None:
    package = tmp_path / "vqa_train"
    source = ROOT / "ai" / "src" / "vqa_train"
    package.mkdir()
    for name in ("__init__.py", "core", "weights"):
        (package / name).symlink_to(source / name)
    # As the wheel is laid out (force-include in pyproject.toml).
    (package / "data").mkdir()
    (package / "data" / "weights.yaml").write_text(manifest(tmp_path, ENTRY).read_text())
    code = "from vqa_train.weights.manifest import known_weights; print(*known_weights())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True, env={"PYTHONPATH": "."}
    )
    assert done.stdout == "one\n"
