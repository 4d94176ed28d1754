"""Modules of every kind that a diagnostic may meet."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.loggers import Logger
from torch import Tensor, nn
from torch.nn import functional as F

from lit_credit.protocols import NetProtocol, asked
from lit_credit.rules import BP, DFA, FA, BlockFA, FrozenUnits
from lit_credit.tasks import Classification

__all__ = ["KINDS", "RecordingLogger", "given_loss"]


class _Foreign(LightningModule):
    """A module of a project without lit_credit, with the usual side effects of a training step."""

    def __init__(self, net: nn.Module, classes: int) -> None:
        super().__init__()
        self.net = net
        # A momentum encoder of the whole net. Each step moves it before it computes the loss.
        self.target = nn.ParameterList(
            [nn.Parameter(p.detach().clone(), requires_grad=False) for p in net.parameters()]
        )
        self.outputs: list[float] = []
        self.credit_units = self._names(NetProtocol.credit_units)
        self.residual_stream = self._names(NetProtocol.residual_stream) or None

    def _names(self, member: Any) -> list[str]:
        return [f"net.{name}" for name in asked(self.net, member, None) or ()]

    def forward(self, x: Tensor) -> Any:
        return self.net(x)

    def loss_of(self, batch: Any) -> Tensor:
        """Move the target, compute the loss, and log it to every logger in every way."""
        for kept, parameter in zip(self.target, self.net.parameters(), strict=True):
            kept.data.mul_(0.9).add_(parameter.data, alpha=0.1)
        x, y = batch
        loss: Tensor = F.cross_entropy(self.net(x), y)
        loss = loss + 0.01 * sum(p.abs().mean() for p in self.target)
        self.outputs.append(float(loss.detach()))
        if self.logger is not None:
            self.logger.log_metrics({"user/metric": self.outputs[-1]}, len(self.outputs))
            experiment: Any = getattr(self.logger, "experiment")  # noqa: B009
            experiment.add_scalar("user/scalar", self.outputs[-1], 0)
            for logger in self.loggers:
                logger.log_metrics({"user/every": self.outputs[-1]})
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        self.log("val/loss", F.cross_entropy(self.net(x), y))

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.net.parameters(), lr=1e-2)


class _Automatic(_Foreign):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = self.loss_of(batch)
        self.log("user/loss", loss)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] *= 0.9
        return loss


class _Manual(_Foreign):
    def __init__(self, net: nn.Module, classes: int) -> None:
        super().__init__(net, classes)
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(self.loss_of(batch))
        optimizer.step()


class _OwnLoss(_Manual):
    def batch_loss(self, batch: Any) -> Tensor:
        return self.loss_of(batch)


def given_loss(module: Any, batch: Any) -> Tensor:
    """The loss of a foreign module, as a function for a diagnostic's ``loss``."""
    loss: Tensor = module.loss_of(batch)
    return loss


def _rule(kind: Any, net: nn.Module, classes: int, **arguments: Any) -> LightningModule:
    optimizer: Any = partial(torch.optim.Adam, lr=1e-2)
    module: LightningModule = kind(net, Classification(classes), optimizer, **arguments)
    return module


def _fa(net: nn.Module, classes: int) -> LightningModule:
    states: Any = getattr(net, "states", {})
    without = [f"states.{name}" for name in ("carry", "spectral_norm") if name in states]
    return _rule(FA, net, classes, leave_exact=without or None)


KINDS: Mapping[str, Callable[[nn.Module, int], LightningModule]] = {
    "automatic": _Automatic,
    "manual": _Manual,
    "own_loss": _OwnLoss,
    "given_loss": _Automatic,
    "BP": partial(_rule, BP),
    "FA": _fa,
    "DFA": partial(_rule, DFA),
    "BlockFA": partial(_rule, BlockFA),
    "FrozenUnits": partial(_rule, FrozenUnits),
}
"""Kinds of modules; each value makes a module from a net and a number of classes.

Foreign modules with ``automatic`` and ``manual`` optimization, a manual one with its own
``batch_loss`` (``own_loss``), one whose diagnostic is given a ``loss`` (``given_loss``), and the
rules.
"""


class RecordingLogger(Logger):
    """A logger that keeps its points in memory.

    Attributes:
        points: name and value of each point.
    """

    def __init__(self) -> None:
        super().__init__()
        self.points: list[tuple[str, float]] = []

    @property
    def name(self) -> str:
        """Name of the logger."""
        return "recorded"

    @property
    def version(self) -> str:
        """Version of the run."""
        return "0"

    @property
    def experiment(self) -> Any:
        """The object that users write to directly: the logger itself."""
        return self

    def add_scalar(self, tag: str, value: float, step: int = 0) -> None:
        """Keep a point, as TensorBoard's writer does."""
        self.points.append((tag, float(value)))

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Keep each metric as a point."""
        self.points += [(name, float(value)) for name, value in metrics.items()]

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """Keep nothing."""
