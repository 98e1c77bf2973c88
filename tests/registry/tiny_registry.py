"""A registry of small real models, made once a session and copied for each test, with the cache that belongs to it."""

from __future__ import annotations

import importlib
import os
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from vqa_train import backbones
from vqa_train.pipelines.models.register import RegisterConfig, register

TESTS = Path(__file__).parents[1]


@dataclass(frozen=True)
class TinyRegistry:
    """`text:1` has a text encoder and all its files; `m:1`, `m:2` a video backbone; `large:1` one in the cache, with
    its weights in a file of their own."""

    root: Path
    cache: Path

    def copy(self, folder: Path) -> TinyRegistry:
        """The same in `folder`, its cache in use."""
        shutil.copytree(self.root, folder / "model")
        shutil.copytree(self.cache, os.environ["VQA_TRAIN_CACHE"], dirs_exist_ok=True)
        return TinyRegistry(folder / "model", Path(os.environ["VQA_TRAIN_CACHE"]))


def build(folder: Path) -> TinyRegistry:
    """Make them, by exporting and registering as a user does."""
    root, cache = folder / "model", folder / "cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VQA_TRAIN_CACHE", str(cache))
        patch.setenv("VQA_TRAIN_TEXT_MODELS", str(folder / "encoders"))
        for name in ("registry", "backbones"):
            patch.syspath_prepend(TESTS / name)
        tiny = importlib.import_module("tiny_model")
        patch.setattr(backbones.BACKBONES, "_builtin", tiny.BUILTIN)
        patch.setattr(backbones.TEXT_ENCODERS, "_builtin", tiny.BUILTIN_TEXT)
        tiny.text_folder(folder / "encoders")
        plain = tiny.export_tiny(folder / "exported" / "m.onnx")
        ensemble = tiny.export_tiny(folder / "exported" / "text.onnx", text=True, ensemble=True)

        def put(model: Path, **changes: str) -> None:
            fields = {"dataset": "ladder", "license": "Apache-2.0", "train_commit": tiny.COMMIT, **changes}
            register(RegisterConfig(model=model, kind="nr", registry=root, **fields))

        put(ensemble)
        put(plain)
        put(plain, license="MIT")
        export = importlib.import_module("vqa_train.onnx.export")
        patch.setattr(export, "export_module", partial(export.export_module, max_inside=0))
        put(plain, name="large")
    return TinyRegistry(root, cache)
