"""A fast forward pass of the micro adder: only the rows that predict the answer."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import gelu

__all__ = ["adder_attention", "fast_logits"]


# Legend: N sums, T inputs, R rows that predict the answer. The batch is the last dimension, so
# that every product has few rows and long contiguous columns.


def adder_attention(net: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Queries and keys of all inputs, (T, qk_width), and the attention of the answer's rows (R, T).

    Args:
        net: :class:`lit_credit.studies.addition.MicroAdder`.
    """
    positions = net.embed.positions()
    return _attention(net, positions, _scale(net, positions))


def _scale(net: Any, positions: Tensor) -> Tensor:
    """The factor of the first norm at each input, apart from its gain, (T,).

    All digits have one norm: that of the stream depends on the position alone.
    """
    square = net.embed.digits.radius.square() + positions.square().sum(1)
    scale: Tensor = (square / 5 + net.norm.eps).rsqrt()
    return scale


def _attention(net: Any, positions: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    attention, gain = net.block.attention, net.block.norm1.weight
    q, k = attention.queries_and_keys(positions * gain[2:] * scale[:, None])
    return q, k, attention.weights(q, k, net.layout.rows)


def fast_logits(net: Any, tokens: Tensor, forced: Tensor | None = None) -> Tensor:
    """The logits of the answer's rows.

    Args:
        net: :class:`lit_credit.studies.addition.MicroAdder`.
        tokens: (N, T).
        forced: attention (R, T) in place of the net's own.

    Returns:
        (N, R, 10), a view of the transposed.
    """
    rows, attention, ffn = net.layout.rows, net.block.attention, net.block.ffn
    table, positions = net.embed.digits.table(), net.embed.positions()  # (10, 2), (T, 3)
    scale, gain = _scale(net, positions), net.block.norm1.weight
    weights = _attention(net, positions, scale)[2] if forced is None else forced
    mix = weights * scale  # (R, T)
    added = attention.matrix() * gain[:2]  # (5, 2)

    count = len(tokens)
    # Not a lookup in the table, whose backward pass would add one by one.
    digits = net.embed.digits.points(tokens.T.contiguous().to(table.dtype))  # (2, T, N)
    mixed = mix @ digits  # (2, R, N)
    own = positions[rows].T[..., None].expand(-1, -1, count)
    stream = torch.cat([digits[:, rows], own]).flatten(1)  # (5, R N)
    stream = stream + added @ mixed.flatten(1)
    hidden = ffn.fc1.weight @ _normed(stream, net.block.norm2)  # (hidden, R N)
    if ffn.fc1.bias is not None:
        hidden = hidden + ffn.fc1.bias[:, None]
    stream = stream + ffn.matrix() @ gelu(hidden)
    logits: Tensor = (table @ net.head.weight) @ _normed(stream, net.norm)  # (10, R N)
    return torch.unflatten(logits, 1, (-1, count)).permute(2, 1, 0)


def _normed(stream: Tensor, norm: Any) -> Tensor:
    scale = (stream.square().mean(0) + norm.eps).rsqrt()
    normed: Tensor = stream * scale * norm.weight[:, None]
    return normed
