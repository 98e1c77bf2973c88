"""Limits come from defaults, then the gate file, then flags; whatever is not understood is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import Field

from vqa_train.core.config import StrictModel
from vqa_train.core.errors import ConfigError
from vqa_train.pipelines.gates.config import resolve


class Limits(StrictModel):
    tolerance: float = Field(default=1e-5, gt=0)
    rows: int = 64


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_flags_go_before_the_file_and_the_file_before_the_defaults(tmp_path: Path) -> None:
    file = write(tmp_path / "g.yaml", "schema: vqa-train/gates/1\nparity: {tolerance: 0.5, rows: 3}\ndrift: {}\n")
    assert resolve(Limits, "parity", None, {}) == Limits()
    assert resolve(Limits, "parity", file, {"tolerance": None}) == Limits(tolerance=0.5, rows=3)
    assert resolve(Limits, "parity", file, {"tolerance": 0.25}) == Limits(tolerance=0.25, rows=3)
    assert resolve(Limits, "drift", file, {}) == Limits()
    assert resolve(Limits, "ops", file, {}) == Limits()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("parity: {}", "has schema None"),
        ("- 1", "has schema None"),
        ("schema: vqa-train/gates/1\nparty: {}", "unknown section 'party' - did you mean 'parity'"),
        ("schema: vqa-train/gates/1\nparity: 3", "'parity' must map limits to values"),
        ("schema: vqa-train/gates/1\nparity: {tolerence: 1}", r"g\.yaml: parity.*tolerence"),
        ("schema: vqa-train/gates/1\nparity: {tolerance: 0}", r"g\.yaml: parity.*greater than 0"),
    ],
)
def test_what_is_not_understood_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve(Limits, "parity", write(tmp_path / "g.yaml", text), {})


def test_a_flag_out_of_range_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"limits of parity.*greater than 0"):
        resolve(Limits, "parity", None, {"tolerance": -1.0})
