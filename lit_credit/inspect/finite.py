"""Finding and counting NaN and infinite entries of tensors."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lit_credit.utils.nested import has_fractions, tensors_of
from lit_credit.utils.private_names import norms_of

__all__ = ["NonFinite", "NonFiniteError", "non_finite", "seem_finite"]


class NonFiniteError(FloatingPointError, ValueError):
    """Training has met NaN or inf: a FloatingPointError, as of numpy and JAX, and a ValueError."""


class NonFinite(NamedTuple):
    """Counts of entries that are not finite. There is at least one.

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
        """Share of the entries that are not finite."""
        return (self.nans + self.infinities) / self.total

    @property
    def kinds(self) -> set[str]:
        """Those of ``nan`` and ``inf`` that occur."""
        return {name for name, n in (("nan", self.nans), ("inf", self.infinities)) if n}

    def __str__(self) -> str:
        """The counts as text, such as ``3 of 64 NaN, 1 inf``."""
        counts = [(self.nans, "NaN"), (self.infinities, "inf")]
        (first, name), *rest = [(count, name) for count, name in counts if count]
        texts = [f"{first} of {self.total} {name}", *(f"{count} {name}" for count, name in rest)]
        return ", ".join(texts)


def non_finite(value: Any) -> NonFinite | None:
    """Count entries that are not finite over all tensors of ``value``; None if all are finite.

    Args:
        value: a tensor, which may be sparse, or nested tuples, lists and mappings of tensors.

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
    """Whether the norms of all tensors are finite; one check, which waits for the device once.

    A norm may overflow although every entry is finite, so check the entries if this is False.

    Example:
        >>> seem_finite([torch.ones(3)]), seem_finite([torch.tensor([torch.nan])])
        (True, False)
    """
    if not tensors:
        return True
    # The norm is among the fastest ways to look at every entry: `isfinite` and the largest
    # magnitude take 30 times as long on a CPU.
    norms = norms_of([_values(t) for t in tensors])
    if any(n.dtype != norms[0].dtype or n.device != norms[0].device for n in norms):
        norms = [norm.to(norms[0].device, torch.float32) for norm in norms]
    return bool(torch.stack(norms).isfinite().all())


def _values(tensor: Tensor) -> Tensor:
    return tensor.coalesce().values() if tensor.is_sparse else tensor
