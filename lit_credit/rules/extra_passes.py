"""How the passes of a training step run: without a trace, and with all their digits."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lit_credit.utils.private_names import own_buffers
from lit_credit.utils.random_state import preserved_rng

__all__ = ["extra_pass", "full_precision"]

_HALF = (torch.float16, torch.bfloat16)


@contextmanager
def extra_pass(net: nn.Module) -> Iterator[None]:
    """Run a net inside the ``with`` as if it had not run.

    Buffers that the pass writes, such as the running statistics of a BatchNorm, are copies. The
    random states get their values back. So all extra passes that precede the pass that learns draw
    the masks of dropout that it draws.

    Args:
        net: the net.
    """
    kept = [(own_buffers(part), dict(own_buffers(part))) for part in net.modules()]
    copies: dict[int, Tensor] = {}
    for buffers, before in kept:
        for name, buffer in before.items():
            if buffer is not None:
                buffers[name] = copies.setdefault(id(buffer), buffer.clone())
    with preserved_rng():
        try:
            yield
        finally:
            for buffers, before in kept:
                buffers.clear()
                buffers.update(before)


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
