"""Warning of a stream of training data that a resumed run reads from its start."""

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import CombinedLoader, rank_zero_warn

from lit_credit.trainer.trainer import is_at_epoch_start

__all__ = ["warn_of_restarted_stream"]


def warn_of_restarted_stream(trainer: Trainer) -> None:
    """Warn if a run goes on in mid-epoch and its training data begin again.

    Lightning warns of loaders with a length.

    Args:
        trainer: the Trainer, in ``on_train_start``.
    """
    if trainer.num_training_batches != float("inf") or is_at_epoch_start(trainer):
        return
    # Slow to load, and seldom needed.
    from torch.distributed.checkpoint.stateful import Stateful

    loaders = CombinedLoader(trainer.train_dataloader).flattened
    if all(isinstance(one, Stateful) for one in loaders):
        return
    done = trainer.fit_loop.epoch_loop.batch_progress.current.ready
    rank_zero_warn(
        f"The checkpoint lies in mid-epoch, after {done} batches, and the training data have no "
        "length. They start over, so this epoch has more updates than without the interruption. "
        "Resume from a checkpoint at the end of an epoch, or give the loader `__len__`, "
        "`state_dict` and `load_state_dict` (docs/howto/stream.md)."
    )
