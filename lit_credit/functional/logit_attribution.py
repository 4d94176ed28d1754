"""What each head adds to the logits, and how often that is right."""

from typing import NamedTuple

import torch
from torch import Tensor

from lit_credit.functional._attention import in_float64
from lit_credit.functional.softmax_divergence import logit_margins

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
    return parts.detach() @ unembedding.detach().mT


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

    Example:
        >>> h = torch.tensor([[3.0, 1.0]])
        >>> through_frozen_norm(torch.stack([h, 2 * h]), h, None, 0.0, centred=True)
        tensor([[[ 1., -1.]],
        <BLANKLINE>
                [[ 2., -2.]]])
    """
    if centred:
        parts = parts - parts.mean(-1, keepdim=True)
        stream = stream - stream.mean(-1, keepdim=True)
    scaled = parts / (stream.square().mean(-1, keepdim=True) + eps).sqrt()
    return scaled if gain is None else scaled * gain


class SharedWork(NamedTuple):
    """How heads share the samples. A head is right where its own largest logit is the target's."""

    solo: Tensor
    """(P,) accuracy of each head by itself."""
    together: Tensor
    """() accuracy of the heads' sum."""
    all_right: Tensor
    """() share of the samples on which every head is right by itself."""
    none_right: Tensor
    """() share on which none is; near 1 - sum(solo) if heads partition the samples."""


def shared_work(attribution: Tensor, target: Tensor) -> SharedWork:
    """Do heads partition the samples, or get them right only together?

    Args:
        attribution: what each head adds to the logits, (P, M, N).
        target: (M,), whole numbers.

    Returns:
        Four tensors, float64; a tie is not right.

    Raises:
        ValueError: if shapes do not fit.

    Example:
        >>> heads = torch.tensor([[[2.0, 0.0, 1.0]], [[0.0, 1.0, 2.0]]])
        >>> work = shared_work(heads, torch.tensor([2]))
        >>> work.solo.tolist(), work.together.item(), work.none_right.item()
        ([0.0, 1.0], 1.0, 0.0)
    """
    if attribution.ndim != 3:
        raise ValueError(
            f"`attribution` has shape {tuple(attribution.shape)}, expected (heads, M, N)."
        )
    right = logit_margins(attribution, target) > 0  # (P, M)
    whole = logit_margins(in_float64(attribution).sum(0), target) > 0
    shares = right, whole, right.all(0), ~right.any(0)
    return SharedWork(*(share.to(torch.float64).mean(-1) for share in shares))
