"""A module whose every parameter takes part in autograd for a while."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from lit_credit.inspect.finite import has_fractions

__all__ = ["unfrozen"]


@contextmanager
def unfrozen(module: nn.Module) -> Iterator[None]:
    """Let frozen parameters require a gradient inside of the ``with``.

    So the graph reaches back to where a frozen front begins, with all paths around its submodules.
    """
    frozen = [p for p in module.parameters() if not p.requires_grad and has_fractions(p)]
    try:
        for parameter in frozen:
            parameter.requires_grad_(True)
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
