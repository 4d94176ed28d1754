"""Parts of a net that do not learn."""

from collections.abc import Sequence

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from lit_credit.utils.names import matched_units, submodule_names

__all__ = ["PartFreezing"]


class PartFreezing(Callback):
    """Keep parts of a net at their initial values, until an epoch or throughout, and prove it.

    Which part of a net must learn? Every parameter that a name or pattern matches has
    ``requires_grad=False`` while it is frozen: gradients still pass through, and no optimizer moves
    it. At the end of every epoch in which something is frozen, and at the end of the fit, it is
    compared, bit by bit, with what it was at the start. After the fit all is as it was.

    Costs a copy of the frozen parameters, and a comparison an epoch.

    Args:
        frozen: names or patterns of submodules, with all that is in them, or of parameters, such as
            ``["embed", "blocks.*.attention.in_proj_weight"]``; as names of the module or of its
            ``net``.
        unfreeze_epoch: the first epoch, counted from 0, in which the parts learn as all others do;
            None leaves them frozen.

    Raises:
        ValueError: if a pattern matches nothing or one thing twice, if nothing is left to learn, or
            ``unfreeze_epoch`` is below 1.
        MisconfigurationException: if parts are to be unfrozen on several devices, whose gradients
            would not be averaged.
        RuntimeError: if a frozen parameter has moved.

    Example::

        trainer = Trainer(callbacks=[PartFreezing(frozen=["embed", "head"])])
    """

    def __init__(self, frozen: list[str], unfreeze_epoch: int | None = None) -> None:
        super().__init__()
        if isinstance(frozen, str) or not frozen:
            raise ValueError(
                f"`frozen` is {frozen!r}, expected a list of names or patterns such as ['embed']."
            )
        if unfreeze_epoch is not None and unfreeze_epoch < 1:
            raise ValueError(
                f"`unfreeze_epoch` is {unfreeze_epoch}, expected at least 1, or None for never. "
                "Leave the callback out if nothing is to be frozen."
            )
        self.frozen = frozen
        self.unfreeze_epoch = unfreeze_epoch
        self._parts: dict[str, nn.Parameter] = {}
        self._values: dict[str, Tensor] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the parts; those that never learn are frozen before an optimizer is made."""
        if stage != "fit":
            return
        if self.unfreeze_epoch is not None and trainer.world_size > 1:
            raise MisconfigurationException(
                f"`unfreeze_epoch` is {self.unfreeze_epoch} on {trainer.world_size} devices, whose "
                "gradients of what was frozen at the start are not averaged. Use one device, or "
                "leave it out."
            )
        chosen = _parameters(pl_module, self.frozen)
        # What is frozen by others stays so.
        self._parts = {name: p for name, p in chosen.items() if p.requires_grad}
        own = {id(p) for p in self._parts.values()}
        if not any(p.requires_grad and id(p) not in own for p in pl_module.parameters()):
            raise ValueError(f"`frozen` is {self.frozen}, which leaves no parameter to learn.")
        if self.unfreeze_epoch is None:
            self._require_grad(False)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Freeze, and remember the values."""
        if self.unfreeze_epoch is None or trainer.current_epoch < self.unfreeze_epoch:
            # Those that will learn are frozen only now, so that the optimizer has them.
            self._require_grad(False)
            self._values = {name: p.detach().clone() for name, p in self._parts.items()}

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Unfreeze, if it is time."""
        due = self.unfreeze_epoch is not None and trainer.current_epoch >= self.unfreeze_epoch
        if due and self._values:
            self._values = {}
            self._require_grad(True)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that nothing has moved."""
        moved = [n for n, value in self._values.items() if not torch.equal(value, self._parts[n])]
        if moved:
            raise RuntimeError(
                f"PartFreezing: {', '.join(moved)} moved, although frozen, until step "
                f"{trainer.global_step}. Something writes to parameters without their gradients: "
                "another callback, a weight averaging, or a constraint."
            )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check a fit that ended within an epoch."""
        self.on_train_epoch_end(trainer, pl_module)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the module as it was."""
        self._release()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Leave the module as it was."""
        self._release()

    def _require_grad(self, required: bool) -> None:
        for parameter in self._parts.values():
            parameter.requires_grad_(required)

    def _release(self) -> None:
        self._require_grad(True)
        self._parts, self._values = {}, {}


def _parameters(module: nn.Module, patterns: Sequence[str]) -> dict[str, nn.Parameter]:
    """All parameters that the patterns name, or that are in a submodule that they name."""
    # With duplicates, so that a tied weight is found by both of its names.
    parameters = dict(module.named_parameters(remove_duplicate=False))
    found: dict[str, nn.Parameter] = {}
    for part in matched_units(patterns, [*submodule_names(module), *parameters], "frozen"):
        found |= {n: p for n, p in parameters.items() if n == part or n.startswith(f"{part}.")}
    if not found:
        raise ValueError(f"`frozen` is {list(patterns)}, in which there are no parameters.")
    return found
