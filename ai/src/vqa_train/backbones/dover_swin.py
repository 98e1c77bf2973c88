"""DOVER's technical network: Video Swin Transformer, tiny, with gated relative position biases.

Liu et al., Video Swin Transformer (2022); the gate is from Wu et al., FAST-VQA (2022). Names of modules and parameters
are those of the published checkpoints.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.onnx import is_in_onnx_export

from vqa_train.backbones.dover_positions import (
    WINDOW,
    Windows,
    cut_windows,
    gate_of,
    grid_of,
    join_windows,
    mask_of,
    relative_position_index,
    windows_of,
)
from vqa_train.backbones.graph_loop import export_loop

EPS = 1e-5
DEPTHS = (2, 2, 6, 2)
WIDTH = 96
HEAD_WIDTH = 32
PATCH = (2, 4, 4)
SCALE = HEAD_WIDTH**-0.5
MASKED = -100.0
# Sub-grids of 2 x 2 tokens in the order in which merging lays them side by side: (row, column).
MERGED = ((0, 0), (1, 0), (0, 1), (1, 1))


class PatchEmbed(nn.Module):
    """Patches of 2 x 4 x 4 pixels as tokens: (B, 3, T, H, W) -> (B, D, H, W, WIDTH)."""

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Conv3d(3, WIDTH, PATCH, PATCH)
        self.norm = nn.LayerNorm(WIDTH, EPS)

    def padded(self, clips: Tensor) -> Tensor:
        """(..., T, H, W) grown at the end to whole patches."""
        t, h, w = (-n % p for n, p in zip(clips.shape[-3:], PATCH, strict=True))
        return F.pad(clips, (0, w, 0, h, 0, t))

    def forward(self, clips: Tensor) -> Tensor:
        tokens: Tensor = self.norm(self.proj(self.padded(clips)).permute(0, 2, 3, 4, 1))
        return tokens


class WindowAttention(nn.Module):
    """Attention within windows, with a position bias that blends two tables by the distance between mini-patches.

    bias = gate * relative + (1 - gate) * fragment, or the relative one alone in a stage without a fragment table.
    """

    relative_position_index: Tensor

    def __init__(self, width: int, *, fragments: bool) -> None:
        super().__init__()
        self.heads = width // HEAD_WIDTH
        entries = (2 * WINDOW[0] - 1) * (2 * WINDOW[1] - 1) * (2 * WINDOW[2] - 1)
        self.relative_position_bias_table = nn.Parameter(torch.zeros(entries, self.heads))
        self.fragment_position_bias_table = nn.Parameter(torch.zeros(entries, self.heads)) if fragments else None
        self.register_buffer("relative_position_index", relative_position_index())
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def biases(self, tokens: Tensor | slice) -> tuple[Tensor, Tensor | None]:
        """Both tables for every pair of some tokens of the nominal window: float32 (heads, N, N) each."""
        index = self.relative_position_index[tokens][:, tokens]

        def read(table: Tensor) -> Tensor:
            return table.t().gather(1, index.flatten().expand(self.heads, -1)).view(self.heads, *index.shape)

        fragment = self.fragment_position_bias_table
        return read(self.relative_position_bias_table), None if fragment is None else read(fragment)

    def forward(self, x: Tensor, windows: Windows) -> Tensor:
        """(B, windows, N, C) -> the same."""
        # Of a window smaller than the nominal one the published network reads the index's upper left corner.
        relative, fragment = self.biases(slice(windows.tokens.shape[1]))
        places = torch.stack((windows.rows, windows.columns, windows.regions), -1).to(x.device, torch.float32)
        qkv = self.qkv(x)
        if is_in_onnx_export():
            mixed = self._recorded(qkv, places, relative, fragment)
        else:
            bias = _bias(places, relative, fragment)
            # Clip by clip: all clips share the biases of the windows, which are the largest tensor here.
            mixed = torch.stack([self._attend(clip, bias) for clip in qkv])
        y: Tensor = self.proj(mixed)
        return y

    def _attend(self, qkv: Tensor, bias: Tensor) -> Tensor:
        """Windows (W, N, 3C) and biases (W or 1, heads, N, N) -> (W, N, C)."""
        q, k, v = qkv.view(*qkv.shape[:2], 3, self.heads, HEAD_WIDTH).permute(2, 0, 3, 1, 4)
        return (
            F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype), scale=SCALE).transpose(1, 2).flatten(2)
        )

    def _recorded(self, qkv: Tensor, places: Tensor, relative: Tensor, fragment: Tensor | None) -> Tensor:
        """The same as an ONNX Loop over windows: the biases of all windows would be a gigabyte of constants."""

        def step(items: Tensor, relative: Tensor, other: Tensor) -> Tensor:
            bias = _bias(items[..., -3:], relative, None if fragment is None else other)
            return self._attend(items[..., :-3], bias)

        b, count, n, _ = qkv.shape
        items = torch.cat([qkv, places.expand(b, *places.shape)], -1).flatten(0, 1)
        mixed = export_loop(step, items, relative, relative if fragment is None else fragment)
        return mixed.view(b, count, n, -1)


def _bias(places: Tensor, relative: Tensor, fragment: Tensor | None) -> Tensor:
    """Windows (W, N, 3) of rows, columns and regions, and both tables (heads, N, N) -> float32 (W, heads, N, N)."""
    rows, columns, regions = places.unbind(-1)
    gate = gate_of(rows, columns)[:, None]
    bias = relative[None] if fragment is None else gate * relative + (1 - gate) * fragment
    return bias + mask_of(regions)[:, None] * MASKED


class Mlp(nn.Module):
    """Two linear layers around an exact GELU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return y


class SwinBlock(nn.Module):
    """Window attention and an MLP, each on normalised tokens and added to them; windows of odd blocks are shifted."""

    def __init__(self, width: int, *, fragments: bool, shifted: bool) -> None:
        super().__init__()
        self.shifted = shifted
        self.norm1 = nn.LayerNorm(width, EPS)
        self.attn = WindowAttention(width, fragments=fragments)
        self.norm2 = nn.LayerNorm(width, EPS)
        self.mlp = Mlp(width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, H, W, C) -> the same."""
        x = x + self._attend(x)
        y: Tensor = x + self.mlp(self.norm2(x))
        return y

    def _attend(self, x: Tensor) -> Tensor:
        # While the graph is being traced, sizes are tensors.
        grid = grid_of(int(n) for n in x.shape[1:4])
        windows = windows_of(grid, shifted=self.shifted)
        d, h, w = (p - n for p, n in zip(windows.padded, grid, strict=True))
        # Padding comes after the norm, and padded tokens are keys like any other.
        y = F.pad(self.norm1(x), (0, 0, 0, w, 0, h, 0, d))
        if any(windows.shift):
            y = y.roll([-s for s in windows.shift], (1, 2, 3))
        y = self.attn(cut_windows(y, windows.window), windows)
        y = join_windows(y, windows.window, windows.padded)
        if any(windows.shift):
            y = y.roll(windows.shift, (1, 2, 3))
        return y[:, : grid[0], : grid[1], : grid[2]]


class PatchMerging(nn.Module):
    """Squares of 2 x 2 tokens as one of twice the width: (B, D, H, W, C) -> (B, D, H / 2, W / 2, 2C), rounded up."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)
        self.norm = nn.LayerNorm(4 * width, EPS)

    def padded(self, x: Tensor) -> Tensor:
        """(B, D, H, W, C) grown at the end to an even height and width."""
        return F.pad(x, (0, 0, 0, x.shape[3] % 2, 0, x.shape[2] % 2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.padded(x)
        merged: Tensor = self.reduction(self.norm(torch.cat([x[:, :, i::2, j::2] for i, j in MERGED], -1)))
        return merged


class SwinStage(nn.Module):
    """Blocks of one width, then a merging except in the last stage."""

    def __init__(self, stage: int) -> None:
        super().__init__()
        width, last = WIDTH << stage, stage == len(DEPTHS) - 1
        self.blocks = nn.ModuleList(
            SwinBlock(width, fragments=not last, shifted=j % 2 == 1) for j in range(DEPTHS[stage])
        )
        self.downsample = None if last else PatchMerging(width)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x if self.downsample is None else self.downsample(x)


class DoverSwin(nn.Module):
    """Normalised clips float (B, 3, T, H, W) -> features (B, 768, D, h, w): T / 2, H / 32 and W / 32, rounded up."""

    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed()
        self.layers = nn.ModuleList(SwinStage(stage) for stage in range(len(DEPTHS)))
        self.norm = nn.LayerNorm(WIDTH << len(DEPTHS) - 1, EPS)

    def forward(self, clips: Tensor) -> Tensor:
        """As a plain network; `swin_features` in dover_swin_cpu.py gives the same, faster on a CPU."""
        x = self.patch_embed(clips)
        for layer in self.layers:
            x = layer(x)
        features: Tensor = self.norm(x)
        return features.permute(0, 4, 1, 2, 3)
