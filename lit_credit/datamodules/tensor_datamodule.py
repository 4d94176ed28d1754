"""The base class of datamodules whose data are tensors in memory."""

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule
from torch import Tensor, nn

from lit_credit.datamodules.tensor_loader import TensorLoader, Transform
from lit_credit.protocols import ModuleProtocol, RuleProtocol, asked
from lit_credit.utils.inherited_docs import complete_arguments
from lit_credit.utils.random_state import run_seed
from lit_credit.utils.ranges import check_range

__all__ = ["TensorDataModule"]


class TensorDataModule(LightningDataModule):
    """Whole batches, each a function of (seed, epoch, batch index); see :class:`TensorLoader`.

    Args:
        batch_size: samples in a training batch, over all devices together.
        val_batch_size: samples in a validation or test batch, over all devices together.
        seed: seed of everything random in the batches; None takes the one given to
            ``seed_everything``, or 0 if there was none. A resumed run keeps the one it had.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        complete_arguments(cls)

    def __init__(self, batch_size: int, val_batch_size: int, seed: int | None) -> None:
        super().__init__()
        check_range(1, batch_size=batch_size, val_batch_size=val_batch_size)
        check_range(0, seed=seed)
        self.batch_size = batch_size
        self.val_batch_size = val_batch_size
        self.seed = seed
        self._resumed_seed: int | None = None

    def loader(
        self,
        tensors: Sequence[Tensor],
        batch_size: int,
        transform: Transform | None = None,
        shuffle: bool = False,
        draws: int | None = None,
        numbered: bool = False,
    ) -> TensorLoader:
        """A loader with the seed of this run, for this process's share of the batches.

        A loader that shuffles or draws is for training. If the module makes several updates in a
        training step, the loader returns as many batches at a time.
        """
        training = shuffle or draws is not None
        return TensorLoader(
            tensors,
            batch_size=batch_size,
            shuffle=shuffle,
            draws=draws,
            seed=self._seed(),
            transform=transform,
            numbered=numbered,
            rank=self.trainer.global_rank if self.trainer else 0,
            world_size=self.trainer.world_size if self.trainer else 1,
            updates=asked(self._module, RuleProtocol.updates_per_step, 1) if training else 1,
        )

    def state_dict(self) -> dict[str, Any]:
        """The seed in use. A resumed run without a seed argument takes it and keeps the order."""
        return {"seed": self._seed()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the seed of the resumed run, unless a seed was given as an argument.

        Args:
            state_dict: the result of :meth:`state_dict`.
        """
        self._resumed_seed = state_dict["seed"]

    def __str__(self) -> str:
        # Lightning's own `__str__` asks every loader for a torch Dataset, and fails without one.
        return f"{type(self).__name__}(batch_size={self.batch_size}, seed={self._seed()})"

    @property
    def _module(self) -> LightningModule | None:
        """The module that uses the data; None outside of a Trainer."""
        module: LightningModule | None = getattr(self.trainer, "lightning_module", None)
        return module

    @property
    def _net(self) -> nn.Module | None:
        """The net that uses the data; None if there is no net."""
        return asked(self._module, ModuleProtocol.net, None)

    def _seed(self) -> int:
        if self.seed is not None:
            return self.seed
        if self._resumed_seed is not None:
            return self._resumed_seed
        return run_seed()
