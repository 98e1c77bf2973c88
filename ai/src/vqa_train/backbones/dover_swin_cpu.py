"""DOVER's Swin on a CPU: a whole block, in place, over a few windows at a time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import numpy as np
import torch
from torch import Tensor

from vqa_train.backbones.dover_boxes import Part, boxes_of
from vqa_train.backbones.dover_cpu import attend, blocks, linear, normalised
from vqa_train.backbones.dover_positions import gate_of
from vqa_train.backbones.dover_swin import (
    HEAD_WIDTH,
    MERGED,
    PATCH,
    SCALE,
    DoverSwin,
    PatchEmbed,
    PatchMerging,
    SwinBlock,
    SwinStage,
    WindowAttention,
)
from vqa_train.backbones.dover_team import Team

# Bias at gate 0, and what the gate adds to it per mini-patch (None in a stage without a gate): (heads, N, N) each.
Biases = tuple[Tensor, Tensor | None]


def swin_features(network: DoverSwin, clips: Tensor) -> Tensor:
    """What `network(clips)` gives: (B, 3, T, H, W) -> (B, C, D, h, w)."""
    with Team() as team:
        x = _embedded(network.patch_embed, clips, team)
        for layer in cast("Iterable[SwinStage]", network.layers):
            for block in cast("Iterable[SwinBlock]", layer.blocks):
                _run_block(block, x, team)
            if layer.downsample is not None:
                x = _merged(layer.downsample, x, team)
    return normalised(x, network.norm).permute(0, 4, 1, 2, 3)


def _embedded(embed: PatchEmbed, clips: Tensor, team: Team) -> Tensor:
    """Patches as rows of a matrix: (B, 3, T, H, W) -> (B, D, H, W, C)."""
    clips = embed.padded(clips)
    b, (t, i, j), (d, h, w) = len(clips), PATCH, (n // p for n, p in zip(clips.shape[2:], PATCH, strict=True))
    patches = clips.reshape(b, 3, d, t, h, i, w, j).permute(0, 2, 4, 6, 1, 3, 5, 7)
    weight = embed.proj.weight.flatten(1)
    out = clips.new_empty(b, d, h, w, len(weight))

    def frame(at: tuple[int, ...]) -> None:
        rows = linear(patches[at].reshape(h * w, weight.shape[1]), weight, embed.proj.bias)
        out[at] = normalised(rows, embed.norm).view(h, w, -1)

    team.run(frame, np.ndindex(b, d))
    return out


def _merged(merging: PatchMerging, x: Tensor, team: Team) -> Tensor:
    """Squares of 2 x 2 tokens as rows of a matrix: (B, D, H, W, C) -> (B, D, H / 2, W / 2, 2C), rounded up."""
    x = merging.padded(x)
    b, d, h, w, c = x.shape
    out = x.new_empty(b, d, h // 2, w // 2, 2 * c)

    def frame(at: tuple[int, ...]) -> None:
        squares = torch.cat([x[at][i::2, j::2] for i, j in MERGED], -1).view(-1, 4 * c)
        out[at] = linear(normalised(squares, merging.norm), merging.reduction.weight, None).view_as(out[at])

    team.run(frame, np.ndindex(b, d))
    return out


def _run_block(block: SwinBlock, x: Tensor, team: Team) -> None:
    """Change x (B, D, H, W, C) as the block does."""
    boxes = boxes_of((x.shape[1], x.shape[2], x.shape[3]), shifted=block.shifted)
    tokens = x.flatten(1, 3)
    biases: dict[int, Biases] = {}

    def read(kind: int) -> None:
        relative, fragment = block.attn.biases(boxes.kinds[kind])
        biases[kind] = (relative, None) if fragment is None else (fragment, relative - fragment)

    def run(part: Part) -> None:
        # The clips share the biases of a part.
        rows = tokens.index_select(1, part.tokens)
        y = normalised(rows, block.norm1)
        if part.padding is not None:
            y.index_fill_(1, part.padding, 0)
        rows += _attend(block.attn, part, biases, y)
        _add_mlp(block, rows.view(-1, x.shape[4]))
        if part.kept is None:
            tokens.index_copy_(1, part.tokens, rows)
        else:
            tokens.index_copy_(1, part.tokens[part.kept], rows.index_select(1, part.kept))

    team.run(read, range(len(boxes.kinds)))
    team.run(run, boxes.parts)


def _attend(attention: WindowAttention, part: Part, biases: dict[int, Biases], y: Tensor) -> Tensor:
    """The attention of a part's boxes, (B, n, C) -> the same."""
    b, n, c = y.shape
    y = y.view(b * n, c)
    qkv = linear(y, attention.qkv.weight, attention.qkv.bias).view(b * n, 3, attention.heads, HEAD_WIDTH)
    # Whole matrices for each head: with gaps between their rows, every product would be a third slower.
    q, k, v = qkv.permute(1, 2, 0, 3).contiguous()
    q *= SCALE
    mixed = torch.empty_like(y)
    for pattern in part.patterns:
        base, slope = biases[pattern.kind]
        boxes = [slice(i * n + box.start, i * n + box.stop) for i in range(b) for box in pattern.boxes]
        gate = base if slope is None else gate_of(pattern.rows, pattern.columns)
        for head in range(attention.heads):
            bias = base[head] if slope is None else torch.addcmul(base[head], gate, slope[head])
            columns = slice(head * HEAD_WIDTH, (head + 1) * HEAD_WIDTH)
            for box in boxes:
                mixed[box, columns] = attend(q[head, box], k[head, box], v[head, box], bias)
    return linear(mixed, attention.proj.weight, attention.proj.bias).view(b, n, c)


def _add_mlp(block: SwinBlock, rows: Tensor) -> None:
    """Add to rows (n, C) what the second half of the block adds."""
    first, second = block.mlp.fc1, block.mlp.fc2
    for some in blocks(len(rows), first.out_features):
        hidden = linear(normalised(rows[some], block.norm2), first.weight, first.bias, gelu=True)
        rows[some] += linear(hidden, second.weight, second.bias)
