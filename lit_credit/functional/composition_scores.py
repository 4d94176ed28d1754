"""How strongly one head's output enters another's queries, keys and values."""

import math
from typing import NamedTuple

from torch import Tensor

from lit_credit.functional._linalg import frobenius, inner, unit
from lit_credit.functional._shapes import check_shapes
from lit_credit.functional.factored_matrix import FactoredMatrix, fold_left

__all__ = ["CompositionScores", "composition_null", "composition_scores"]


class CompositionScores(NamedTuple):
    """Each (...), from 0 (the reader ignores what is written) to 1."""

    query: Tensor
    key: Tensor
    value: Tensor


def composition_scores(
    qk: FactoredMatrix, ov: FactoredMatrix, writer: FactoredMatrix
) -> CompositionScores:
    r"""Norm of a product of circuits over the product of their norms.

    .. math:: \frac{\|A W_{OV}\|_F}{\|A\|_F \|W_{OV}\|_F}, \quad
        A = W_{QK}^\top \text{ (query)}, \; W_{QK} \text{ (key)}, \; W_{OV}' \text{ (value)}

    for the OV circuit of a writing head and the circuits of one that reads it. What unrelated heads
    have is :func:`composition_null`.

    Args:
        qk: of the reading heads, (..., d, d).
        ov: W_OV' of the reading heads, (..., d, d).
        writer: W_OV of the writing heads, (..., d, d); ``qk[:, None], ov[:, None], writer[None]``
            are all pairs.

    Returns:
        Three tensors (...) of the broadcast leading dimensions; NaN where a circuit is zero or not
        finite.

    Raises:
        ValueError: if the widths differ.

    Example:
        >>> import torch
        >>> eye = FactoredMatrix(torch.eye(4), torch.eye(4))
        >>> composition_scores(eye, eye, eye).key.item()
        0.5

    Reference:
        Elhage et al., "A Mathematical Framework for Transformer Circuits", 2021,
        transformer-circuits.pub/2021/framework, "Two-layer attention-only transformers".
    """
    check_shapes("(..., d, d), (..., d, d), (..., d, d)", qk=qk, ov=ov, writer=writer)
    written = unit(fold_left(writer.T))
    reads = (unit(fold_left(circuit)) for circuit in (qk.T, qk, ov))
    return CompositionScores(*(frobenius(inner(read, written)) for read in reads))


def composition_null(d: int) -> float:
    r"""Root mean square of a composition score between unrelated heads.

    .. math:: \mathbb{E} \frac{\|A Q B\|_F^2}{\|A\|_F^2 \|B\|_F^2} = \frac1d

    for Q a uniformly random rotation, exactly, whatever ranks and spectra A and B have. A
    single score is off by a share of about :math:`1 / \sqrt{2 r r'}` of it for flat spectra of
    ranks r and r' far below d, so the mean lies a little below.

    Args:
        d: width of the stream.

    Raises:
        ValueError: if ``d`` is below 1.

    Example:
        >>> composition_null(64)
        0.125
    """
    if d < 1:
        raise ValueError(f"`d` is {d}, expected at least 1.")
    return 1 / math.sqrt(d)
