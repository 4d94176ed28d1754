"""Similarity of representations: linear CKA."""

import torch
from torch import Tensor

from lit_credit.functional._rows import magnitude
from lit_credit.functional._shapes import check_shapes

__all__ = ["centred_gram", "cka_matrix", "linear_cka"]

_BLOCK = 1 << 16
"""Entries of each matrix that are held in float64 at once."""


def linear_cka(x: Tensor, y: Tensor, debiased: bool = True) -> Tensor:
    r"""Do two representations of the same samples know the same? Linear CKA.

    .. math:: \frac{\mathrm{HSIC}(K, L)}{\sqrt{\mathrm{HSIC}(K, K)\, \mathrm{HSIC}(L, L)}},
        \qquad K = X X^\top,\ L = Y Y^\top

    1 for representations that are equal up to a rotation, an offset and a common scale. With
    ``debiased``, HSIC is the unbiased estimator :math:`\mathrm{HSIC}_1`: independent features give
    about 0 for any number of features, and values may be a little below 0. Without it the value
    tends to 1 as the number of features exceeds that of samples, whatever they are.

    Args:
        x: (n, d) features of n samples.
        y: (n, e) other features of the same samples.
        debiased: use :math:`\mathrm{HSIC}_1`, which needs n >= 4.

    Returns:
        () float64, from -1 to 1; NaN if the features of one side do not vary or are not finite, or
        if there are too few samples.

    Raises:
        ValueError: if the shapes do not fit.

    Example:
        >>> import torch
        >>> x = torch.tensor([[0.0, 1.0], [2.0, 0.0], [1.0, 1.0], [5.0, 3.0], [1.0, 0.0]])
        >>> rotated = 3 * x.flip(1) + 1
        >>> round(linear_cka(x, rotated).item(), 6)
        1.0

    Reference:
        Kornblith, Norouzi, Lee, Hinton, Similarity of Neural Network Representations Revisited,
        2019, arXiv 1905.00414, section 3; Song, Smola, Gretton, Bedo, Borgwardt, Feature Selection
        via Dependence Maximization, 2012, JMLR 13, eq. 5, for the estimator.
    """
    check_shapes("(n, d), (n, e)", x=x, y=y)
    grams = [centred_gram(part, debiased).reshape(1, -1) for part in (x, y.to(x.device))]
    return cka_matrix(*grams)[0, 0]


def centred_gram(x: Tensor, debiased: bool = True) -> Tensor:
    r"""The centred Gram matrix of features, scaled to norm 1.

    The inner product of two such matrices is their linear CKA. With ``debiased`` it is U-centred:

    .. math:: \tilde K_{ij} = K_{ij} - \frac{\sum_k K_{ik}}{n - 2} - \frac{\sum_k K_{kj}}{n - 2}
        + \frac{\sum_{kl} K_{kl}}{(n - 1)(n - 2)}, \quad \tilde K_{ii} = 0,

    with sums over a K whose diagonal is zero, so that
    :math:`\mathrm{HSIC}_1(K, L) = \langle \tilde K, \tilde L \rangle / (n (n - 3))`.

    Args:
        x: (n, d) features.
        debiased: U-centre; otherwise both means are removed, H K H.

    Returns:
        (n, n) float64; NaN if the features do not vary or are not finite, or for fewer than 4
        samples (2 without ``debiased``).

    Raises:
        ValueError: if ``x`` is not (n, d).

    Example:
        >>> import torch
        >>> gram = centred_gram(torch.tensor([[0.0], [1.0], [2.0], [4.0], [9.0]]))
        >>> round(gram.square().sum().item(), 6), gram[0, 0].item()
        (1.0, 0.0)

    Reference:
        Székely, Rizzo, Partial distance correlation with methods for dissimilarities, 2014,
        Annals of Statistics 42(6), for U-centring.
    """
    check_shapes("(n, d)", x=x)
    x = x.detach().double()
    n = len(x)
    if n < (4 if debiased else 2):
        return x.new_full((n, n), torch.nan)
    x = x - x[:1]  # exactly zero where nothing varies
    x = x / magnitude(x, (0, 1))
    x = x - x.mean(0)
    gram = x @ x.mT
    if debiased:
        gram = _u_centred(gram)
    else:
        gram = gram - gram.mean(0) - gram.mean(1, keepdim=True) + gram.mean()
    centred: Tensor = gram / gram.norm()
    return centred


def _u_centred(gram: Tensor) -> Tensor:
    """U-centring: the diagonal is zero, and so is every row's sum."""
    n = len(gram)
    gram = gram - gram.diagonal().diag()
    rows = gram.sum(0) / (n - 2)
    gram = gram - rows - rows[:, None] + rows.sum() / (n - 1)
    return gram - gram.diagonal().diag()


def cka_matrix(a: Tensor, b: Tensor) -> Tensor:
    """Linear CKA of every representation of one set with every one of another.

    These are the cosines of their centred Gram matrices.

    Args:
        a: (l, k) matrices of :func:`centred_gram`, flattened, or the same entries of each.
        b: (m, k) those of other representations of the same samples.

    Returns:
        (l, m) float64, from -1 to 1; NaN where a matrix is zero or not finite.

    Raises:
        ValueError: if the shapes do not fit.

    Example:
        >>> import torch
        >>> cka_matrix(torch.eye(2), torch.tensor([[3.0, 4.0]]))
        tensor([[0.6000],
                [0.8000]], dtype=torch.float64)
    """
    check_shapes("(l, k), (m, k)", a=a, b=b)
    dot = a.new_zeros(len(a), len(b), dtype=torch.float64)
    one, other = dot.new_zeros(len(a), 1), dot.new_zeros(len(b))
    for start in range(0, a.shape[1], _BLOCK):
        u, v = (x[:, start : start + _BLOCK].detach().double() for x in (a, b))
        dot += u @ v.mT
        one += u.square().sum(1, keepdim=True)
        other += v.square().sum(1)
    return (dot / (one * other).sqrt()).clamp(-1, 1)
