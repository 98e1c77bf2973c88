"""DOVER-Mobile as a ready-made scorer: from a checkpoint file to scores without torch, equal to the network's own."""

from __future__ import annotations

import importlib
import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vqa_train.backbones.base import BackboneOptions
from vqa_train.backbones.dover import dover_mobile
from vqa_train.backbones.dover_network import DoverNetwork
from vqa_train.core.hashing import sha256_file
from vqa_train.pipelines.models.ready import make_ready
from vqa_train.video.decode import read_clips

SCORE = (
    "import sys; sys.modules['torch'] = None; sys.argv[0] = 'vqa-score'; from vqa_train.cli.score import main; main()"
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as the official ones are: a plain pickle of the state dict; its numbers are made."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[1] / "backbones")
        recipe = importlib.import_module("dover_recipe")
    state = {
        key: torch.from_numpy(recipe.fill(key, tuple(value.shape)))
        for key, value in DoverNetwork(mobile=True).state_dict().items()
    }
    path = tmp_path_factory.mktemp("weights") / "DOVER-Mobile.pth"
    torch.save(state, path)
    return path


def test_scores_without_torch_are_those_of_the_network(
    checkpoint: Path, tmp_path: Path, write_video: Callable[..., Path]
) -> None:
    sidecar = make_ready("dover-mobile", weights=checkpoint)
    assert sidecar.targets == ["overall", "technical", "aesthetic"]
    assert "non-commercial" in (sidecar.license or "")
    video = write_video(tmp_path / "clip.mp4", frames=100, size=(240, 320))
    done = subprocess.run(
        [sys.executable, "-c", SCORE, str(video), "--model", "dover-mobile", "--format", "json"],
        capture_output=True, text=True, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    [result] = json.loads(done.stdout)["results"]
    backbone = dover_mobile(BackboneOptions(weights=checkpoint))
    [[clip]] = read_clips(video, [backbone.spec.sampling], key=sha256_file(video))
    row = backbone.extract([clip])[0]
    raw = {branch: float(row[f"{branch}_score"][0]) for branch in ("technical", "aesthetic")}
    # docs/features/dover.md; the constants are the published ones.
    standard = {"technical": (raw["technical"] - 0.1107) / 0.07355, "aesthetic": (raw["aesthetic"] + 0.08285) / 0.03774}
    expected = {branch: 1 / (1 + math.exp(-value)) for branch, value in standard.items()}
    expected["overall"] = 1 / (1 + math.exp(-(0.6104 * standard["technical"] + 0.3896 * standard["aesthetic"])))
    assert result["scores"] == pytest.approx(expected, abs=1e-4)
