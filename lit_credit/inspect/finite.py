"""Which numbers of a tensor are not finite."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lit_credit.utils.nested import has_fractions, tensors_of
from lit_credit.utils.private_names import norms_of

__all__ = ["NonFinite", "NonFiniteError", "non_finite", "seem_finite"]


class NonFiniteError(FloatingPointError, ValueError):
    """Training has met NaN or inf; it is the error that numpy and JAX raise, and a ValueError."""


class NonFinite(NamedTuple):
    """Counts of entries that are not finite, of at least one.

    Attributes:
        nans: entries that are NaN.
        infinities: entries that are inf or -inf.
        total: all entries.
    """

    nans: int
    infinities: int
    total: int

    @property
    def share(self) -> float:
        """Of all entries, those that are not finite."""
        return (self.nans + self.infinities) / self.total

    @property
    def kinds(self) -> set[str]:
        """Which of ``nan`` and ``inf`` occur."""
        return {name for name, n in (("nan", self.nans), ("inf", self.infinities)) if n}

    def __str__(self) -> str:
        """``3 of 64 NaN, 1 inf``."""
        counts = [(self.nans, "NaN"), (self.infinities, "inf")]
        (first, name), *rest = [(count, name) for count, name in counts if count]
        texts = [f"{first} of {self.total} {name}", *(f"{count} {name}" for count, name in rest)]
        return ", ".join(texts)


def non_finite(value: Any) -> NonFinite | None:
    """The entries that are not finite, in all tensors of ``value`` together; None if all are.

    Args:
        value: a tensor, also a sparse one, or nested tuples, lists and mappings of some.

    Example:
        >>> found = non_finite(torch.tensor([1.0, torch.nan, torch.inf, torch.nan]))
        >>> str(found), found.share
        ('2 of 4 NaN, 1 inf', 0.75)
    """
    tensors = [_values(t.detach()) for t in tensors_of(value) if has_fractions(t)]
    nans = sum(int(t.isnan().sum()) for t in tensors)
    infinities = sum(int(t.isinf().sum()) for t in tensors)
    if not nans and not infinities:
        return None
    return NonFinite(nans, infinities, sum(t.numel() for t in tensors))


def seem_finite(tensors: Sequence[Tensor]) -> bool:
    """Whether no norm of a tensor is NaN or inf; one look for all, with one wait for the device.

    A norm may overflow though every entry is finite, so that False is to be looked into.

    Example:
        >>> seem_finite([torch.ones(3)]), seem_finite([torch.tensor([torch.nan])])
        (True, False)
    """
    if not tensors:
        return True
    # Of the ways to look at every entry the norm is among the fastest: `isfinite` and the largest
    # magnitude take 30 times as long on a CPU.
    norms = norms_of([_values(t) for t in tensors])
    if any(n.dtype != norms[0].dtype or n.device != norms[0].device for n in norms):
        norms = [norm.to(norms[0].device, torch.float32) for norm in norms]
    return bool(torch.stack(norms).isfinite().all())


def _values(tensor: Tensor) -> Tensor:
    return tensor.coalesce().values() if tensor.is_sparse else tensor
