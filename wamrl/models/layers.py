"""Small parts shared by the world model and the actor."""

from __future__ import annotations

import contextlib
import math
import zlib

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

VOCABULARY = 4096


def sinusoid(values: Tensor, dim: int, scale: float = 1000.0) -> Tensor:
    """Sinusoidal features (B, dim) of float values (B,)."""
    freqs = torch.exp(
        -math.log(10_000.0) * torch.arange(dim // 2, device=values.device) / (dim // 2)
    )
    angles = scale * values.float()[:, None] * freqs
    return torch.cat([angles.cos(), angles.sin()], -1)


class TextEmbedding(nn.Module):
    """An instruction as the mean embedding of its hashed words and word pairs.

    No vocabulary file, no download.
    """

    def __init__(self, width: int):
        super().__init__()
        self.table = nn.EmbeddingBag(VOCABULARY, width, mode="mean")
        nn.init.normal_(self.table.weight, std=0.5)

    def forward(self, text: tuple[str, ...]) -> Tensor:
        """B instructions -> (B, width)."""
        rows = {t: _word_ids(t) for t in set(text)}  # few distinct instructions in a batch
        unique = list(rows)
        ids = _long(sum(rows.values(), []), self.table.weight.device)
        starts = _long([0, *(len(rows[t]) for t in unique)][:-1], ids.device).cumsum(0)
        bags = self.table(ids, starts)
        return bags[_long([unique.index(t) for t in text], ids.device)]


def _long(values: list[int], device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.long, device=device)


def _word_ids(text: str) -> list[int]:
    words = text.lower().split() or [""]
    pairs = [f"{a} {b}" for a, b in zip(words, words[1:], strict=False)]
    return [zlib.crc32(w.encode()) % VOCABULARY for w in words + pairs]


class Attention(nn.Module):
    """Multi-head attention with normalised queries and keys.

    Keys and values can be computed once and used again.
    LayerNorm without offset (ViT-22B, arXiv 2302.05442): on CPUs its one kernel costs half of what
    RMSNorm does.
    """

    def __init__(self, width: int, heads: int, source: int | None = None):
        super().__init__()
        self.heads = heads
        self.source = source or width
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(self.source, 2 * width)
        self.out = nn.Linear(width, width)
        self.q_norm, self.k_norm = (nn.LayerNorm(width // heads, bias=False) for _ in range(2))

    def keys_values(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """source (B, L, D) -> k and v, (B, heads, L, width / heads) each."""
        k, v = self.kv(source).unflatten(-1, (2, self.heads, -1)).unbind(2)
        return self.k_norm(k).transpose(1, 2), v.transpose(1, 2)

    def forward(self, x: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """x (B, L', width) attends to k and v: (B, L', width)."""
        q = self.q_norm(self.q(x).unflatten(-1, (self.heads, -1))).transpose(1, 2)
        return self.out(attend(q, k, v).transpose(1, 2).flatten(2))


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Scaled dot-product attention.

    Of the CPU's two kernels in bfloat16 the plain one: the fused one is slower.
    """
    plain = v.dtype == torch.bfloat16 and v.device.type == "cpu"
    with sdpa_kernel(SDPBackend.MATH) if plain else contextlib.nullcontext():
        return F.scaled_dot_product_attention(q, k, v)


def mlp(width: int, hidden: int, out: int | None = None) -> nn.Sequential:
    """With the exact GELU: its tanh approximation costs twice as much on CPUs."""
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, out or width))


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """AdaLN: x (B, L, D) with shift and scale (B, 1, D) or (1, 1, D)."""
    return torch.addcmul(shift, x, 1 + scale)  # one pass over memory


def zero_(layer: nn.Linear) -> nn.Linear:
    """The layer, with all its parameters set to 0."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
