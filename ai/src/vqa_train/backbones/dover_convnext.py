"""The ConvNeXts of DOVER, inflated to three dimensions: Tiny for its aesthetic branch, V2 femto for DOVER-Mobile.

Liu et al., A ConvNet for the 2020s (2022); Woo et al., ConvNeXt V2 (2023). Names of modules and parameters are those
of the published checkpoints.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPS = 1e-6
STEM = (2, 4, 4)
CLASSES = 1000
# Frames that a depthwise convolution sees, by the number of its block modulo 3.
TEMPORAL = (1, 3, 1)


class Grn(nn.Module):
    """Global response normalisation of (B, T, H, W, C), as the published weights were trained: over T and H.

    The 2-D network normalises over H and W, the axes 1 and 2 of its tensors; inflated, these are T and H.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1, 1, 1, width))
        self.beta = nn.Parameter(torch.zeros(1, 1, 1, width))
        self.eps = EPS

    def forward(self, x: Tensor) -> Tensor:
        norm = x.square().sum((1, 2), keepdim=True).sqrt()
        return self.gamma * (x * (norm / (norm.mean(-1, keepdim=True) + self.eps))) + self.beta + x


class ConvNextBlock(nn.Module):
    """Depthwise convolution, then an MLP per position, added to the input; (B, T, H, W, C) -> the same.

    The first version scales what it adds by `gamma`, the second has `grn` inside the MLP.
    """

    def __init__(self, width: int, *, frames: int, second: bool) -> None:
        super().__init__()
        self.gamma = None if second else nn.Parameter(torch.ones(width))
        padding = (frames // 2, 3, 3)
        self.dwconv = nn.Conv3d(width, width, (frames, 7, 7), padding=padding, groups=width)
        self.norm = nn.LayerNorm(width, EPS)
        self.pwconv1 = nn.Linear(width, 4 * width)
        self.grn = Grn(4 * width) if second else None
        self.pwconv2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.dwconv(x.permute(0, 4, 1, 2, 3)).permute(0, 2, 3, 4, 1)
        y = F.gelu(self.pwconv1(self.norm(y)))
        if self.grn is not None:
            y = self.grn(y)
        y = self.pwconv2(y)
        added: Tensor = y if self.gamma is None else y * self.gamma
        return x + added


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of (B, C, T, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 4, 1)).permute(0, 4, 1, 2, 3)


class DoverConvNext(nn.Module):
    """Normalised clips float (B, 3, T, H, W) -> features (B, C, T / 2, H / 32, W / 32), rounded down.

    Args:
        depths, widths: blocks and channels of the four stages.
        second: ConvNeXt V2; the published state dict then has a classifier, which nothing uses.
    """

    def __init__(self, depths: tuple[int, ...], widths: tuple[int, ...], *, second: bool) -> None:
        super().__init__()
        stem = nn.Sequential(nn.Conv3d(3, widths[0], STEM, STEM), ChannelNorm(widths[0], EPS))
        halvings = (
            nn.Sequential(ChannelNorm(before, EPS), nn.Conv3d(before, after, (1, 2, 2), (1, 2, 2)))
            for before, after in pairwise(widths)
        )
        self.downsample_layers = nn.ModuleList((stem, *halvings))
        self.stages = nn.ModuleList(
            nn.Sequential(*(ConvNextBlock(width, frames=TEMPORAL[j % 3], second=second) for j in range(depth)))
            for depth, width in zip(depths, widths, strict=True)
        )
        self.norm = nn.LayerNorm(widths[-1], EPS)
        if second:
            self.head = nn.Linear(widths[-1], CLASSES)

    def forward(self, clips: Tensor) -> Tensor:
        """As a plain network; `convnext_features` in dover_convnext_cpu.py gives the same, faster on a CPU."""
        x = clips
        for downsample, stage in zip(self.downsample_layers, self.stages, strict=True):
            x = stage(downsample(x).permute(0, 2, 3, 4, 1)).permute(0, 4, 1, 2, 3)
        features: Tensor = self.norm(x.permute(0, 2, 3, 4, 1))
        return features.permute(0, 4, 1, 2, 3)


def convnext_tiny() -> DoverConvNext:
    """The aesthetic network of DOVER and DOVER++; 768 channels."""
    return DoverConvNext((3, 3, 9, 3), (96, 192, 384, 768), second=False)


def convnext_femto() -> DoverConvNext:
    """Both networks of DOVER-Mobile; 384 channels."""
    return DoverConvNext((2, 2, 6, 2), (48, 96, 192, 384), second=True)
