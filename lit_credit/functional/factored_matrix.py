"""A matrix kept as a product of two thin ones, as a head's circuits are."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lit_credit.functional._linalg import SVD, frobenius, inner, outer, qr, svd, triangle
from lit_credit.functional._rows import in_float32
from lit_credit.functional._shapes import check_shapes

__all__ = ["SVD", "FactoredMatrix", "product_norm"]


@dataclass(frozen=True, eq=False)
class FactoredMatrix:
    r"""A matrix A of rank k that is never formed.

    .. math:: A = L R^\top

    Every quantity costs O((m + n) k^2) a matrix rather than O(m n) or more. Leading dimensions are
    stacked matrices, and broadcast: ``qk[:, None] @ ov[None]`` are the products of all pairs.

    Args:
        left: L, (..., m, k).
        right: R, (..., n, k). Both are kept in one dtype, float32 at least, without a graph.

    Raises:
        ValueError: if the inner dimensions differ.

    Example:
        >>> a = FactoredMatrix(torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [4.0]]))
        >>> a.dense()
        tensor([[3., 4.],
                [6., 8.]])
        >>> a.trace(), a.sum(), (a @ a.T).trace()
        (tensor(11.), tensor(21.), tensor(125.))

    Reference:
        Elhage et al., "A Mathematical Framework for Transformer Circuits", 2021,
        transformer-circuits.pub/2021/framework, "Working with low-rank matrices".
    """

    left: Tensor
    right: Tensor

    def __post_init__(self) -> None:
        check_shapes("(..., m, k), (..., n, k)", left=self.left, right=self.right)
        left, right = in_float32(self.left, self.right)
        object.__setattr__(self, "left", left)
        object.__setattr__(self, "right", right)

    @property
    def shape(self) -> torch.Size:
        """That of the dense matrices, (..., m, n)."""
        left, right = self.left.shape, self.right.shape
        batch = left = self.left.shape[:-2]
        if left != (right := self.right.shape[:-2]):
            batch = torch.broadcast_shapes(left, right)  # type: ignore[no-untyped-call]
        return torch.Size((*batch, self.left.shape[-2], self.right.shape[-2]))

    @property
    def T(self) -> "FactoredMatrix":
        """Each matrix transposed."""
        return FactoredMatrix(self.right, self.left)

    def __getitem__(self, index: Any) -> "FactoredMatrix":
        """Select among stacked matrices, or insert dimensions (None); not rows or columns."""
        return FactoredMatrix(self.left[index], self.right[index])

    def __matmul__(self, other: "FactoredMatrix") -> "FactoredMatrix":
        """The product, with the smaller of the two inner dimensions."""
        if self.shape[-1] != other.shape[-2]:
            raise ValueError(
                f"matrices of shapes {tuple(self.shape)} and {tuple(other.shape)} have no product. "
                "Transpose one with `.T`."
            )
        core = inner(self.right, other.left)
        if core.shape[-2] <= core.shape[-1]:
            return FactoredMatrix(self.left, outer(other.right, core))
        return FactoredMatrix(outer(self.left, core.mT), other.right)

    def dense(self) -> Tensor:
        """The matrices themselves, (..., m, n)."""
        return self.left @ self.right.mT

    def trace(self) -> Tensor:
        """Sum of the diagonal, (...), of square matrices."""
        if self.shape[-2] != self.shape[-1]:
            raise ValueError(
                f"a matrix of shape {tuple(self.shape)} has no trace. Multiply it to a square one."
            )
        return (self.left * self.right).sum((-2, -1))

    def sum(self) -> Tensor:
        """Sum of all entries, (...)."""
        return (self.left.sum(-2) * self.right.sum(-2)).sum(-1)

    def norm(self) -> Tensor:
        """Frobenius norm, (...)."""
        return frobenius(fold_left(self))

    def svd(self) -> SVD:
        """Singular values and vectors, at most k of them.

        Returns:
            U (..., m, r), s (..., r), V (..., n, r) with r = min(k, m, n); all NaN for a matrix
            that is not finite, and NaN vectors for one that is zero, which has no directions.
        """
        if self.left.shape[-1] >= min(self.shape[-2:]):
            return svd(self.dense())
        (q_left, r_left), (q_right, r_right) = (qr(x) for x in (self.left, self.right))
        u, s, v = svd(r_left @ r_right.mT)
        return SVD(q_left @ u, s, q_right @ v)


def product_norm(a: FactoredMatrix, b: FactoredMatrix) -> Tensor:
    r"""Frobenius norm of a product, for all broadcast pairs.

    .. math:: A B = Q_A \, (T_A R_A^\top) (L_B T_B^\top) \, Q_B^\top, \quad
        L_A = Q_A T_A, \; R_B = Q_B T_B

    and the orthonormal Q do not change the norm: a product of k x k remains for each pair.

    Args:
        a: A, (..., m, d).
        b: B, (..., d, n).

    Returns:
        (...) of the broadcast leading dimensions.

    Raises:
        ValueError: if the inner dimensions differ.

    Example:
        >>> a = FactoredMatrix(torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [4.0]]))
        >>> round(product_norm(a, a).item(), 3), round((a @ a).norm().item(), 3)
        (122.984, 122.984)
    """
    check_shapes("(..., m, d), (..., d, n)", a=a, b=b)
    return frobenius(inner(fold_left(a), fold_left(b.T)))


def fold_left(a: FactoredMatrix) -> Tensor:
    """R T^T, (..., n, k), with the norm of A = L R^T and of all its products from the right.

    Gram matrices would give squares of norms at the same cost, but lose half the digits where the
    factors cancel.
    """
    return a.right @ triangle(a.left).mT
