"""Passes of a training step that leave no trace: neither in buffers nor in random states."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from lit_credit.utils.private_names import own_buffers
from lit_credit.utils.random_state import preserved_rng

__all__ = ["extra_pass"]


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
