"""V-JEPA 2's encoder and attentive pooler: the modules of transformers, with rotations and attention of our own.

Rotation tables are computed once, in float32 whatever the network computes in; transformers computes them anew in each
layer, from angles in the network's precision. In an ONNX graph attention goes through the queries in pieces, because
the whole matrix of scores would take gigabytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.onnx import is_in_onnx_export

from vqa_train.backbones.graph_loop import export_loop
from vqa_train.core.errors import DependencyError, UsageError

PATCH = 16
TUBELET = 2
_ATTENTION = "vqa_train_vjepa2"
_ROPE_BASE = 10000.0
_POOLER_MLP_RATIO = 4
# Queries that one turn of the graph's loop attends with.
_QUERIES = 128


@dataclass(frozen=True, kw_only=True)
class Vjepa2Size:
    """What decides the network's shapes.

    Attributes:
        hidden: numbers per token (C).
        layers: of the encoder.
        heads: of attention.
        mlp: hidden numbers of the encoder's MLPs.
        crop: side of the square frames, pixels; a multiple of PATCH.
        frames: of a clip (T); a multiple of TUBELET.
        pooler_layers: self-attention layers of the attentive pooler; None has no pooler.
    """

    hidden: int
    layers: int
    heads: int
    mlp: int
    crop: int
    frames: int
    pooler_layers: int | None = None

    def __post_init__(self) -> None:
        for name, unit in (("hidden", self.heads), ("crop", PATCH), ("frames", TUBELET)):
            value = getattr(self, name)
            if value < 1 or value % unit:
                raise UsageError(f"V-JEPA 2: {name} must be a multiple of {unit}, got {value}")

    @property
    def grid(self) -> tuple[int, int]:
        """Time steps (T / 2), and tokens per time step ((crop / 16)²)."""
        return self.frames // TUBELET, (self.crop // PATCH) ** 2

    @property
    def flops(self) -> float:
        """Floating-point operations for one clip; a multiplication and an addition are two."""
        tokens, width = self.grid[0] * self.grid[1], self.hidden
        embed = 2 * tokens * width * 3 * TUBELET * PATCH**2
        layer = 2 * tokens * width * (4 * width + 2 * self.mlp) + 4 * tokens**2 * width
        if self.pooler_layers is None:
            return float(embed + self.layers * layer)
        own = 2 * tokens * width * (4 + 2 * _POOLER_MLP_RATIO) * width + 4 * tokens**2 * width
        return float(embed + self.layers * layer + self.pooler_layers * own + 4 * tokens * width**2)


def build_network(size: Vjepa2Size) -> tuple[nn.ModuleDict, nn.Module, nn.Module | None]:
    """A network without weights, on the meta device: as its checkpoint names its parts, its encoder, its pooler.

    The predictor and the classifier are never built. State-dict keys are the published ones: `encoder.*`, and with a
    pooler `vjepa2.encoder.*` and `pooler.*`.

    Raises:
        DependencyError: transformers is not installed.
    """
    try:
        from transformers import AttentionInterface, VJEPA2Config
        from transformers.models.vjepa2 import modeling_vjepa2 as modeling
    except ModuleNotFoundError as error:
        raise DependencyError(
            f"V-JEPA 2 needs the package {error.name!r}, which is not installed",
            hint="pip install 'vqa-train[backbones]'",
        ) from error
    AttentionInterface.register(_ATTENTION, _pooler_attention)
    config = VJEPA2Config(
        patch_size=PATCH,
        tubelet_size=TUBELET,
        crop_size=size.crop,
        frames_per_clip=size.frames,
        hidden_size=size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        mlp_ratio=size.mlp / size.hidden,
        num_pooler_layers=size.pooler_layers or 0,
    )
    config._attn_implementation = _ATTENTION
    rotation = Rotation(head=size.hidden // size.heads, steps=size.grid[0], side=size.crop // PATCH)
    with torch.device("meta"):
        encoder: Any = modeling.VJEPA2Encoder(config)
        for layer in encoder.layer:
            layer.attention = RotaryAttention(size.hidden, size.heads, rotation)
        if size.pooler_layers is None:
            return nn.ModuleDict({"encoder": encoder}), encoder, None
        pooler: nn.Module = modeling.VJEPA2AttentivePooler(config)
    return nn.ModuleDict({"vjepa2": nn.ModuleDict({"encoder": encoder}), "pooler": pooler}), encoder, pooler


class Rotation(nn.Module):
    """Rotary positions of queries and keys by time, row and column, as tables for one grid of tokens.

    A third of each head, rounded down to an even number d, turns with the time step, a third with the row, a third with
    the column; what is left over stays. Of a third, numbers 2i and 2i + 1 are turned together, number j by
    position * 10000^(-2 (j mod d/2) / d): the two of a pair by different angles, as the published weights expect.

    Args:
        head: numbers per head.
        steps: time steps.
        side: rows, and columns.
    """

    cosine: Tensor
    sine: Tensor
    partner: Tensor

    def __init__(self, *, head: int, steps: int, side: int) -> None:
        super().__init__()
        part = 2 * (head // 3 // 2)
        frequency = 1.0 / _ROPE_BASE ** (torch.arange(part // 2, dtype=torch.float32) / (part / 2.0))
        token = torch.arange(steps * side * side)
        positions = torch.stack([token // side**2, token % side**2 // side, token % side], 1)
        angles = (positions[:, :, None] * frequency).repeat(1, 1, 2).flatten(1)
        angles = functional.pad(angles, (0, head - angles.shape[1]))
        # With its partner y, a number x becomes x cos - y sin where it is the first of the pair, x cos + y sin else.
        sign = torch.tensor([-1.0, 1.0]).repeat(head // 2)
        self.register_buffer("cosine", angles.cos(), persistent=False)
        self.register_buffer("sine", angles.sin() * sign, persistent=False)
        self.register_buffer("partner", torch.arange(head).view(-1, 2).flip(1).flatten(), persistent=False)

    def forward(self, given: Tensor) -> Tensor:
        """Queries or keys (B, heads, N, head), turned."""
        cosine, sine = self.cosine.to(given.dtype), self.sine.to(given.dtype)
        return torch.addcmul(given * cosine, given.index_select(-1, self.partner), sine)


class RotaryAttention(nn.Module):
    """Self-attention of the encoder, with the parameters that the published weights name.

    Args:
        hidden: numbers per token.
        heads: of attention.
        rotation: shared by all layers.
    """

    def __init__(self, hidden: int, heads: int, rotation: Rotation) -> None:
        super().__init__()
        self.heads = heads
        self.rotation = rotation
        self.query = nn.Linear(hidden, hidden)
        self.key = nn.Linear(hidden, hidden)
        self.value = nn.Linear(hidden, hidden)
        self.proj = nn.Linear(hidden, hidden)

    def forward(self, hidden_states: Tensor, position_mask: None = None) -> tuple[Tensor, None]:
        """Tokens (B, N, C) to (B, N, C), and no attention weights: what a transformers layer expects."""
        query, key, value = (
            part(hidden_states).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        found = attend(self.rotation(query), self.rotation(key), value, query.shape[-1] ** -0.5)
        return self.proj(found.transpose(1, 2).flatten(2)), None


def attend(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
    """Softmax attention without a mask, (B, heads, N, head) each."""
    if is_in_onnx_export():
        return attend_in_pieces(query, key, value, scaling)
    return functional.scaled_dot_product_attention(query, key, value, scale=scaling)


def attend_in_pieces(query: Tensor, key: Tensor, value: Tensor, scaling: float, size: int = _QUERIES) -> Tensor:
    """`scaled_dot_product_attention` of one clip, in the graph as a loop over `size` queries at a time.

    Args:
        query: (1, heads, M, head); at once where `size` does not divide M.
        key, value: (1, heads, N, head).
    """

    def step(piece: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return (piece @ key * scaling).softmax(-1) @ value

    heads, count, width = (int(length) for length in query.shape[1:])
    size = size if count % size == 0 else count
    pieces = query.reshape(heads, -1, size, width).transpose(0, 1)
    turned = key.transpose(2, 3)[0]
    if is_in_onnx_export() and size < count:
        found = export_loop(step, pieces, turned, value[0])
    else:
        found = torch.cat([step(pieces[i : i + 1], turned, value[0]) for i in range(len(pieces))])
    return found.transpose(0, 1).reshape(1, heads, count, width)


def _pooler_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: None, *, scaling: float, **_: object
) -> tuple[Tensor, None]:
    """`attend` as transformers calls it from the pooler; (B, N, heads, head)."""
    return attend(query, key, value, scaling).transpose(1, 2), None
