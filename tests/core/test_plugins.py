import sys

import pytest

from vqa_train.core.errors import DependencyError, UsageError
from vqa_train.core.plugins import Registry


def test_nothing_is_imported_before_it_is_asked_for() -> None:
    sys.modules.pop("colorsys", None)
    registry = Registry("thing", {"hls": "colorsys:rgb_to_hls"})
    assert registry.names() == ["hls"]
    assert "colorsys" not in sys.modules
    assert registry.get("hls")(1.0, 1.0, 1.0)[1] == 1.0


def test_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UsageError, match="unknown backbone 'nsss' - did you mean 'nss'") as caught:
        Registry("backbone", {"nss": "math:pi", "dover": "math:e"}).get("nsss")
    assert caught.value.exit_code == 2


def test_missing_package_names_what_to_install() -> None:
    registry = Registry("decoder", {"x": "package_that_is_not_there.x:X"}, extra="backbones")
    with pytest.raises(DependencyError, match=r"package_that_is_not_there.*vqa-train\[backbones\]"):
        registry.get("x")
