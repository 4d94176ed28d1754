"""Running the validation that a resumed run would skip."""

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping

from lit_credit.trainer.trainer import callbacks_of
from lit_credit.utils.random_state import preserved_rng

__all__ = ["missed_validation", "run_missed_validation"]


def missed_validation(trainer: Trainer) -> bool:
    """Whether the fit that begins has skipped a validation that was due.

    From a checkpoint saved at the end of a batch (``every_n_train_steps``), Lightning resumes after
    the validation that follows this batch.

    Args:
        trainer: the Trainer, in ``on_train_start``.
    """
    loop = trainer.fit_loop.epoch_loop
    every, epochs = trainer.val_check_batch, trainer.check_val_every_n_epoch
    if not loop.restarted_on_train_batch_end or not trainer.enable_validation or every is None:
        return False
    ends = trainer.is_last_batch  # the batch ended its epoch, which is counted by now
    if epochs is None:
        return bool((loop.total_batch_idx + 1) % every == 0)
    if (trainer.current_epoch + int(not ends)) % epochs:
        return False
    return ends if every == float("inf") else bool((loop.batch_idx + 1) % every == 0)


def run_missed_validation(trainer: Trainer) -> None:
    """Validate as a fit does between its steps; random states are restored after it.

    Checkpoint and early-stopping callbacks are not called, because Lightning would not call them
    for a missed validation.
    """
    callbacks = callbacks_of(trainer)
    spared = [c for c in callbacks if not isinstance(c, Checkpoint | EarlyStopping)]
    trainer.callbacks = spared  # type: ignore[attr-defined]
    trainer.validating = True
    loop = trainer.fit_loop.epoch_loop.val_loop
    loop.restarting = False
    try:
        with preserved_rng():
            loop.run()
    finally:
        trainer.training = True
        trainer.callbacks = callbacks  # type: ignore[attr-defined]
