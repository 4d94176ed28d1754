"""Any ``nn.Module`` as a LightningModule, so that diagnostics can measure it."""

from collections.abc import Callable, Mapping
from inspect import Parameter, signature
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from lit_credit.utils.both_packages import LightningModule
from lit_credit.utils.nested import described

__all__ = ["PlainModule", "plain_module"]


class PlainModule(LightningModule):
    """A net of any project, with a loss if one is known. It is measured, and cannot be trained.

    Diagnostics name submodules as the net does, without a prefix.

    Args:
        net: the net. It is not moved, and its mode does not change.
        loss: ``loss(net, batch)`` returns a scalar. None takes the ``loss`` of the net's output, as
            models of Hugging Face return it for batches with ``labels``.
    """

    def __init__(self, net: nn.Module, loss: Callable[[Any, Any], Any] | None = None) -> None:
        super().__init__()
        self.net = net
        self.given_loss = loss
        self.training = net.training  # not by `train`, which would reach into the net

    @property
    def device(self) -> torch.device:
        """The device of the net's first tensor; the CPU for a net without tensors."""
        tensors = (*self.net.parameters(), *self.net.buffers())
        return tensors[0].device if tensors else torch.device("cpu")

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the net."""
        return self.net(*args, **kwargs)

    def run_batch(self, batch: Any) -> Any:
        """Run the net on a batch, by the loss if one was given, and return what that returns.

        A mapping is handed to the net by name, without entries that its ``forward`` does not take;
        a tuple or list by position, as many items as ``forward`` requires; anything else as it is.
        """
        if self.given_loss is not None:
            return self.given_loss(self.net, batch)
        args, kwargs = _arguments(self.net, batch)
        return self.net(*args, **kwargs)

    def batch_loss(self, batch: Any) -> Tensor:
        """The loss on a batch.

        Raises:
            MisconfigurationException: if no loss was given and the output of the net has none.
        """
        found = self.run_batch(batch)
        if self.given_loss is not None:
            return found  # type: ignore[no-any-return]
        loss = found.get("loss") if isinstance(found, Mapping) else getattr(found, "loss", None)
        if isinstance(loss, Tensor):
            return loss
        raise MisconfigurationException(
            f"the output of {type(self.net).__name__} is {type(found).__name__} without a `loss`, "
            f"for the batch {described(batch)}. Give `loss`, a function of (model, batch) that "
            "returns a scalar; a model of Hugging Face needs `labels` in the batch instead."
        )


def plain_module(net: nn.Module, loss: Callable[[Any, Any], Any] | None = None) -> PlainModule:
    """A :class:`PlainModule` whose class has the name of the net's class, for messages."""
    kind = type(type(net).__name__, (PlainModule,), {"__module__": type(net).__module__})
    made: PlainModule = kind(net, loss)
    return made


def _arguments(net: nn.Module, batch: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What the net's ``forward`` takes of a batch, by position and by name."""
    parameters = signature(net.forward).parameters.values()
    if isinstance(batch, Mapping):
        if any(p.kind is Parameter.VAR_KEYWORD for p in parameters):
            return (), dict(batch)
        names = {p.name for p in parameters if p.kind is not Parameter.POSITIONAL_ONLY}
        taken = {name: value for name, value in batch.items() if name in names}
        return ((), taken) if taken else ((batch,), {})
    if isinstance(batch, tuple | list):
        by_position = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
        required = [p for p in parameters if p.kind in by_position and p.default is p.empty]
        return tuple(batch[: max(1, len(required))]), {}
    return (batch,), {}
