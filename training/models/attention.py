"""Multi-head attention and the feed-forward part, in the post-norm form that RT-DETR uses throughout."""

from __future__ import annotations

import itertools

from torch import Tensor, nn
from torch.nn import functional as F


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention of `num_heads` heads between token sequences of one width.

    Projections have biases. `channels` must be a multiple of `num_heads`.
    """

    def __init__(self, channels: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.output = nn.Linear(channels, channels)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attends from [B, N, C] to [B, M, C]: [B, N, C]. `mask` [N, M] is True where attention is allowed."""

        def heads(x: Tensor) -> Tensor:
            return x.unflatten(2, (self.num_heads, -1)).transpose(1, 2)

        attended = F.scaled_dot_product_attention(
            heads(self.query(query)), heads(self.key(key)), heads(self.value(value)), attn_mask=mask
        )
        return self.output(attended.transpose(1, 2).flatten(2))


class MultiLayerPerceptron(nn.Module):
    """Linear layers with ReLU between them: [..., C_in] -> [..., C_out]."""

    def __init__(self, in_channels: int, hidden_channels: int, out_channels: int, num_layers: int) -> None:
        super().__init__()
        widths = [in_channels, *[hidden_channels] * (num_layers - 1), out_channels]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """[..., C_in] -> [..., C_out]."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)
