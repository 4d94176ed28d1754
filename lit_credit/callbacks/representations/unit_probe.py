"""The linear probe of one unit, fitted on rows that come chunk by chunk, in bounded memory."""

import torch
from torch import Tensor

from lit_credit.callbacks.representations.unit_features import double
from lit_credit.functional.layer_probes import RidgeProbe, RidgeSums, ridge_of_sums, ridge_probe

__all__ = ["UnitProbe"]


class UnitProbe:
    """Keeps rows as sums (d, d), or as they are if there are fewer rows than features.

    Args:
        rows: the rows that will come in all.
        outputs: numbers c that are predicted.
        strength: of the ridge, see :func:`lit_credit.functional.ridge_probe`.

    Attributes:
        undefined: whether some rows came without features, or with another number of features.
    """

    def __init__(self, rows: int, outputs: int, strength: float) -> None:
        self.undefined = False
        self._rows = rows
        self._outputs = outputs
        self._strength = strength
        self._width: int | None = None
        self._kept: list[tuple[Tensor, Tensor]] = []
        self._shift: Tensor | None = None
        self._sums: RidgeSums | None = None
        self._fitted: RidgeProbe | None = None

    def add(self, x: Tensor | None, y: Tensor) -> None:
        """Add features (m, d) and their targets (m, c); None says that there are no features."""
        if not self._fits(x) or x is None or not len(x):
            return
        if x.shape[1] > self._rows:
            self._kept.append((x.detach().clone(), y.to(x.device)))
            return
        wide = double(x)
        if self._shift is None:
            self._shift = wide[0].clone()
        more = RidgeSums.of(wide - self._shift, y)
        if self._sums is None:
            self._sums = more
        else:
            self._sums.add(more)

    def fit(self) -> None:
        """Solve for the probe; rows are no longer needed."""
        if self._kept:
            x, y = (torch.cat(parts) for parts in zip(*self._kept, strict=True))
            self._fitted = ridge_probe(double(x), double(y), self._strength)
        elif self._sums is not None and self._shift is not None:
            self._fitted = ridge_of_sums(self._sums, self._strength, self._shift)
        self._kept, self._sums = [], None

    def predict(self, x: Tensor | None, rows: Tensor) -> Tensor:
        """The predictions for some rows of features, (m, c) on the CPU; NaN where undefined."""
        if not self._fits(x) or x is None or self._fitted is None:
            return torch.full((len(rows), self._outputs), torch.nan, dtype=torch.float64)
        return self._fitted(double(x[rows.to(x.device)])).cpu()

    def _fits(self, x: Tensor | None) -> bool:
        width = None if x is None else x.shape[1]
        self._width = width if self._width is None else self._width
        self.undefined |= width is None or width != self._width
        return not self.undefined
