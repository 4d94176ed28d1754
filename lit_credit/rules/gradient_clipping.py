"""Clipping the gradients of units and of a whole net."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from lit_credit.feedback.learned import feedback_parameters
from lit_credit.inspect.unit_names import choose_units, unit_modules
from lit_credit.protocols import NetProtocol, method, offers
from lit_credit.utils.private_names import multiply_each, norms_of
from lit_credit.utils.ranges import check_range

__all__ = ["clip_gradients", "clip_norms"]

_EPS = 1e-6
"""Added to a norm, as ``torch.nn.utils.clip_grad_norm_`` does."""


def clip_norms(
    net: nn.Module, units: Sequence[str], limits: float | Mapping[str, float] | None
) -> dict[str, float]:
    """Resolve ``clip_per_unit`` into the largest gradient norm of each unit, by name.

    Raises:
        ValueError: if a limit is not above 0, a pattern matches no unit, or the net is an ensemble.
    """
    if limits is None:
        return {}
    if offers(net, NetProtocol.clip_grad_norm_):
        raise ValueError(
            f"`clip_per_unit` is {limits}, which would clip the nets of an ensemble together. "
            "Leave it out; `clip_norm` clips each by itself."
        )
    if not isinstance(limits, Mapping):
        limits = dict.fromkeys(units or ["*"], limits)  # without units: an error below
    found: dict[str, float] = {}
    for pattern, limit in limits.items():
        named: dict[str, Any] = {f"clip_per_unit[{pattern!r}]": limit}
        check_range(above=0, finite=False, **named)
        found |= dict.fromkeys(choose_units(pattern, units, "clip_per_unit"), limit)
    return found


def clip_gradients(net: nn.Module, largest: float | None, of_units: Mapping[str, float]) -> None:
    """Scale down the gradients of units, then those of the whole net.

    The result is that of ``torch.nn.utils.clip_grad_norm_``, unit by unit, at the cost of one norm
    over all tensors. Gradients of a feedback that learns count in no norm; they are scaled like the
    gradients of the weights beside them.

    Args:
        net: the net.
        largest: largest norm of the gradients of all parameters; None leaves them.
        of_units: largest norm of each unit's gradients, by its name.
    """
    if not of_units and largest is None:
        return
    learned = {id(parameter) for parameter in feedback_parameters(net).values()}
    if of_units:
        parts = [
            [p for part in unit_modules(net, name) for p in part.parameters()] for name in of_units
        ]
        _clip(parts, list(of_units.values()), learned)
    if largest is not None:
        # An ensemble clips each of its nets by itself.
        own = method(net, NetProtocol.clip_grad_norm_)
        if own is not None:
            own(largest)
        elif learned:
            _clip([list(net.parameters())], [largest], learned)
        else:
            clip_grad_norm_(net.parameters(), largest)


def _clip(
    parts: Sequence[Sequence[nn.Parameter]], limits: Sequence[float], learned: set[int]
) -> None:
    """Scale the gradients of each part down to its limit."""
    found = [
        (part, parameter.grad, id(parameter) not in learned)
        for part, parameters in enumerate(parts)
        for parameter in parameters
        if parameter.grad is not None
    ]
    counted = [(part, gradient) for part, gradient, counts in found if counts]
    if not counted:
        return
    device = counted[0][1].device
    norms = torch.stack([n.to(device) for n in norms_of([gradient for _, gradient in counted])])
    index = torch.tensor([part for part, _ in counted], device=device)
    squares = norms.new_zeros(len(parts)).index_add_(0, index, norms.square())
    factors = squares.new_tensor(limits).div_(squares.sqrt_().add_(_EPS)).clamp_(max=1.0).unbind()
    gradients = [gradient for _, gradient, _ in found]
    multiply_each(gradients, [_like(factors[part], gradient) for part, gradient, _ in found])


def _like(factor: Tensor, gradient: Tensor) -> Tensor:
    return factor.to(device=gradient.device, dtype=gradient.dtype)
