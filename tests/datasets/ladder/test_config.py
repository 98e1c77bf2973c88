from __future__ import annotations

from typing import Any

import pytest

from vqa_train.core.errors import ConfigError
from vqa_train.datasets.ladder import LadderConfig


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"scenes": -1}, "scenes must be between 0 and 10000, got -1"),
        ({"levels": 6}, "levels must be between 1 and 5, got 6"),
        ({"levels": 0}, "levels must be between 1 and 5, got 0"),
        ({"size": (480, 63)}, "height must be between 64 and 4096, got 63"),
        ({"size": (480, 271)}, "size must be even, got 480x271"),
        ({"seconds": float("nan")}, "seconds must be between 0.1 and 600, got nan"),
        ({"seconds": 0.1, "fps": 24}, "at least 4 frames"),
        ({"kinds": ()}, "at least one"),
        ({"kinds": ("blur", "blur")}, "distinct names"),
    ],
)
def test_a_setting_out_of_range_is_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LadderConfig(**given)


def test_json_holds_every_setting() -> None:
    value = LadderConfig(kinds=("blur", "noise")).to_json()
    assert value == {
        "scenes": 8,
        "seconds": 2.5,
        "size": [480, 270],
        "fps": 24,
        "levels": 5,
        "kinds": ["blur", "noise"],
        "name": "ladder",
    }
