"""Multi-head attention from the tokens of one map to those of another: vanilla, in windows, in areas, linear.

Every function takes queries [B, heads, N_low, d] and keys and values [B, heads, N_high, d], both of row-major
tokens, and returns [B, heads, N_low, d].
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def vanilla_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Every query attends to every key: softmax(Q K^T / sqrt(d)) V (FINE, equation 6)."""
    return F.scaled_dot_product_attention(query, key, value)


def window_attention(query: Tensor, key: Tensor, value: Tensor, size: tuple[int, int], window: int) -> Tensor:
    """A query attends to the keys of its own window (Swin's windows, without their shift).

    Args:
        query: of a map of `size`.
        key: of a map of the same size, so that a window covers the same region of both.
        value: like `key`.
        size: (height, width) of both maps.
        window: side of a window. Where windows don't fill the map they reach beyond it, and nothing there is
            attended to.
    """
    batch, (height, width) = int(query.shape[0]), size
    mask = None
    if height % window or width % window:
        mask = _inside(size, window, query.device).repeat(batch, 1, 1, 1)
    query, key, value = (_to_windows(tokens, size, window) for tokens in (query, key, value))
    attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    rows, columns = -(-height // window), -(-width // window)
    grid = attended.unflatten(0, (batch, rows, columns)).unflatten(4, (window, window))
    # [B, rows, columns, heads, window, window, d] -> [B, heads, rows * window, columns * window, d]
    grid = grid.permute(0, 3, 1, 4, 2, 5, 6).flatten(4, 5).flatten(2, 3)
    return grid[:, :, :height, :width].flatten(2, 3)


def _to_windows(tokens: Tensor, size: tuple[int, int], window: int) -> Tensor:
    """[B, heads, H * W, d] -> [B * windows, heads, window^2, d], with zeros beyond the map."""
    height, width = size
    grid = F.pad(tokens.unflatten(2, size), (0, 0, 0, -width % window, 0, -height % window))
    grid = grid.unflatten(3, (-1, window)).unflatten(2, (-1, window))
    # [B, heads, rows, window, columns, window, d] -> [B, rows, columns, heads, window, window, d]
    return grid.permute(0, 2, 4, 1, 3, 5, 6).flatten(4, 5).flatten(0, 2)


def _inside(size: tuple[int, int], window: int, device: torch.device) -> Tensor:
    """Which keys of each window lie on the map: bool [windows, 1, 1, window^2]."""
    tokens = torch.ones(1, 1, size[0] * size[1], 1, device=device)
    return _to_windows(tokens, size, window).transpose(2, 3) > 0


def area_attention(query: Tensor, key: Tensor, value: Tensor, areas: int) -> Tensor:
    """Queries and keys are cut into strips of successive tokens; a strip attends to the one of the same place.

    YOLOv12's area attention, across levels. Strip i of n starts at token floor(i N / n) of N. There are `areas`
    of them, or fewer where a level has fewer tokens than that.
    """
    count = min(areas, int(query.shape[2]), int(key.shape[2]))
    strips = zip(*(tokens.split(_strip_lengths(int(tokens.shape[2]), count), 2) for tokens in (query, key, value)))
    return torch.cat([F.scaled_dot_product_attention(*strip) for strip in strips], dim=2)


def _strip_lengths(num_tokens: int, count: int) -> list[int]:
    return [(i + 1) * num_tokens // count - i * num_tokens // count for i in range(count)]


def linear_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """SimA's attention without softmax: Q (K^T V), each channel of Q and K divided by its L1 norm over the tokens.

    Its cost grows with N_low + N_high, not with their product.
    """
    query, key = F.normalize(query, p=1.0, dim=2), F.normalize(key, p=1.0, dim=2)
    return query @ (key.transpose(2, 3) @ value)
