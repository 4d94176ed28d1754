"""The base class of rules that hand each unit a credit signal."""

import inspect
import warnings
from abc import abstractmethod
from collections.abc import Mapping
from functools import partial, wraps
from typing import Any, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Size, Tensor, nn

from lit_credit.feedback.broadcast import Broadcast
from lit_credit.feedback.credits import Credits, normalized_credits
from lit_credit.feedback.entry import Cut
from lit_credit.feedback.learned import feedback_parameters
from lit_credit.feedback.one_graph import OneGraph
from lit_credit.feedback.unit_checks import check_sent
from lit_credit.feedback.units import LocalUnits, UnitGraphs
from lit_credit.inspect.unit_names import with_prefix
from lit_credit.rules.cut import CutRule
from lit_credit.tasks import Task

__all__ = ["LocalRule"]


class LocalRule(CutRule):
    """A rule that hands each unit a credit signal at its output, and the readout the true gradient.

    Credit enters at the end of a unit; inside the unit the gradient is exact. In the literature
    credit enters behind the activation, ``delta_l = (B_l e) * f'(z_l)``; so in a net without
    residual blocks a unit should be a layer with its activation. ``units: [fc1, fc2]`` with
    activations between lacks ``f'`` and is another rule; a warning says so. Write ``fc1+act1`` if
    the activation is a submodule, or ``fc1->`` if it is a function: the unit then ends at the input
    of the next unit or of the readout. See :class:`lit_credit.rules.CreditRule` for unit names.

    The update is the gradient of ``loss(readout on the detached last state) + sum_l <f_l,
    stopgrad(a_l)>``, where f_l is the output of unit l on detached inputs and a_l its credit. The
    sum is never computed: each credit enters the backward pass of the loss at its unit.

    See :class:`lit_credit.rules.cut.CutRule` for the other arguments.

    Args:
        normalize_credit: scale each sample's credit to unit root mean square when it is delivered;
            each position of a sequence (N, T, d) by itself, a feature map (N, C, H, W) as a whole.

    Raises:
        ValueError: if there are no units; if units or readout overlap; if a trainable parameter is
            in neither and ``stray`` is ``error``; if the net is compiled; at the first batch, if no
            unit runs, if a unit runs only in part, if the submodules of a unit do not run one after
            the other, if the net bypasses a unit's end, or if a unit's output does not have one row
            per sample.
    """

    def __init__(
        self,
        net: nn.Module,
        task: Task,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_interval: Literal["epoch", "step"] = "epoch",
        clip_norm: float | None = None,
        clip_per_unit: float | dict[str, float] | None = None,
        units: list[str] | None = None,
        readout: list[str] | None = None,
        updates_per_step: int = 1,
        *,
        normalize_credit: bool = False,
        stray: Literal["error", "freeze", "train"] = "error",
        recompute: bool = False,
        scale_penalty: float = 0.0,
        group_options: dict[str, dict[str, Any]] | None = None,
        compile: bool | dict[str, Any] = False,
    ) -> None:
        super().__init__(
            net=net,
            task=task,
            optimizer=optimizer,
            lr_scheduler=lr_scheduler,
            lr_interval=lr_interval,
            clip_norm=clip_norm,
            clip_per_unit=clip_per_unit,
            units=units,
            readout=readout,
            updates_per_step=updates_per_step,
            stray=stray,
            recompute=recompute,
            scale_penalty=scale_penalty,
            group_options=group_options,
            compile=compile,
        )
        self.normalize_credit = normalize_credit
        if stray == "error" and not self.readout:
            raise ValueError(
                "`readout` is empty, so that the net's last layer is a unit and would learn from "
                "random feedback. Name in `readout` what follows the last unit."
            )

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = vars(cls).get("send")
        if own is not None:
            cls.send = _with_batch(own, cls.__name__)  # type: ignore[method-assign]

    # Methods that a local rule defines

    @abstractmethod
    def send(
        self, error: Tensor, shapes: Mapping[str, Size], scale: Tensor | float, batch: Any
    ) -> Credits:
        """The units' credits.

        ``normalize_credit`` and ``scale_penalty`` are applied to the returned credits.

        Args:
            error: the gradient of the loss at the net's output or, with :attr:`error_at_unit`, at
                the output of the last unit that ran; (N, ..., C).
            shapes: shape of the output of each unit that ran, by the name of the unit.
            scale: factor on the loss, such as that of a GradScaler; ``error`` includes it. A credit
                that is not linear in the error must be multiplied by it.
            batch: the batch; ``self.task.target(batch)`` is its target.
        """

    def feedback_gradients(
        self, error: Tensor, outputs: Mapping[str, Tensor], batch: Any
    ) -> Mapping[nn.Parameter, Tensor]:
        """Gradients of the feedback matrices that learn, from a backward pass; by default none.

        Args:
            error: as in :meth:`send`.
            outputs: the units' outputs, detached.
            batch: the batch.
        """
        return {}

    # Units and credit

    def surrogate(self, batch: Any) -> tuple[Tensor, Tensor]:
        """The loss, and the scalar whose gradient is the update; the same, unless compiled."""
        if self.is_compiled_now:
            return self.run_units_compiled(LocalRule._whole_surrogate, batch)
        broadcast = self._broadcast(batch)
        known = set(self._ran)
        loss, graphs = self.run_units(batch, broadcast)
        if self.training:
            self._trained.update(graphs.outputs)
        learns = any(output.requires_grad for output in graphs.outputs.values())
        if learns and not known >= graphs.outputs.keys() and isinstance(loss, Tensor):
            last = list(graphs.outputs)[-1]
            check_sent(loss, f"unit {last!r}" if self.error_at_unit else "the net's output")
        broadcast.watch(loss)
        return loss, loss

    def _whole_surrogate(self, units: LocalUnits, batch: Any) -> tuple[Tensor, Tensor]:
        """The scalar as one graph, without checks and hooks, and a stack of loss and scalar."""
        graphs: UnitGraphs
        attach = OneGraph(self._broadcast(batch))

        def extend(name: str, value: Tensor) -> Tensor:
            return attach(value, graphs) if name == self.units[-1] else value

        graphs = units.begin(self.stray != "train", tap=extend if self.error_at_unit else None)
        output = self(*self.task.inputs(batch))
        self.check_all_ran(graphs)
        if not self.error_at_unit:
            output = attach(output, graphs)
        loss = self.task.loss(output, batch) + attach.zero
        scalar = loss
        for value in graphs.outputs.values() if self.scale_penalty else ():
            scalar = scalar + self.scale_penalty * value.square().mean()
        units.end()  # or torch.compile returns what it holds
        return scalar, torch.stack([loss, scalar]).detach()

    def draw(self, outputs: Mapping[str, Tensor], output: Tensor, batch: Any) -> None:
        """Draw the matrices, by sending an error of zeros."""
        shapes = {name: value.shape for name, value in outputs.items()}
        with torch.no_grad():
            credits = self._deliver(torch.zeros_like(output), shapes, 1.0, batch)
            for name in shapes:
                credits.dense(name)

    def credit(self, batch: Any) -> dict[str, Tensor]:
        """The credit that the output of each unit that ran receives, of the output's shape."""
        cut = Cut()
        loss, graphs = self.run_units(batch, cut)
        shapes = {name: output.shape for name, output in graphs.outputs.items()}
        if not shapes:
            return {}
        (error,) = torch.autograd.grad(loss, cut.leaf)
        credits = self._deliver(error, shapes, 1.0, batch)
        return {with_prefix(name, "net."): credits.dense(name) for name in shapes}

    def _broadcast(self, batch: Any) -> Broadcast:
        # The walk over all modules is left out where no feedback learns by this rule.
        learns = type(self).feedback_gradients is not LocalRule.feedback_gradients
        learned = list(feedback_parameters(self).values()) if learns else []

        def learn(error: Tensor, outputs: Mapping[str, Tensor]) -> list[Tensor | None]:
            found = self.feedback_gradients(error, outputs, batch)
            return [found.get(parameter) for parameter in learned]

        return Broadcast(
            partial(self._deliver, batch=batch),
            self.scale_penalty,
            learned,
            learn if learned else None,
        )

    def _deliver(
        self, error: Tensor, shapes: Mapping[str, Size], scale: Tensor | float, batch: Any
    ) -> Credits:
        credits = self.send(error, shapes, scale, batch)
        return normalized_credits(credits, shapes, scale) if self.normalize_credit else credits


def _with_batch(send: Any, owner: str) -> Any:
    """A ``send`` of before, without ``batch``, with it."""
    parameters = inspect.signature(send).parameters
    if len(parameters) > 4 or any(p.kind == p.VAR_POSITIONAL for p in parameters.values()):
        return send
    warnings.warn(
        f"`send` of {owner} takes no `batch`. Write `send(self, error, shapes, scale, batch)`; the "
        "old form works until the next release.",
        DeprecationWarning,
        stacklevel=4,
    )

    @wraps(send)
    def with_batch(
        self: Any, error: Tensor, shapes: Any, scale: Tensor | float, batch: Any
    ) -> Credits:
        credits: Credits = send(self, error, shapes, scale)
        return credits

    return with_batch
