from pathlib import Path

import pytest
from pydantic import Field

from vqa_train.core.config import StrictModel, load_json, load_yaml, parse
from vqa_train.core.errors import ConfigError


class Inner(StrictModel):
    width: int = Field(ge=1)


class Outer(StrictModel):
    name: str
    layers: list[Inner] = Field(default_factory=list)
    best: Inner | None = None


def yaml(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "f.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_unknown_key_names_its_place_and_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"r\.yaml: unknown key 'nmae'.*did you mean 'name'"):
        parse(Outer, {"nmae": "x"}, "r.yaml")
    with pytest.raises(ConfigError, match=r"unknown key 'best\.widht'.*did you mean 'width'"):
        parse(Outer, {"name": "x", "best": {"width": 1, "widht": 2}}, "r.yaml")
    with pytest.raises(ConfigError, match=r"unknown key 'layers\.0\.widht'.*did you mean 'width'"):
        parse(Outer, {"name": "x", "layers": [{"width": 1, "widht": 2}]}, "r.yaml")


def test_wrong_value_is_shown() -> None:
    with pytest.raises(ConfigError, match=r"layers\.1\.width: .*greater than or equal to 1, got 0"):
        parse(Outer, {"name": "x", "layers": [{"width": 2}, {"width": 0}]}, "r.yaml")


def test_duplicate_keys_are_refused_with_their_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"line 3: duplicate key 'a'"):
        load_yaml(yaml(tmp_path, "a: 1\nb: 2\na: 3\n"))


def test_alias_bomb_is_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 20)}]" for i in range(1, 9)]
    with pytest.raises(ConfigError, match="aliases"):
        load_yaml(yaml(tmp_path, "\n".join(lines)))


def test_deep_nesting_is_an_error_not_a_crash(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        load_yaml(yaml(tmp_path, "[" * 5000 + "]" * 5000))


def test_yaml_cannot_make_objects(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="python/object"):
        load_yaml(yaml(tmp_path, "a: !!python/object/apply:os.getcwd []"))


def test_merge_keys_and_byte_order_mark_are_understood(tmp_path: Path) -> None:
    value = load_yaml(yaml(tmp_path, "\ufeffbase: &b {x: 1}\nmore: {<<: *b, y: 2}\n"))
    assert value["more"] == {"x": 1, "y": 2}


def test_missing_and_binary_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        load_yaml(tmp_path / "none.yaml")
    (tmp_path / "bin.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_json(tmp_path / "bin.json")
    (tmp_path / "bad.json").write_text("{", encoding="utf-8")
    with pytest.raises(ConfigError, match="not JSON"):
        load_json(tmp_path / "bad.json")
