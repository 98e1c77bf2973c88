"""DOVER's ConvNeXts on a CPU: one clip at a time, channels last throughout, the MLPs block by block and in place."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqa_train.backbones.dover_convnext import STEM, ConvNextBlock, DoverConvNext, Grn
from vqa_train.backbones.dover_cpu import LEAST_ROWS, blocks, linear, normalised
from vqa_train.backbones.dover_team import Team


def convnext_features(network: DoverConvNext, clips: Tensor) -> Tensor:
    """What `network(clips)` gives: (B, 3, T, H, W) -> (B, C, D, h, w)."""
    with Team() as team:
        return torch.stack([_features(network, clip, team) for clip in clips])


def _features(network: DoverConvNext, clip: Tensor, team: Team) -> Tensor:
    """One clip (3, T, H, W) -> (C, D, h, w); in between (T, H, W, C)."""
    x = clip
    for stage, (downsample, layers) in enumerate(zip(network.downsample_layers, network.stages, strict=True)):
        first, second = cast("Any", downsample)
        x = _halved(x, first, second, team) if stage else _stem(x, first, second, team)
        for block in cast("Iterable[ConvNextBlock]", layers):
            _run_block(block, x, team)
    return normalised(x, network.norm).permute(3, 0, 1, 2)


def _stem(clip: Tensor, conv: nn.Conv3d, norm: nn.LayerNorm, team: Team) -> Tensor:
    """Patches as rows of a matrix: (3, T, H, W) -> (D, h, w, C)."""
    (t, i, j), (d, h, w) = STEM, (n // p for n, p in zip(clip.shape[1:], STEM, strict=True))
    patches = clip[:, : d * t, : h * i, : w * j].reshape(3, d, t, h, i, w, j).permute(1, 3, 5, 0, 2, 4, 6)
    weight = conv.weight.flatten(1)
    out = clip.new_empty(d, h, w, conv.out_channels)

    def frame(at: int) -> None:
        rows = linear(patches[at].reshape(h * w, weight.shape[1]), weight, conv.bias)
        out[at] = normalised(rows, norm).view(h, w, -1)

    team.run(frame, range(d))
    return out


def _halved(x: Tensor, norm: nn.LayerNorm, conv: nn.Conv3d, team: Team) -> Tensor:
    """Squares of 2 x 2 positions as rows of a matrix: (T, H, W, C) -> (T, H / 2, W / 2, 2C), rounded down."""
    t, h, w, c = x.shape[0], x.shape[1] // 2, x.shape[2] // 2, x.shape[3]
    weight = conv.weight.permute(0, 2, 3, 4, 1).reshape(conv.out_channels, 4 * c)
    out = x.new_empty(t, h, w, conv.out_channels)

    def frame(at: int) -> None:
        squares = normalised(x[at, : 2 * h, : 2 * w], norm).view(h, 2, w, 2, c).transpose(1, 2)
        out[at] = linear(squares.reshape(h * w, 4 * c), weight, conv.bias).view(h, w, -1)

    team.run(frame, range(t))
    return out


def _run_block(block: ConvNextBlock, x: Tensor, team: Team) -> None:
    """Add to x (T, H, W, C) what the block adds."""
    t, h, w, _ = x.shape
    frames = blocks(t, h * w * block.pwconv1.out_features, -(-LEAST_ROWS // (h * w)))
    convolved = [x] * len(frames)

    def convolve(i: int) -> None:
        conv, part = block.dwconv, frames[i]
        # Neighbours in time come along; what is found for them is wrong, and left away.
        start = max(0, part.start - conv.padding[0])
        some = x[None, start : part.stop + conv.padding[0]].permute(0, 4, 1, 2, 3)
        found = F.conv3d(some, conv.weight, conv.bias, padding=conv.padding, groups=conv.groups)
        convolved[i] = found[0].permute(1, 2, 3, 0)[part.start - start : part.stop - start]

    team.run(convolve, range(len(frames)))
    if block.grn is not None:
        _add_columns(block, block.grn, x, convolved, team)
    else:
        _add_frames(block, [x[part] for part in frames], convolved, team)


def _add_frames(block: ConvNextBlock, x: list[Tensor], y: list[Tensor], team: Team) -> None:
    """The MLP of the first version, with a scale for each channel; some frames (t, H, W, C) in each of x and y."""
    scale = x[0].new_ones(()) if block.gamma is None else block.gamma

    def run(i: int) -> None:
        rows, added = x[i].view(-1, x[i].shape[3]), y[i].reshape(-1, x[i].shape[3])
        for part in blocks(len(rows), block.pwconv1.out_features):
            hidden = linear(normalised(added[part], block.norm), block.pwconv1.weight, block.pwconv1.bias, gelu=True)
            rows[part].addcmul_(linear(hidden, block.pwconv2.weight, block.pwconv2.bias), scale)

    team.run(run, range(len(x)))


def _add_columns(block: ConvNextBlock, grn: Grn, x: Tensor, y: list[Tensor], team: Team) -> None:
    """The MLP of the second version: its response normalisation is over T and H, for each column of the image."""
    t, h, w, c = x.shape
    width = block.pwconv1.out_features
    # (hidden * scale + beta) through the second layer: beta goes into that layer's bias.
    bias = block.pwconv2.bias + block.pwconv2.weight @ grn.beta.flatten()
    gamma = grn.gamma.flatten()

    def run(part: slice) -> None:
        rows = normalised(torch.cat([frames[:, :, part] for frames in y]), block.norm).view(-1, c)
        hidden = linear(rows, block.pwconv1.weight, block.pwconv1.bias, gelu=True).view(t * h, -1, width)
        norm = hidden.square().sum(0).sqrt()
        hidden *= 1 + gamma * (norm / (norm.mean(-1, keepdim=True) + grn.eps))
        x[:, :, part] += linear(hidden.view(-1, width), block.pwconv2.weight, bias).view(t, h, -1, c)

    team.run(run, blocks(w, t * h * width, 1))
