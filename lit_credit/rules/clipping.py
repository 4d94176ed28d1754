"""Largest norms of gradients."""

from collections.abc import Mapping, Sequence

from torch import nn
from torch.nn.utils import clip_grad_norm_

from lit_credit.inspect.unit_names import choose_units, unit_modules
from lit_credit.protocols import NetProtocol, method, offers

__all__ = ["clip_gradients", "clip_norms", "positive"]


def positive(value: float | None, argument: str) -> float | None:
    """The value, which must be above 0 or None."""
    if value is not None and not value > 0:
        raise ValueError(f"`{argument}` is {value}, expected a number above 0, or None.")
    return value


def clip_norms(
    net: nn.Module, units: Sequence[str], limits: float | Mapping[str, float] | None
) -> dict[str, float]:
    """The largest norm of each unit, by name, of ``clip_per_unit`` as it was given.

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
        limits = dict.fromkeys(units or ["*"], limits)  # no unit to clip is an error
    found: dict[str, float] = {}
    for pattern, limit in limits.items():
        positive(limit, f"clip_per_unit[{pattern!r}]")
        found |= dict.fromkeys(choose_units(pattern, units, "clip_per_unit"), limit)
    return found


def clip_gradients(net: nn.Module, largest: float | None, of_units: Mapping[str, float]) -> None:
    """Scale down the gradients of units, then those of the whole net."""
    for name, limit in of_units.items():
        parts = unit_modules(net, name)
        clip_grad_norm_([p for part in parts for p in part.parameters()], limit)
    if largest is not None:
        # An ensemble clips each of its nets by itself.
        own = method(net, NetProtocol.clip_grad_norm_)
        if own is None:
            clip_grad_norm_(net.parameters(), largest)
        else:
            own(largest)
