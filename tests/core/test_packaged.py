"""Files that come with the package are found by name, in a wheel and in a checkout; a file at hand comes first."""

from __future__ import annotations

from pathlib import Path

import pytest

from vqa_train.core import packaged
from vqa_train.core.errors import ConfigError
from vqa_train.core.packaged import config_file


def test_a_checkout_has_them_where_the_wheel_takes_them_from() -> None:
    root = Path(__file__).parents[2]
    assert config_file(Path("features"), "recipe") == root / "ai" / "configs" / "features.yaml"
    assert config_file(Path("release"), "gate file", "gates") == root / "ai" / "configs" / "gates" / "release.yaml"
    assert '"ai/configs" = "vqa_train/data/configs"' in (root / "pyproject.toml").read_text()


def test_a_wheel_comes_before_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel, checkout = tmp_path / "wheel", tmp_path / "checkout"
    monkeypatch.setattr(packaged, "_PLACES", (wheel, checkout))
    monkeypatch.chdir(tmp_path)
    for place in (checkout, wheel):
        place.mkdir()
        (place / "a.yaml").write_text("")
        assert config_file(Path("a"), "recipe") == place / "a.yaml"


def test_a_path_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in ("none.yaml", "folder/features", "./none.yaml"):
        assert config_file(Path(path), "recipe") == Path(path)
    Path("features").write_text("")
    assert config_file(Path("features"), "recipe") == Path("features")


def test_a_name_that_is_neither_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="no gate file 'relase'.* did you mean 'release'"):
        config_file(Path("relase"), "gate file", "gates")
    with pytest.raises(ConfigError, match="no recipe 'release'"):
        config_file(Path("release"), "recipe")
