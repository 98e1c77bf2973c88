"""Building blocks of the way that DOVER's networks take on a CPU in float32: small row blocks through oneDNN."""

from __future__ import annotations

import platform
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.jit._trace import is_tracing  # torch.jit has it too, but does not export it to type checkers
from torch.onnx import is_in_onnx_export

# Bytes of the widest tensor of a row block: with its neighbours it stays in a core's second-level cache.
BLOCK_BYTES = 1 << 20
# With fewer rows than that, reading the weights takes longer than multiplying by them.
LEAST_ROWS = 192

# torch.compile calls this operator on every x86 machine; `F.linear` would take MKL, half as fast on AMD's processors.
_ONEDNN = (
    platform.machine() in ("x86_64", "AMD64")
    and torch._C._has_mkldnn
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
)


def is_fast(x: Tensor) -> bool:
    """Whether the networks may work in place, block by block: inference in float32 on a CPU, nothing being recorded."""
    return (
        x.device.type == "cpu"
        and x.dtype is torch.float32
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not is_tracing()  # type: ignore[no-untyped-call]  # torch has no types for it
        and not torch.compiler.is_compiling()
        and not is_in_onnx_export()
    )


def blocks(rows: int, width: int, least: int = LEAST_ROWS) -> list[slice]:
    """Equal slices of `rows`: tensors of `width` columns have BLOCK_BYTES or `least` rows, or up to twice that."""
    count = max(1, rows // max(least, BLOCK_BYTES // (4 * width)))
    edges = [rows * i // count for i in range(count + 1)]
    return [slice(*pair) for pair in pairwise(edges)]


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, *, gelu: bool = False) -> Tensor:
    """`F.linear`, then an exact GELU if asked for; x (N, in) and weight (out, in) contiguous float32."""
    if _ONEDNN:
        # oneDNN takes a weight with other strides too, two thousand times as slow.
        attribute, algorithm = ("gelu", "none") if gelu else ("none", "")
        found: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, attribute, [], algorithm)
        return found
    found = F.linear(x, weight, bias)
    return F.gelu(found) if gelu else found


def normalised(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    """LayerNorm of the last axis."""
    return F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """softmax(q k' + bias) v of one head: (N, d) each and bias (N, N), contiguous float32 -> (N, d)."""
    if _ONEDNN:
        return linear(linear(q, k, None).add_(bias).softmax(-1), v.t(), None)
    # Its fast kernel wants four dimensions.
    return F.scaled_dot_product_attention(q[None, None], k[None, None], v[None, None], attn_mask=bias, scale=1.0)[0, 0]
