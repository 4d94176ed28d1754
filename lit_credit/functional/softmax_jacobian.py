"""The backward pass of a softmax, in its local (diagonal) and its lateral part."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lit_credit.functional._attention import attention_rows, in_float64
from lit_credit.functional._rows import check_same_shape, magnitude
from lit_credit.functional.gradient_cosine import gradient_cosine

__all__ = [
    "EnergySums",
    "SoftmaxCosines",
    "SoftmaxEnergies",
    "SoftmaxGradients",
    "energy_shares",
    "energy_sums",
    "softmax_cosines",
    "softmax_energies",
    "softmax_gradients",
]

# Attention and credit are known to float32's rounding at best. Where the two parts cancel to less
# than a few units of it, what is left is rounding, and has neither energy nor direction.
_RESOLUTION = 4 * torch.finfo(torch.float32).eps


class SoftmaxGradients(NamedTuple):
    """The gradient at the scores and its candidates, each (..., T, S) in float64."""

    full: Tensor
    diagonal: Tensor
    off_diagonal: Tensor
    straight_through: Tensor


class SoftmaxEnergies(NamedTuple):
    """Shares of the full gradient's energy; they sum to 1, and one may exceed 1."""

    r_diag: Tensor
    r_off: Tensor
    r_cross: Tensor


class EnergySums(NamedTuple):
    """Squares of the full gradient and its parts, summed, over the square of their scale."""

    scale: Tensor
    full: Tensor
    diagonal: Tensor
    off_diagonal: Tensor
    product: Tensor


class SoftmaxCosines(NamedTuple):
    """Cosines with the full gradient, in [-1, 1]."""

    cosine_diag: Tensor
    cosine_ste: Tensor


def softmax_gradients(
    attention: Tensor, credit: Tensor, allowed: Tensor | None = None
) -> SoftmaxGradients:
    r"""The gradient at the scores of a softmax, its two parts, and the straight-through one.

    .. math:: J = \mathrm{diag}(A) - A A^\top, \quad
        g_{\text{full}} = J g = A \odot \big(g - \textstyle\sum_j A_j g_j\big)
    .. math:: g_{\text{diag}} = A \odot (1 - A) \odot g, \quad
        g_{\text{off}} = -A \odot \textstyle\sum_{j \neq i} A_j g_j, \quad
        g_{\text{ste}} = g \text{ where allowed}

    for every row A of queries, with g the credit that reaches A. All are zero at positions that are
    not allowed and in rows without an allowed key, and NaN in rows that are no softmax.

    Args:
        attention: A, (..., T, S), rows that sum to 1.
        credit: g = dL/dA, (..., T, S), exact or as a learning rule delivers it.
        allowed: bool, broadcastable to A, True where a query may see a key; None allows all.

    Returns:
        Four float64 tensors (..., T, S) in the unit of ``credit``; the first is the sum of the
        second and the third.

    Raises:
        ValueError: if the shapes do not fit, or ``allowed`` is not bool.

    Example:
        >>> import torch
        >>> parts = softmax_gradients(torch.tensor([[0.5, 0.5]]), torch.tensor([[1.0, 0.0]]))
        >>> parts.full.tolist(), parts.diagonal.tolist()
        ([[0.25, -0.25]], [[0.25, 0.0]])
    """
    check_same_shape(attention, credit, ("attention", "credit"))
    a, support = attention_rows(attention, allowed)
    g = in_float64(credit).masked_fill(~support, 0.0)
    # `1 - a` would have lost its digits where a is nearly 1, as in the heads of a trained net.
    largest = a.argmax(-1, keepdim=True)
    diagonal = a * g * _sum_of_others(a, largest)
    off_diagonal = -a * _sum_of_others(a * g, largest)
    # NaN for a row that is no softmax, so that nothing is read from it by mistake.
    straight_through = g.masked_fill(a.isnan(), torch.nan)
    return SoftmaxGradients(diagonal + off_diagonal, diagonal, off_diagonal, straight_through)


def softmax_energies(
    gradients: SoftmaxGradients, dims: tuple[int, ...] = (-2, -1)
) -> SoftmaxEnergies:
    r"""How much of the gradient at the scores is local, lateral, and the product of both.

    .. math:: r_{\text{diag}} = \frac{\|g_{\text{diag}}\|^2}{\|g_{\text{full}}\|^2}, \quad
        r_{\text{off}} = \frac{\|g_{\text{off}}\|^2}{\|g_{\text{full}}\|^2}, \quad
        r_{\text{cross}} = \frac{2 \langle g_{\text{diag}}, g_{\text{off}} \rangle}
        {\|g_{\text{full}}\|^2}

    The parts are not orthogonal: ``1 - r_diag`` is not the lateral energy.

    Args:
        gradients: of :func:`softmax_gradients`, (..., T, S).
        dims: dimensions that the energies are summed over before they are divided; by default one
            sample's head. ``(0, -2, -1)`` pools the samples of (N, H, T, S): each counts by its
            energy, and one whose gradient nearly vanishes does not decide the mean.

    Returns:
        Three float64 tensors that sum to 1, of the shape that the other dimensions leave; NaN where
        the full gradient is zero, not finite, or only the rounding of two parts that cancel.

    Example:
        >>> import torch
        >>> parts = softmax_gradients(torch.tensor([[0.5, 0.5]]), torch.tensor([[1.0, 0.0]]))
        >>> [round(r.item(), 3) for r in softmax_energies(parts)]
        [0.5, 0.5, 0.0]
    """
    return energy_shares([energy_sums(gradients, dims)])


def energy_sums(gradients: SoftmaxGradients, dims: tuple[int, ...] = (-2, -1)) -> EnergySums:
    """What :func:`energy_shares` makes shares of, for some of the samples.

    Args:
        gradients: of :func:`softmax_gradients`, (..., T, S).
        dims: dimensions to sum over.

    Returns:
        Five float64 tensors of the shape that the other dimensions leave.
    """
    full, diagonal, off_diagonal, _ = gradients
    scale = magnitude(diagonal, dims).maximum(magnitude(off_diagonal, dims))
    f, d, o = full / scale, diagonal / scale, off_diagonal / scale
    sums = [x.sum(dims) for x in (f.square(), d.square(), o.square(), d * o)]
    each = scale.squeeze(dims) if scale.ndim else scale  # one number where there is nothing
    return EnergySums(each.expand_as(sums[0]), *sums)


def energy_shares(parts: Sequence[EnergySums]) -> SoftmaxEnergies:
    """The energies of all samples together, however they were cut; see :func:`softmax_energies`.

    Args:
        parts: of :func:`energy_sums`, at least one.

    Example:
        >>> import torch
        >>> credit = torch.tensor([[[1.0, 0.0]], [[0.0, 3.0]]])
        >>> parts = [softmax_gradients(torch.full((1, 2), 0.5), g) for g in credit]
        >>> round(energy_shares([energy_sums(part) for part in parts]).r_diag.item(), 3)
        0.5
    """
    stacked = EnergySums(*map(torch.stack, zip(*parts, strict=True)))
    empty = (stacked.diagonal == 0) & (stacked.off_diagonal == 0)  # has no scale
    scale = stacked.scale.masked_fill(empty, 0.0)
    common = scale.amax(0)
    factor = torch.where(common > 0, scale / common, 1.0).square()
    squared, diagonal, off_diagonal, product = ((x * factor).sum(0) for x in stacked[1:])
    resolved = squared > _RESOLUTION**2 * diagonal.maximum(off_diagonal)
    shares = diagonal, off_diagonal, 2 * product
    return SoftmaxEnergies(*(torch.where(resolved, s / squared, torch.nan) for s in shares))


def softmax_cosines(gradients: SoftmaxGradients) -> SoftmaxCosines:
    r"""Would the local part alone, or no softmax backward at all, point the same way?

    .. math:: \cos(g_{\text{diag}}, g_{\text{full}}), \quad \cos(g_{\text{ste}}, g_{\text{full}})

    Args:
        gradients: of :func:`softmax_gradients`, (..., T, S).

    Returns:
        Two float64 tensors (...), each over the T S entries of one sample's head; NaN where a
        vector is zero or not finite, or the full gradient only the rounding of two parts that
        cancel.

    Example:
        >>> import torch
        >>> parts = softmax_gradients(torch.tensor([[0.5, 0.5]]), torch.tensor([[1.0, 0.0]]))
        >>> [round(cosine.item(), 4) for cosine in softmax_cosines(parts)]
        [0.7071, 0.7071]
    """
    full = gradients.full
    heads, resolved = full.shape[:-2], softmax_energies(gradients).r_diag.isfinite()

    def cosine(other: Tensor) -> Tensor:
        one, two = (x.reshape(heads.numel(), full.shape[-2:].numel()) for x in (other, full))
        found = gradient_cosine(one, two).reshape(heads)
        return torch.where(resolved, found, torch.nan)

    return SoftmaxCosines(cosine(gradients.diagonal), cosine(gradients.straight_through))


def _sum_of_others(x: Tensor, largest: Tensor) -> Tensor:
    """For each key the sum over all others; that of the largest is not made by subtraction."""
    rest = x.scatter(-1, largest, 0.0).sum(-1, keepdim=True)
    total = rest + x.gather(-1, largest)
    return (total - x).scatter_(-1, largest, rest)
