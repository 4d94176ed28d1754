"""Recognising what a norm computes from its input and output, not from its class."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["NormForm", "is_norm", "norm_epsilon", "norm_form"]

_CLOSE = 1e-3
_CLOSE_IN_HALF = 2e-2


class NormForm(NamedTuple):
    """A norm that divides by the size of its input, and multiplies by a gain."""

    centred: bool
    """Whether it subtracts the mean first, as LayerNorm does."""
    plus_one: bool
    """Whether the gain is 1 + weight, as in Gemma."""

    def gain(self, norm: nn.Module) -> Tensor | None:
        """The norm's gain, (d,); None if it has none."""
        weight = _own(norm, "weight", "w")
        if weight is None:
            return None
        return weight.detach() + 1 if self.plus_one else weight.detach()


def is_norm(module: nn.Module) -> bool:
    """Whether a submodule may be a norm of the last dimension: of torch, or named so by class."""
    if isinstance(module, nn.LayerNorm | nn.RMSNorm):
        return len(module.normalized_shape) == 1
    weight = getattr(module, "weight", None)
    return "norm" in type(module).__name__.lower() and isinstance(weight, Tensor | None)


def norm_epsilon(norm: nn.Module) -> float:
    """The number that a norm adds to the mean square."""
    for name in ("eps", "variance_epsilon", "epsilon", "norm_eps"):
        if isinstance(value := getattr(norm, name, None), float):
            return value
    return torch.finfo(torch.float32).eps if isinstance(norm, nn.RMSNorm) else 0.0


def _own(norm: nn.Module, *names: str) -> Tensor | None:
    """The first of these parameters that the norm has; ``w`` and ``b`` are TransformerLens's."""
    found = (getattr(norm, name, None) for name in names)
    return next((x for x in found if isinstance(x, Tensor)), None)


def norm_form(norm: nn.Module, read: Tensor, written: Tensor) -> NormForm | None:
    """Find the form that gives a norm's output from its input; None if no known form does.

    Args:
        norm: the submodule.
        read: its input, (..., d).
        written: its output, (..., d).
    """
    weight, bias = _own(norm, "weight", "w"), _own(norm, "bias", "b")
    if read.shape != written.shape or (
        isinstance(weight, Tensor) and weight.shape != read.shape[-1:]
    ):
        return None
    x, y = (part.detach().flatten(0, -2) for part in (read, written))
    finite = y.isfinite().all(-1) & x.isfinite().all(-1)
    if not finite.any():  # a net that diverged shows nothing
        return NormForm(centred=isinstance(norm, nn.LayerNorm), plus_one=False)
    close = _CLOSE_IN_HALF if y.dtype in (torch.float16, torch.bfloat16) else _CLOSE
    x, y = (part[finite].to(torch.promote_types(y.dtype, torch.float32)) for part in (x, y))
    if isinstance(bias, Tensor):
        y = y - bias.detach()
    for form in (NormForm(c, p) for p in (False, True) for c in (True, False)):
        z = x - x.mean(-1, keepdim=True) if form.centred else x
        z = z / (z.square().mean(-1, keepdim=True) + norm_epsilon(norm)).sqrt()
        gain = form.gain(norm)
        z = z if gain is None else z * gain
        if (z - y).norm() <= close * y.norm():
            return form
    return None
