"""Each constant and rule of DOVER's networks, changed in a copy of their source, must miss the goldens."""

# ruff: noqa: E501  (one line for each change)

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from vqa_train.backbones import dover_network

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(Path(__file__).parent)
    import dover_golden as golden

SOURCE = Path(dover_network.__file__).parent
PARTS = ("boxes", "convnext", "convnext_cpu", "cpu", "network", "positions", "swin", "swin_cpu", "team")
SWIN, TINY, FEMTO = ("dover", "technical"), ("dover", "aesthetic"), ("dover_mobile", "technical")
GATE = "(rows[..., :, None] - rows[..., None, :]).abs() + (columns[..., :, None] - columns[..., None, :]).abs()"

# What is changed, in which part, what to run, on which input: (part, old, new, network, case).
BOTH_WAYS = {
    "Swin's epsilon": ("swin", "EPS = 1e-5", "EPS = 1e-6", SWIN, "faint"),
    "merging order": ("swin", "((0, 0), (1, 0), (0, 1), (1, 1))", "((0, 0), (0, 1), (1, 0), (1, 1))", SWIN, "faint"),
    "scale of queries": ("swin", "SCALE = HEAD_WIDTH**-0.5", "SCALE = 1.0", SWIN, "faint"),
    "transposed index": ("positions", "axis.flatten()[:, None] - axis.flatten()", "axis.flatten() - axis.flatten()[:, None]", SWIN, "faint"),
    "order in the index": ("positions", "(d * (2 * WINDOW[1] - 1) + h)", "(h * (2 * WINDOW[0] - 1) + d)", SWIN, "faint"),
    "window": ("positions", "WINDOW: Grid = (8, 7, 7)", "WINDOW: Grid = (7, 8, 7)", SWIN, "faint"),
    "shift": ("positions", "m // 2 if shifted", "m // 2 - 1 if shifted", SWIN, "faint"),
    "no shift": ("positions", "m // 2 if shifted", "0 if shifted", SWIN, "faint"),
    "shift of one window": ("positions", "if shifted and n > m else 0", "if shifted else 0", SWIN, "faint"),
    "regions": ("positions", "(position >= length - shift)", "(position >= length - shift - 1)", SWIN, "faint"),
    "no mask": ("positions", "(position >= length - window).long() + (position >= length - shift).long()", "position * 0", SWIN, "faint"),
    "gate's rows": ("positions", "h * window[1] // padded[1]", "(h + 1) * window[1] // padded[1]", SWIN, "faint"),
    "gate's columns": ("positions", "w * window[2] // padded[2]", "(w + 1) * window[2] // padded[2]", SWIN, "faint"),
    "coordinates that are not rolled": ("positions", "cut(nought[0], h * window[1] // padded[1]", "cut(nought[0], h.sort().values * window[1] // padded[1]", SWIN, "odd"),
    "binary gate": ("positions", GATE, f"({GATE}).clamp(max=1)", SWIN, "odd"),
    "gate without columns": ("positions", GATE, GATE.split(" + ", maxsplit=1)[0], SWIN, "faint"),
    "ConvNeXt's epsilon": ("convnext", "EPS = 1e-6", "EPS = 1e-5", TINY, "faint"),
    "V2's epsilon": ("convnext", "EPS = 1e-6", "EPS = 1e-5", FEMTO, "faint"),
    "head": ("network", "F.gelu(self.fc_hid(features))", "self.fc_hid(features)", SWIN, "faint"),
}  # fmt: skip
BY_MODULES = {
    "tables": ("swin", "else gate * relative + (1 - gate) * fragment", "else gate * fragment + (1 - gate) * relative", SWIN, "faint"),
    "mask": ("swin", "MASKED = -100.0", "MASKED = 0.0", SWIN, "faint"),
    "gelu of Swin": ("swin", "F.gelu(self.fc1(x))", 'F.gelu(self.fc1(x), approximate="tanh")', SWIN, "odd"),
    "norm of the padding": ("swin", "F.pad(self.norm1(x), (0, 0, 0, w, 0, h, 0, d))", "self.norm1(F.pad(x, (0, 0, 0, w, 0, h, 0, d)))", SWIN, "odd"),
    "response over H and W": ("convnext", "x.square().sum((1, 2), keepdim=True)", "x.square().sum((2, 3), keepdim=True)", FEMTO, "faint"),
    "response over T, H and W": ("convnext", "x.square().sum((1, 2), keepdim=True)", "x.square().sum((1, 2, 3), keepdim=True)", FEMTO, "faint"),
    "response added": ("convnext", "+ self.beta + x", "+ self.beta", FEMTO, "faint"),
    "layer scale": ("convnext", "y if self.gamma is None else y * self.gamma", "y", TINY, "faint"),
    "gelu of ConvNeXt": ("convnext", "F.gelu(self.pwconv1(self.norm(y)))", 'F.gelu(self.pwconv1(self.norm(y)), approximate="tanh")', TINY, "odd"),
}  # fmt: skip
IN_PLACE = {
    "tables": ("swin_cpu", "(fragment, relative - fragment)", "(relative, fragment - relative)", SWIN, "faint"),
    "padding": ("swin_cpu", "y.index_fill_(1, part.padding, 0)", "y.index_fill_(1, part.padding, 1)", SWIN, "faint"),
    "padding written": ("swin_cpu", "if part.kept is None:", "if True:", SWIN, "faint"),
    "kinds of boxes": ("boxes", "_key(*_nominal(tokens))", "_key(tokens * 0)", SWIN, "faint"),
    "patterns of boxes": ("boxes", "key = _key(", "key = bytes() or bytes(len(tokens)) or _key(", SWIN, "odd"),
    "gelu": ("cpu", '("gelu", "none") if gelu', '("gelu", "tanh") if gelu', TINY, "odd"),
    "neighbours in time": ("convnext_cpu", "start = max(0, part.start - conv.padding[0])", "start = part.start", TINY, "odd"),
    "layer scale": ("convnext_cpu", "if block.gamma is None else block.gamma", "", TINY, "faint"),
    "response": ("convnext_cpu", "hidden *= 1 + gamma", "hidden *= gamma", FEMTO, "faint"),
    "beta": ("convnext_cpu", "block.pwconv2.bias + block.pwconv2.weight @ grn.beta.flatten()", "block.pwconv2.bias", FEMTO, "faint"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def unfilled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Networks begin without weights of their own, which would take longer than all the rest."""
    for kind in (nn.Linear, nn.Conv3d):
        monkeypatch.setattr(kind, "reset_parameters", lambda self: None)
    yield
    for name in [name for name in sys.modules if name.startswith("mutant_dover_")]:
        del sys.modules[name]


@pytest.fixture(scope="module", autouse=True)
def released() -> Iterator[None]:
    yield
    golden.weights.cache_clear()
    golden.clips.cache_clear()


def distance(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: tuple[str, str, str],
    of: tuple[str, str],
    case: str,
    way: str,
) -> float:
    """How far from the goldens a copy of the networks' source is, after a change of one part."""
    part, old, new = change
    for name in PARTS:
        text = (SOURCE / f"dover_{name}.py").read_text(encoding="utf-8")
        if name == part:
            assert text.count(old) == 1, f"{old!r} should be once in dover_{name}.py"
            text = text.replace(old, new)
        text = text.replace("vqa_train.backbones.dover_", "mutant_dover_")
        (folder / f"mutant_dover_{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(folder)
    (model, branch), mobile = of, of[0] == "dover_mobile"
    network = golden.load(importlib.import_module("mutant_dover_network").DoverNetwork(mobile=mobile), model, case)
    clips = golden.clips(model, case, branch)
    with torch.inference_mode():
        if way == "in place":
            outputs = getattr(network, branch)(clips)
        else:
            features = getattr(network, f"{branch}_backbone")(clips)
            outputs = features, getattr(network, f"{branch}_head")(features)
    return max(golden.distances(outputs, model, case, branch))


@pytest.mark.parametrize("way", ["in place", "by modules"])
@pytest.mark.parametrize("of", [SWIN, TINY, FEMTO], ids=["Swin", "Tiny", "femto"])
def test_the_copy_itself_meets_the_goldens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of: tuple[str, str], way: str
) -> None:
    assert distance(tmp_path, monkeypatch, ("", "", ""), of, "faint", way) < golden.TOLERANCE


@pytest.mark.parametrize(
    ("way", "part", "old", "new", "of", "case"),
    [
        pytest.param(way, *change, id=f"{name}, {way}")
        for way, changes in (
            ("in place", BOTH_WAYS | {f"{name} in place": change for name, change in IN_PLACE.items()}),
            ("by modules", BOTH_WAYS | {f"{name} of modules": change for name, change in BY_MODULES.items()}),
        )
        for name, change in changes.items()
    ],
)
def test_a_change_misses_the_goldens(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
    part: str,
    old: str,
    new: str,
    of: tuple[str, str],
    case: str,
) -> None:
    assert distance(tmp_path, monkeypatch, (part, old, new), of, case, way) > 5 * golden.TOLERANCE
