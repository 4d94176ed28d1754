"""What rotary position embedding puts between a query and a key."""

from typing import Literal, get_args

import torch
from torch import Tensor

from lit_credit.functional._rows import in_float32
from lit_credit.functional._shapes import check_shapes

__all__ = ["RotaryLayout", "rotary_frequencies", "rotary_matrix"]

RotaryLayout = Literal["interleaved", "half"]


def rotary_frequencies(rotary_dim: int, theta: float = 10000.0) -> Tensor:
    r"""Angle by which each pair of dimensions turns from one position to the next.

    .. math:: \omega_i = \theta^{-2 i / d_{\text{rot}}}, \quad i = 0 \ldots d_{\text{rot}} / 2 - 1

    Args:
        rotary_dim: how many dimensions of a head turn, even.
        theta: base.

    Returns:
        (``rotary_dim`` / 2,) float64, radians a position.

    Raises:
        ValueError: if ``rotary_dim`` is odd or below 2, or ``theta`` not above 0.

    Example:
        >>> rotary_frequencies(4)
        tensor([1.0000, 0.0100], dtype=torch.float64)

    Reference:
        Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding", 2021,
        arXiv:2104.09864, section 3.2.2.
    """
    if rotary_dim < 2 or rotary_dim % 2:
        raise ValueError(f"`rotary_dim` is {rotary_dim}, expected an even number from 2.")
    if not theta > 0:
        raise ValueError(f"`theta` is {theta}, expected a number above 0.")
    return theta ** -(torch.arange(0, rotary_dim, 2, dtype=torch.float64) / rotary_dim)


def rotary_matrix(
    frequencies: Tensor,
    distance: Tensor | float,
    d_head: int | None = None,
    layout: RotaryLayout = "interleaved",
) -> Tensor:
    r"""The matrix between a query and a key that is ``distance`` positions before it.

    .. math:: q_{\text{rotated}} \cdot k_{\text{rotated}} = q R k^\top, \quad
        R_{\text{pair } i} = \begin{pmatrix} \cos \delta \omega_i & \sin \delta \omega_i \\
        -\sin \delta \omega_i & \cos \delta \omega_i \end{pmatrix}

    Under a causal mask the distance is never negative. R of a negative distance, which is the
    transpose, scores a key that comes after its query.

    Args:
        frequencies: (p,) radians a position, of :func:`rotary_frequencies` or of the model.
        distance: position of the query minus that of the key; a number, or a tensor of them (...).
        d_head: dimensions of a head; those beyond 2 p do not turn. None takes 2 p.
        layout: whether pair i is the dimensions (2 i, 2 i + 1), ``interleaved``, or (i, i + p),
            ``half``, as Hugging Face's Llama has it.

    Returns:
        R, (..., d_head, d_head), of the dtype of ``frequencies``, float32 at least.

    Raises:
        ValueError: if ``layout`` is none of its choices, ``d_head`` is below 2 p, or
            ``frequencies`` are not (p,).

    Example:
        >>> rotary_matrix(torch.tensor([torch.pi / 2]), 1, d_head=3).round()
        tensor([[-0.,  1.,  0.],
                [-1., -0.,  0.],
                [ 0.,  0.,  1.]])

    Reference:
        Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding", 2021,
        arXiv:2104.09864, equation 16.
    """
    check_shapes("(p)", frequencies=frequencies)
    (frequencies,) = in_float32(frequencies)
    pairs = len(frequencies)
    size = 2 * pairs if d_head is None else d_head
    if layout not in get_args(RotaryLayout):
        raise ValueError(f"`layout` is {layout!r}, expected {' or '.join(get_args(RotaryLayout))}.")
    if size < 2 * pairs:
        raise ValueError(
            f"`d_head` is {d_head}, expected at least {2 * pairs}, two dimensions for each of the "
            f"{pairs} frequencies."
        )
    angle = torch.as_tensor(distance).detach().to(frequencies)[..., None] * frequencies  # (..., p)
    i = torch.arange(pairs, device=frequencies.device)
    first, second = (2 * i, 2 * i + 1) if layout == "interleaved" else (i, i + pairs)
    matrix = torch.eye(size).to(frequencies).repeat(*angle.shape[:-1], 1, 1)
    matrix[..., first, first] = matrix[..., second, second] = angle.cos()
    matrix[..., first, second] = angle.sin()
    matrix[..., second, first] = -angle.sin()
    return matrix
