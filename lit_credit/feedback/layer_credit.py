"""The gradients of one linear layer from the credit of its output."""

from torch import Tensor

from lit_credit.feedback.credits import Credits, Factors

__all__ = ["bias_gradient", "layer_credit", "weight_gradient"]


def layer_credit(
    credits: Credits, name: str, x: Tensor, features: int
) -> tuple[Tensor, Tensor | None]:
    """The credit e B^T of a layer as e and B; if that does not save work, the product and None.

    Args:
        credits: the credits of all units.
        name: the layer's unit.
        x: the layer's input (..., in).
        features: entries of its output.
    """
    factors = credits.factors(name)
    if factors is None or not _worthwhile(factors, x, features):
        return credits.dense(name).to(x.dtype), None
    return factors.rows, factors.matrix


def weight_gradient(rows: Tensor, matrix: Tensor | None, x: Tensor) -> Tensor:
    """``a^T x = B (e^T x)``, (out, in), of the two results of :func:`layer_credit`."""
    gradient = rows.reshape(-1, rows.shape[-1]).T @ x.reshape(-1, x.shape[-1])
    return gradient if matrix is None else matrix @ gradient


def bias_gradient(rows: Tensor, matrix: Tensor | None) -> Tensor:
    """The sum of the credit over samples, (out,), of the two results of :func:`layer_credit`."""
    gradient = rows.reshape(-1, rows.shape[-1]).sum(0)
    return gradient if matrix is None else matrix @ gradient


def _worthwhile(factors: Factors, x: Tensor, features: int) -> bool:
    """Whether the factors fit the layer's output, and two thin products cost less than one."""
    rows, matrix = factors
    samples, (own, rank) = rows.shape[:-1].numel(), matrix.shape
    fits = rows.dtype == x.dtype and rows.shape[:-1] == x.shape[:-1] and own == features
    return fits and rank * (samples + features) < samples * features
