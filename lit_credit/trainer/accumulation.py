"""How many batches make one update of the weights."""

from typing import Any

from lightning.pytorch.callbacks import GradientAccumulationScheduler

from lit_credit.trainer.trainer import callbacks_of
from lit_credit.utils.both_packages import is_a

__all__ = ["batches_of_an_update"]


def batches_of_an_update(trainer: Any) -> int:
    """Batches of all processes whose gradients are averaged for one update in the current epoch.

    A ``GradientAccumulationScheduler`` tells the Trainer the number of an epoch only when that
    epoch starts, which is after ``on_train_start``.

    Args:
        trainer: the Trainer.
    """
    accumulated = trainer.accumulate_grad_batches
    for callback in callbacks_of(trainer):
        if is_a(callback, GradientAccumulationScheduler):
            accumulated = callback.get_accumulate_grad_batches(trainer.current_epoch)
    return int(accumulated * trainer.world_size)
