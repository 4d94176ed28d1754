"""How the passes of a training step run: without a trace, and with all their digits."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from lit_credit.inspect.state.guard import held
from lit_credit.utils.nested import tensors_of
from lit_credit.utils.private_names import own_buffers, version_of
from lit_credit.utils.random_state import preserved_rng
from lit_credit.utils.short_text import choice

__all__ = ["check_repeats", "extra_pass", "full_precision"]

_HALF = (torch.float16, torch.bfloat16)
_SMALL = 10_000
"""Entries of a buffer that is copied in every pass; of a larger one it is found out whether a pass
writes it."""
_READ_ONLY: "WeakKeyDictionary[nn.Module, dict[bool, frozenset[tuple[int, str]]]]" = (
    WeakKeyDictionary()
)
"""Large buffers that the first pass of a net did not write, by the net and its mode."""


@contextmanager
def extra_pass(*modules: nn.Module) -> Iterator[None]:
    """Run modules inside the ``with`` as if they had not run.

    Buffers that the pass writes, such as the running statistics of a BatchNorm, are copies. The
    random states get their values back. So all extra passes that precede the pass that learns draw
    the masks of dropout that it draws. State in attributes, and generators that a module owns, are
    not restored: :func:`check_repeats` refuses nets whose output depends on such state.

    Args:
        *modules: the net, and whatever else runs.
    """
    parts = {id(part): part for module in modules for part in module.modules()}.values()
    kept = [(own_buffers(part), dict(own_buffers(part))) for part in parts]
    known = _READ_ONLY.setdefault(modules[0], {})
    spared = known.get(modules[0].training, frozenset())
    copies: dict[int, tuple[Tensor, int]] = {}
    for place, (own, before) in enumerate(kept):
        for name, buffer in before.items():
            if buffer is not None and (place, name) not in spared:
                if id(buffer) not in copies:
                    copy = buffer.clone()
                    copies[id(buffer)] = copy, version_of(copy)
                own[name] = copies[id(buffer)][0]
    left = [
        (place, name, buffer, version_of(buffer))
        for place, (_, before) in enumerate(kept)
        for name, buffer in before.items()
        if buffer is not None and (place, name) in spared
    ]
    with preserved_rng():
        try:
            yield
        finally:
            written = {
                (place, name)
                for place, name, buffer, version in left
                if version_of(buffer) != version
            }
            if written:
                known[modules[0].training] = spared - written
                rank_zero_warn(
                    "a pass wrote buffers that earlier passes had not: "
                    f"{choice(name for _, name in written)}. They keep what this pass wrote, and "
                    "are put back after the passes that follow."
                )
            if modules[0].training not in known:
                known[modules[0].training] = frozenset(
                    (place, name)
                    for place, (own, before) in enumerate(kept)
                    for name, buffer in before.items()
                    if buffer is not None
                    and buffer.numel() > _SMALL
                    and own.get(name) is copies[id(buffer)][0]
                    and version_of(copies[id(buffer)][0]) == copies[id(buffer)][1]
                )
            for own, before in kept:
                own.clear()
                own.update(before)


def check_repeats(rule: nn.Module, run: Callable[[], Any]) -> None:
    """Refuse a net that answers otherwise when a pass is run again.

    Args:
        rule: the rule, whose state is put back.
        run: runs an extra pass of the net, and returns its output.

    Raises:
        ValueError: if two passes differ, since the rule compares passes.
    """
    with held(rule):
        first, second = (tensors_of(run()) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        if a.shape != b.shape or not torch.allclose(a, b, rtol=1e-3, atol=1e-5, equal_nan=True):
            raise ValueError(
                f"{type(rule).__name__} runs the net several times in a step, but the net answers "
                "otherwise when it runs again: it keeps state in an attribute, or draws from a "
                "generator of its own. Keep the state in a buffer (`register_buffer`) and draw "
                "from torch's global generator, which are put back after a pass; or train the net "
                "by a rule of one pass, such as DFA."
            )


@contextmanager
def full_precision(rule: str, net: nn.Module, device: str) -> Iterator[None]:
    """Run without autocast: for what is a small difference of two passes.

    Args:
        rule: name of the rule, for the error.
        net: the net.
        device: type of the device.

    Raises:
        ValueError: if the weights have half precision.
    """
    half = next((p.dtype for p in net.parameters() if p.dtype in _HALF), None)
    if half is not None:
        raise ValueError(
            f"{rule} learns from small differences of two passes, which the weights' precision "
            f"({half}) rounds away. Set the Trainer's `precision` to '32-true', or to "
            "'bf16-mixed', under which this rule runs its passes in float32."
        )
    with torch.autocast(device, enabled=False):
        yield
