"""Helper modules of these tests, and a registry that knows the small batched backbone."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def tiny_batched() -> ModuleType:
    """The module tiny_batched.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parent)
        return importlib.import_module("tiny_batched")
