"""Handing a batch of any form to a net's ``forward``."""

from collections.abc import Iterable, Sequence
from inspect import Parameter, Signature, signature
from typing import Any

from torch import nn
from torch.nn.utils.rnn import PackedSequence

from lit_credit.utils.nested import items_of
from lit_credit.utils.short_text import shortened

__all__ = ["TARGETS", "Arguments", "batch_arguments", "forward_signature", "forward_text"]

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
"""Arguments by position, and by name."""

TARGETS = ("target", "targets", "label", "labels", "y")
"""Names of parameters that take what a net is trained to return."""

_BY_POSITION = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
_BY_NAME = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)


def batch_arguments(net: nn.Module, batch: Any) -> Arguments:
    """Choose the arguments that a net gets for a batch.

    These are all rules, in their order:

    1. A mapping, a dataclass or a named tuple goes **by name** if it has every parameter that
       ``forward`` requires, and at least one that it names. Entries that ``forward`` does not take
       are left out; ``**kwargs`` takes all.
    2. A tuple or list whose first item is a mapping of this kind is handed over as that mapping.
    3. Another tuple or list goes **by position**: as many items as ``forward`` requires, at least
       one, and the next item too if the next parameter is named as one of :data:`TARGETS`, as in
       ``forward(idx, targets=None)``. ``*args`` takes all items.
    4. Anything else goes **as it is**, as the only argument: tensors, lists of texts, packed
       sequences, graphs, and mappings whose names ``forward`` does not have.

    A net whose ``forward`` takes ``*args`` or ``**kwargs`` alone and that has a single submodule,
    as ``nn.DataParallel`` or a compiled net, is asked for the signature of that submodule. A
    ``forward`` without a signature counts as one of a single parameter.

    Args:
        net: the net.
        batch: what a loader returns.

    Example:
        >>> import torch
        >>> x, y = torch.zeros(4, 2), torch.zeros(4)
        >>> len(batch_arguments(nn.Linear(2, 1), (x, y))[0])
        1
        >>> list(batch_arguments(nn.Linear(2, 1), {"input": x, "label": y})[1])
        ['input']
    """
    parameters = list(forward_signature(net).parameters.values())
    named = _by_name(parameters, batch)
    if named is None and _is_sequence(batch) and batch:
        named = _by_name(parameters, batch[0])
    if named is not None:
        return (), named
    if not _is_sequence(batch) or all(isinstance(item, str) for item in batch):
        return (batch,), {}
    return tuple(batch[: _count(parameters)]), {}


def forward_signature(net: nn.Module) -> Signature:
    """The signature of the ``forward`` of a net, or of the only net inside of it."""
    try:
        found = signature(net.forward)
    except (TypeError, ValueError):  # of a traced net, or of C code
        return Signature([Parameter("input", Parameter.POSITIONAL_ONLY)])
    inner = list(net.children())
    kinds = {p.kind for p in found.parameters.values()}
    if kinds and kinds <= {Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD} and len(inner) == 1:
        return forward_signature(inner[0])
    return found


def forward_text(net: nn.Module) -> str:
    """``forward(idx, targets=...)``, for errors."""
    parts = []
    for p in forward_signature(net).parameters.values():
        stars = "*" * ((p.kind is p.VAR_POSITIONAL) + 2 * (p.kind is p.VAR_KEYWORD))
        parts.append(f"{stars}{p.name}{'' if p.default is p.empty else '=...'}")
    return shortened(f"forward({', '.join(parts)})", 300)


def _is_sequence(batch: Any) -> bool:
    return isinstance(batch, tuple | list) and not isinstance(batch, PackedSequence)


def _by_name(parameters: Iterable[Parameter], batch: Any) -> dict[str, Any] | None:
    """The entries that the parameters take; None if they cannot be told by name."""
    entries = _entries(batch)
    known = [p for p in parameters if p.kind in _BY_NAME]
    required = [
        p.name for p in parameters if p.default is p.empty and p.kind in (*_BY_POSITION, *_BY_NAME)
    ]
    any_name = any(p.kind is Parameter.VAR_KEYWORD for p in parameters)
    names = {p.name for p in known}
    if not entries or not set(required) <= names & set(entries):
        return None
    taken = {name: value for name, value in entries.items() if any_name or name in names}
    return taken if any_name or taken else None


def _entries(batch: Any) -> dict[str, Any]:
    """Entries by name of a mapping, dataclass or named tuple; empty for anything else."""
    if isinstance(batch, PackedSequence):
        return {}
    if isinstance(batch, tuple):
        return dict(zip(getattr(batch, "_fields", ()), batch, strict=False))
    if isinstance(batch, list):
        return {}
    entries = dict(items_of(batch))
    return entries if all(isinstance(name, str) for name in entries) else {}


def _count(parameters: Sequence[Parameter]) -> int | None:
    """How many items of a sequence go by position; None for all."""
    if any(p.kind is Parameter.VAR_POSITIONAL for p in parameters):
        return None
    by_position = [p for p in parameters if p.kind in _BY_POSITION]
    count = max(1, sum(p.default is p.empty for p in by_position))
    more = by_position[count : count + 1]
    return count + any(p.name in TARGETS for p in more)
