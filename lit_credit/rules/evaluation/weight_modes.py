"""Optimizers that train one set of weights and evaluate another, such as schedule-free ones."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer

__all__ = ["WeightModes"]

_ENTRY = "trained_weights"


class WeightModes:
    """The two sets of weights of optimizers with methods ``train`` and ``eval``.

    ``eval`` puts the evaluated weights into the parameters, ``train`` the trained ones. Both
    compute the weights from the optimizer's state, with rounding. So this class keeps the trained
    weights and restores them bit by bit.

    Args:
        optimizers: optimizers in training mode, or about to be; those without such methods are
            ignored.
    """

    def __init__(self, optimizers: Sequence[Optimizer] = ()) -> None:
        self._optimizers: list[Any] = [
            optimizer
            for optimizer in optimizers
            if callable(getattr(optimizer, "train", None))
            and callable(getattr(optimizer, "eval", None))
        ]
        self._trained: list[Tensor] | None = None

    def train(self) -> None:
        """Put the trained weights into the parameters."""
        for optimizer in self._optimizers:
            optimizer.train()
        if self._trained is not None:
            self._put(self._trained)
            self._trained = None

    def evaluate(self) -> None:
        """Put the evaluated weights into the parameters."""
        if self._optimizers and self._trained is None:
            self._trained = self._copies()
            for optimizer in self._optimizers:
                optimizer.eval()

    @contextmanager
    def evaluated(self) -> Iterator[None]:
        """Use the evaluated weights inside the ``with``, then restore the previous ones."""
        if self._trained is not None:
            yield
            return
        self.evaluate()
        try:
            yield
        finally:
            self.train()

    @contextmanager
    def trained(self) -> Iterator[None]:
        """Use the trained weights inside the ``with``, then restore the previous ones."""
        if self._trained is None:
            yield
            return
        evaluated, kept = self._copies(), self._trained
        self.train()
        try:
            yield
        finally:
            self.evaluate()
            self._put(evaluated)
            self._trained = kept

    def save(self, checkpoint: dict[str, Any], module: LightningModule) -> None:
        """Save the evaluated weights, and beside them the trained ones, to resume and to diagnose.

        Args:
            checkpoint: the checkpoint that Lightning is about to write.
            module: the module that has the parameters.
        """
        if not self._optimizers:
            return
        own = set(map(id, self._parameters()))
        trainer = module.trainer
        with self.trained():
            if "optimizer_states" in checkpoint:
                checkpoint["optimizer_states"] = [
                    trainer.strategy.optimizer_state(optimizer) for optimizer in trainer.optimizers
                ]
            checkpoint[_ENTRY] = {
                name: parameter.detach().clone()
                for name, parameter in module.named_parameters()
                if id(parameter) in own
            }
        with self.evaluated():
            weights = checkpoint["state_dict"]
            checkpoint["state_dict"] = {name: value.clone() for name, value in weights.items()}

    @staticmethod
    def resume(checkpoint: dict[str, Any]) -> None:
        """Let a resumed fit begin with the trained weights of its checkpoint."""
        checkpoint["state_dict"] |= checkpoint.get(_ENTRY) or {}

    def _parameters(self) -> list[nn.Parameter]:
        groups = [group for optimizer in self._optimizers for group in optimizer.param_groups]
        return [parameter for group in groups for parameter in group["params"]]

    def _copies(self) -> list[Tensor]:
        return [parameter.detach().clone() for parameter in self._parameters()]

    def _put(self, values: Sequence[Tensor]) -> None:
        with torch.no_grad():
            for parameter, value in zip(self._parameters(), values, strict=True):
                parameter.copy_(value)
