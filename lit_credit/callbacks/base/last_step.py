"""The base class of diagnostics that measure what the last training batch changed."""

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lit_credit.callbacks.base.probe import ProbeDiagnostic
from lit_credit.trainer.trainer import is_last_epoch
from lit_credit.utils.compiled import clean_name

__all__ = ["LastStepDiagnostic"]


class LastStepDiagnostic(ProbeDiagnostic):
    """A diagnostic of the update that the last training batch made.

    While a measurement runs, ``last_update`` is a dict of parameter name (without the parts that
    ``torch.compile`` adds) and ``theta_after - theta_before``, both of the last training batch. The
    parameters are those that required a gradient when the batch began. The update is all that the
    batch changed, by whatever optimizers: a step of accumulated gradients, the steps of a GAN, the
    k updates of a rule with ``updates_per_step``.

    ``last_update`` is None if no update was seen: before training, in ``validate``, ``test`` and
    :func:`lit_credit.diagnose`, after a batch that only accumulated gradients, and at the end of a
    fit that another callback or the user stopped at a batch without a due measurement.

    The cost is one copy of these parameters on rank zero. It is made before a batch after which a
    measurement may be due, and given up after the measurement; other batches cost nothing. How many
    optimizer steps a batch makes is not known beforehand. The first batch of a fit is therefore
    always copied, and later batches count as making as many steps as the largest one before.

    See :class:`lit_credit.callbacks.ProbeDiagnostic` for the arguments.
    """

    last_update: dict[str, Tensor] | None = None
    _before: dict[str, Tensor] | None = None
    _step_before = 0
    _most_steps = 0

    def _forget(self) -> None:
        super()._forget()
        self._give_up()
        self._most_steps = 0

    def _give_up(self) -> None:
        self.last_update = self._before = None

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Copy the parameters if a measurement may be due after this batch."""
        self._give_up()  # of a batch after which no measurement was due
        self._step_before = trainer.global_step
        if trainer.is_global_zero and self._may_be_due(trainer):
            self._before = {name: p.detach().clone() for name, p in _trained(pl_module).items()}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Find what the batch has changed, and measure after a step that is due."""
        steps = trainer.global_step - self._step_before
        self._most_steps = max(1, steps, self._most_steps)
        before, self._before = self._before, None
        if before is not None and steps:
            self.last_update = _subtracted(before, pl_module)
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def measure_at(self, step: int, trainer: Trainer, module: LightningModule, epoch: int) -> None:
        """Measure, and give up the copies."""
        try:
            super().measure_at(step, trainer, module, epoch)
        finally:
            self._give_up()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the last step if that is not done yet, and give up the copies."""
        super().on_train_end(trainer, pl_module)
        self._give_up()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Give up the copies."""
        super().on_exception(trainer, pl_module, exception)
        self._give_up()

    def _may_be_due(self, trainer: Trainer) -> bool:
        """Whether a measurement may be due after the batch that begins."""
        after, every = trainer.global_step + self._most_steps, self.every_n_steps
        return (
            self._most_steps == 0  # the first batch of this fit
            or (every is not None and after // every > self._last_step // every)
            or (trainer.max_steps != -1 and after >= trainer.max_steps)
            or (
                trainer.is_last_batch
                and (self._is_due(trainer.current_epoch + 1) or is_last_epoch(trainer))
            )
        )


def _trained(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that require a gradient, by name, once each."""
    return {
        clean_name(name): parameter
        for name, parameter in module.named_parameters()
        if parameter.requires_grad and not is_lazy(parameter)
    }


@torch.no_grad()
def _subtracted(before: dict[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """What has changed since the copies, in their memory."""
    update = {}
    for name, parameter in module.named_parameters():
        copy = before.get(clean_name(name))
        if copy is not None and not is_lazy(parameter) and copy.shape == parameter.shape:
            update[clean_name(name)] = copy.neg_().add_(parameter)
    return update
