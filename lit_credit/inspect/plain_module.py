"""Any ``nn.Module`` as a LightningModule, so that diagnostics can measure it."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from lit_credit.inspect.batch_arguments import (
    TARGETS,
    Arguments,
    batch_arguments,
    forward_signature,
    forward_text,
)
from lit_credit.inspect.unit_names import with_prefix
from lit_credit.protocols import NetProtocol, asked
from lit_credit.utils.both_packages import LightningModule
from lit_credit.utils.compiled import submodule
from lit_credit.utils.nested import described
from lit_credit.utils.short_text import shortened

__all__ = ["PlainModule", "plain_module"]

_LOSS = "`loss`, a function of (model, batch) that returns a scalar"


class PlainModule(LightningModule):
    """A net of any project, with a loss if one is known. It is measured, and cannot be trained.

    Diagnostics name submodules as the net does, without a prefix. What the net declares, such as
    ``credit_units`` and ``residual_stream``, is declared here too.

    Args:
        net: the net. It is not moved, and its mode does not change.
        loss: ``loss(net, batch)`` returns a scalar. None takes the loss that the net itself
            returns: its output if that is a scalar, the ``loss`` of its output, as models of
            Hugging Face return it for batches with ``labels``, or the only scalar of a tuple if the
            net was given targets.
    """

    def __init__(self, net: nn.Module, loss: Callable[[Any, Any], Any] | None = None) -> None:
        super().__init__()
        self.net = net
        self.given_loss = loss
        self.training = net.training  # not by `train`, which would reach into the net

    @property
    def device(self) -> torch.device:
        """The device of the net's first tensor that has values; the CPU if there is none."""
        tensors = (*self.net.parameters(), *self.net.buffers())
        devices = (tensor.device for tensor in tensors if not tensor.is_meta)
        return next(devices, torch.device("cpu"))

    @property
    def credit_units(self) -> list[str]:
        """The units that the net declares."""
        return [with_prefix(n, "net.") for n in asked(self.net, NetProtocol.credit_units, ())]

    @property
    def residual_stream(self) -> list[str] | None:
        """The submodules whose inputs are the residual stream, if the net declares it."""
        declared = asked(self.net, NetProtocol.residual_stream, None)
        return None if declared is None else [f"net.{name}" for name in declared]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the net."""
        return self.net(*args, **kwargs)

    def run_batch(self, batch: Any) -> Any:
        """Run the net on a batch, by the loss if one was given, and return what that returns.

        See :func:`lit_credit.inspect.batch_arguments.batch_arguments` for what the net is given.

        Raises:
            MisconfigurationException: if the net requires more than the batch has.
        """
        if self.given_loss is not None:
            return self.given_loss(self.net, batch)
        args, kwargs = self._arguments(batch)
        return self.net(*args, **kwargs)

    def batch_loss(self, batch: Any) -> Tensor:
        """The loss on a batch.

        Raises:
            MisconfigurationException: if no loss was given and the output of the net has none, or
                if the loss is not a scalar.
        """
        return self.loss_of(self.run_batch(batch), batch)

    def loss_of(self, found: Any, batch: Any) -> Tensor:
        """The loss in what :meth:`run_batch` returned for a batch; see :meth:`batch_loss`."""
        loss = found if self.given_loss is not None else self._found_loss(found, batch)
        if isinstance(loss, Tensor) and loss.numel() == 1:
            return loss
        kind, what = type(self).__name__, described(found)
        if self.given_loss is not None:
            raise MisconfigurationException(f"the given `loss` returns {what}, expected a scalar.")
        if loss is not None:
            raise MisconfigurationException(
                f"the `loss` in the output of {kind} has shape {tuple(loss.shape)}, expected a "
                f"scalar. Give {_LOSS}, such as its mean."
            )
        raise MisconfigurationException(
            f"the output of {kind} has no `loss`: it is {what}, for the batch {described(batch)}. "
            f"Give {_LOSS}; a model of Hugging Face returns its loss if the batch has `labels`."
        )

    def failure(self, batch: Any, error: Exception) -> MisconfigurationException:
        """The error for a batch that the net, or the given loss, does not run on."""
        said = f"{type(error).__name__}: {shortened(str(error).strip(), 400).rstrip('.')}"
        if self.given_loss is not None:
            text = f"the given `loss` failed. {said}. The batch: {described(batch)}."
        else:
            text = (
                f"{type(self).__name__} failed, called with {self._called(batch)}. {said}. Its "
                f"`forward` is {forward_text(self.net)}, the batch {described(batch)}. Let the "
                f"batch have these names, or give {_LOSS}."
            )
        return MisconfigurationException(text)

    def _arguments(self, batch: Any) -> Arguments:
        args, kwargs = batch_arguments(self.net, batch)
        try:
            forward_signature(self.net).bind(*args, **kwargs)
        except TypeError as error:
            raise MisconfigurationException(
                f"{type(self).__name__} cannot be called with {self._called(batch)}: {error}. Its "
                f"`forward` is {forward_text(self.net)}, the batch {described(batch)}. Let the "
                f"batch have these names, or give {_LOSS}."
            ) from error
        return args, kwargs

    def _called(self, batch: Any) -> str:
        args, kwargs = batch_arguments(self.net, batch)
        if kwargs:
            return f"the batch's {', '.join(kwargs)} by name"
        if len(args) == 1 and args[0] is batch:
            return "the batch as it is"
        return f"{len(args)} of the {len(batch)} items of the batch"

    def _found_loss(self, output: Any, batch: Any) -> Tensor | None:
        """The loss in what the net returns, if there is one."""
        if isinstance(output, Tensor):
            return output if _is_scalar(output) else None
        loss = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
        if isinstance(loss, Tensor):
            return loss
        args, kwargs = batch_arguments(self.net, batch)
        scalars = [part for part in output if _is_scalar(part)] if type(output) is tuple else []
        given = forward_signature(self.net).bind(*args, **kwargs).arguments
        return scalars[0] if len(scalars) == 1 and set(TARGETS) & set(given) else None


def plain_module(net: nn.Module, loss: Callable[[Any, Any], Any] | None = None) -> PlainModule:
    """A :class:`PlainModule` whose class has the name of the net's class, for messages.

    A net inside ``nn.DataParallel`` or ``DistributedDataParallel``, or a compiled net, is measured
    by itself: on one device, eagerly, under its own names.

    Raises:
        TypeError: if ``net`` is not an ``nn.Module``.
        MisconfigurationException: if the net has no values, because it is on the device ``meta``.
    """
    if not isinstance(net, nn.Module):
        raise TypeError(f"the model is {type(net).__name__}, expected an nn.Module.")
    net = _unwrapped(net)
    name = net.original_name if isinstance(net, torch.jit.ScriptModule) else type(net).__name__
    parameters = list(net.parameters())
    if parameters and all(parameter.is_meta for parameter in parameters):
        raise MisconfigurationException(
            f"{name} is on the device 'meta', where weights have no values. Load its weights "
            "first, as by `net.to_empty(device='cpu')` and `load_state_dict`."
        )
    kind = type(name, (PlainModule,), {"__module__": type(net).__module__})
    made: PlainModule = kind(net, loss)
    return made


def _unwrapped(net: nn.Module) -> nn.Module:
    """The net inside of wrappers that change how it runs, not what it computes."""
    inner = net if isinstance(net, torch.jit.ScriptModule) else submodule(net, "")
    if isinstance(inner, nn.DataParallel | nn.parallel.DistributedDataParallel):
        inner = inner.module
    return net if inner is net else _unwrapped(inner)


def _is_scalar(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim == 0 and value.is_floating_point()
