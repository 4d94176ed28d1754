"""The singular values of a matrix whose rows come chunk by chunk."""

import torch
from torch import Tensor

from lit_credit.functional import gram_spectrum

__all__ = ["RowSpectrum", "feature_rows"]

_ROUNDING = 1e-24
"""Squared relative size of what is left of equal rows; float32 tells 1e-7 apart."""


def feature_rows(value: Tensor, channel: int | None = None) -> Tensor:
    """The vectors of a unit's output as rows (n, d).

    A tensor (N, d) has a row per sample, (N, T, d) one per position, and a feature map
    (N, C, H, W), or with more dimensions of space, one of C channels per place.

    Args:
        value: the output, or the credit or gradient there; a complex number becomes two real ones.
        channel: the dimension of the features; None takes the one above.

    Example:
        >>> import torch
        >>> feature_rows(torch.zeros(2, 3, 4, 4)).shape, feature_rows(torch.zeros(2, 5, 3)).shape
        (torch.Size([32, 3]), torch.Size([10, 3]))
    """
    value = value.detach()
    if channel is None:
        channel = 1 if value.ndim > 3 else value.ndim - 1
    if value.ndim > 1:
        value = value.movedim(channel, -1)
    if value.is_complex():
        value = torch.view_as_real(value.resolve_conj()).flatten(-2)
    return value.reshape(-1, value.shape[-1]) if value.ndim > 1 else value[:, None]


class RowSpectrum:
    """Gathers rows (n, d) in the smaller of two ways: the rows, or their d x d Gram matrix.

    Rows are kept until there are d of them, then the Gram matrix in float64 alone. Its place is the
    device of the rows; the CPU for one without float64.

    Args:
        centred: subtract the mean row.
    """

    def __init__(self, *, centred: bool) -> None:
        self._centred = centred
        self._rows: list[Tensor] = []
        self._gram: Tensor | None = None
        self._shift: Tensor | None = None
        self._sum: Tensor | None = None
        self._energy = 0.0
        self._count = 0

    def add(self, rows: Tensor) -> None:
        """Add rows (n, d)."""
        if not len(rows):
            return
        self._count += len(rows)
        self._rows.append(rows)
        if self._gram is not None or self._count >= rows.shape[1]:
            self._fold()

    def _fold(self) -> None:
        """Move the rows into the Gram matrix."""
        rows = _double(torch.cat(self._rows) if len(self._rows) > 1 else self._rows[0])
        self._rows = []
        self._energy += float(rows.square().sum())
        if self._shift is None:  # near the mean, so that nothing cancels
            self._shift = rows.mean(0) if self._centred else torch.zeros_like(rows[0])
        rows = rows - self._shift
        gram, total = rows.mT @ rows, rows.sum(0)
        self._gram = gram if self._gram is None else self._gram + gram
        self._sum = total if self._sum is None else self._sum + total

    def singular_values(self) -> Tensor:
        """Those of all rows so far; NaN if a row is not finite, none without rows."""
        if self._gram is not None and self._sum is not None:
            mean = self._sum / self._count
            left = self._count * mean[:, None] * mean if self._centred else 0.0
            return gram_spectrum(_without_rounding(self._gram - left, self._energy))
        if not self._rows:
            return torch.empty(0, dtype=torch.float64)
        rows = _double(torch.cat(self._rows))
        energy = float(rows.square().sum())
        rows = rows - rows.mean(0) if self._centred else rows
        return gram_spectrum(_without_rounding(rows @ rows.mT, energy))


def _without_rounding(gram: Tensor, energy: float) -> Tensor:
    """Zero if it is the rounding of a mean that was subtracted: equal rows have no directions."""
    return torch.zeros_like(gram) if float(gram.trace()) < _ROUNDING * energy else gram


def _double(rows: Tensor) -> Tensor:
    return (rows.cpu() if rows.device.type == "mps" else rows).double()
