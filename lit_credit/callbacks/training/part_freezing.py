"""Freezing parts of a net, until an epoch or throughout."""

from collections.abc import Mapping

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from torch import nn

from lit_credit.callbacks.training.frozen_parameters import FrozenParameters, parameters_of
from lit_credit.utils.names import check_units
from lit_credit.utils.ranges import check_range

__all__ = ["PartFreezing"]


class PartFreezing(FrozenParameters):
    """Keep parts of a net at their initial values, until an epoch or throughout, and prove it.

    It answers the question which part of a net must learn. Every parameter that a name or pattern
    matches has ``requires_grad=False`` while it is frozen: gradients still pass through, and no
    optimizer changes the parameter. At the end of every epoch with frozen parts, and at the end of
    the fit, frozen parameters are compared, bit by bit, with their values at the start. After the
    fit ``requires_grad`` is restored. Buffers, such as the running means of a BatchNorm, are not
    frozen.

    Costs a copy of the frozen parameters, and one comparison per epoch.

    Args:
        frozen: names or patterns of submodules, with all their contents, or of parameters, such as
            ``["embed", "blocks.*.attention.in_proj_weight"]``; as names of the module or of its
            ``net``.
        unfreeze_epoch: the first epoch, counted from 0, in which the parts learn like all others;
            None keeps them frozen.

    Raises:
        ValueError: if a pattern matches nothing or matches a name twice, if nothing is left to
            learn, or if ``unfreeze_epoch`` is below 1.
        MisconfigurationException: if parts are to be unfrozen on several devices, which would not
            average the gradients of parts that were frozen at the start.
        RuntimeError: if a frozen parameter has changed.

    Example::

        trainer = Trainer(callbacks=[PartFreezing(frozen=["embed", "head"])])
    """

    def __init__(self, frozen: list[str], unfreeze_epoch: int | None = None) -> None:
        super().__init__()
        check_units(frozen, otherwise="", argument="frozen")
        remedy = "None is never; leave the callback out if nothing is to be frozen."
        check_range(1, unfreeze_epoch=unfreeze_epoch, remedy=remedy)
        self.frozen = frozen
        self.unfreeze_epoch = unfreeze_epoch

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the parts; freeze those that never learn, before an optimizer is made."""
        if stage != "fit":
            return
        if self.unfreeze_epoch is not None and trainer.world_size > 1:
            raise MisconfigurationException(
                f"`unfreeze_epoch` is {self.unfreeze_epoch} on {trainer.world_size} devices, whose "
                "gradients of what was frozen at the start are not averaged. Use one device, or "
                "leave it out."
            )
        chosen = parameters_of(pl_module, self.frozen, "frozen")
        # Parameters that others froze stay frozen.
        self._parts = {name: p for name, p in chosen.items() if p.requires_grad}
        own = {id(p) for p in self._parts.values()}
        if not any(p.requires_grad and id(p) not in own for p in pl_module.parameters()):
            raise ValueError(f"`frozen` is {self.frozen}, which leaves no parameter to learn.")
        if self.unfreeze_epoch is None:
            for parameter in self._parts.values():
                parameter.requires_grad_(False)

    def frozen_in(self, epoch: int) -> Mapping[str, nn.Parameter]:
        """All parts until ``unfreeze_epoch``, then none."""
        due = self.unfreeze_epoch is not None and epoch >= self.unfreeze_epoch
        return {} if due else self._parts
