"""Computing true gradients in a net whose layers have a feedback backward."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from lit_credit.protocols import LayerProtocol, offers

__all__ = ["exact_backward"]


@contextmanager
def exact_backward(module: nn.Module) -> Iterator[None]:
    """Let every feedback layer below ``module`` send its error back through its true weights.

    Layers whose backward is not the true one are recognised by their attribute
    ``feedback_backward``, not by their type. Without such layers this context does nothing. The
    forward pass must run inside the context as well.
    """
    known = LayerProtocol.feedback_backward
    layers: list[Any] = [child for child in module.modules() if offers(child, known)]
    before = [layer.feedback_backward for layer in layers]
    try:
        for layer in layers:
            layer.feedback_backward = False
        yield
    finally:
        for layer, value in zip(layers, before, strict=True):
            layer.feedback_backward = value
