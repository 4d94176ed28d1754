"""What each head adds to the logits, and how often that is right."""

from typing import NamedTuple

import torch
from torch import Tensor

from lit_credit.functional._rows import in_float32
from lit_credit.functional._shapes import check_shapes

__all__ = ["SharedWork", "logit_attribution", "shared_work", "through_frozen_norm"]

# Legend: P parts of a stream (heads), M samples, d features, N symbols.


def logit_attribution(parts: Tensor, unembedding: Tensor) -> Tensor:
    r"""What each part of the stream adds to the logits directly.

    .. math:: f = W_U \sum_j h_j = \sum_j W_U h_j

    Args:
        parts: h_j, (..., d), what a head or the stream itself holds; where a norm stands before the
            unembedding, as :func:`through_frozen_norm` has them.
        unembedding: W_U, (N, d).

    Returns:
        (..., N).

    Raises:
        ValueError: if the numbers of features differ.

    Example:
        >>> logit_attribution(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.eye(2))
        tensor([[1., 0.],
                [0., 2.]])

    Reference:
        Elhage et al., "A Mathematical Framework for Transformer Circuits", 2021,
        transformer-circuits.pub/2021/framework, "Path expansion of logits".
    """
    if unembedding.ndim != 2 or parts.shape[-1:] != unembedding.shape[1:]:
        raise ValueError(
            f"`parts` and `unembedding` have shapes {tuple(parts.shape)} and "
            f"{tuple(unembedding.shape)}, expected (..., d) and (N, d)."
        )
    h, u = in_float32(parts, unembedding)
    return h @ u.mT


def through_frozen_norm(
    parts: Tensor, stream: Tensor, gain: Tensor | None, eps: float, *, centred: bool
) -> Tensor:
    r"""Parts of a stream through its norm, whose scale stays that of the whole stream.

    .. math:: g \, (h_j - \bar h_j) / \sqrt{\mathrm{Var}(h) + \epsilon}

    So the parts add up to the normed stream, but for the norm's bias.

    Args:
        parts: h_j, (..., M, d).
        stream: h, (M, d), what the norm reads.
        gain: g, (d,), or None for 1.
        eps: of the norm.
        centred: as LayerNorm does it; False for RMSNorm, which subtracts no mean.

    Returns:
        (..., M, d).

    Raises:
        ValueError: if the numbers of samples or features differ.

    Example:
        >>> h = torch.tensor([[3.0, 1.0]])
        >>> through_frozen_norm(torch.stack([h, 2 * h]), h, None, 0.0, centred=True)
        tensor([[[ 1., -1.]],
        <BLANKLINE>
                [[ 2., -2.]]])
    """
    check_shapes("(..., M, d), (M, d), (d)", parts=parts, stream=stream, gain=gain)
    parts, stream, *scale = in_float32(parts, stream, *([] if gain is None else [gain]))
    if centred:
        parts = parts - parts.mean(-1, keepdim=True)
        stream = stream - stream.mean(-1, keepdim=True)
    scaled = parts / (stream.square().mean(-1, keepdim=True) + eps).sqrt()
    return scaled if gain is None else scaled * scale[0]


class SharedWork(NamedTuple):
    """How heads share the samples; a head is right where its own largest logit is the target's."""

    solo: Tensor
    """(P,) accuracy of each head by itself."""
    all_right: Tensor
    """() share of the samples on which every head is right by itself."""
    none_right: Tensor
    """() share on which none is; 1 - sum(solo) if heads partition the samples."""


def shared_work(margins: Tensor) -> SharedWork:
    """Do heads partition the samples, or are they right only together?

    Args:
        margins: of what each head adds to the logits, (P, M); see :func:`logit_margins`.

    Returns:
        Three tensors, float64; a tie is not right. NaN without samples, and of heads with a margin
        that is NaN.

    Raises:
        ValueError: if ``margins`` is no matrix.

    Example:
        >>> shared_work(torch.tensor([[1.0, -1.0, 2.0, -1.0], [-1.0, -1.0, 1.0, 1.0]])).solo
        tensor([0.5000, 0.5000], dtype=torch.float64)
    """
    if margins.ndim != 2:
        raise ValueError(f"`margins` has shape {tuple(margins.shape)}, expected (heads, M).")
    right = (margins > 0).to(torch.float64).masked_fill(margins.isnan(), torch.nan)
    shares = right, right.prod(0), (1 - right).prod(0)
    return SharedWork(*(share.mean(-1) for share in shares))
