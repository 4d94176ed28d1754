"""PEPITA: a second forward pass on an input that the error has changed."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from lit_credit.feedback.draw import Distribution
from lit_credit.feedback.entry import check_output
from lit_credit.feedback.input_feedback import InputFeedback
from lit_credit.feedback.units import UnitGraphs
from lit_credit.headlines import Look
from lit_credit.inspect.unit_names import unit_modules
from lit_credit.rules.inference import InferenceRule, Inferred, LearningPass
from lit_credit.tasks import Task
from lit_credit.utils.colors import AMBER
from lit_credit.utils.nested import described
from lit_credit.utils.random_state import run_seed
from lit_credit.utils.ranges import check_range

__all__ = ["PEPITA"]


class PEPITA(InferenceRule):
    r"""Error-driven input modulation: the credit is what the error at the input changes.

    A first pass on x gives the outputs h_l and the error e, of each sample, at the net's output. A
    second pass on ``x + F e`` with a fixed random F gives h'_l. The update is ``dW_l = (h_l -
    h'_l)^T h'_{l-1} / N``, and the readout learns from the true gradient of the second pass. No
    error is sent backward.

    As published, the credit is not multiplied by the derivative f' of the activation: it enters at
    the output of the last submodule with parameters in each unit, in front of the activation.
    ``derivative: true`` lets it enter at the unit's output, as under the other rules.

    Both passes draw the same masks of dropout, and run in float32 under mixed precision. The input
    must be real numbers: an error cannot change symbols. A unit that pools behind its layer needs
    ``derivative: true``. Learns digits on an MLP with AdamW at 1e-3 (configs/rules/pepita.yaml),
    and CIFAR-10 with one hidden layer and SGD.

    See :class:`lit_credit.rules.cut.CutRule` for the other arguments.

    Args:
        derivative: multiply the credit by f'.
        feedback: distribution of F; see :func:`lit_credit.feedback.draw_feedback`.
        feedback_scale: factor on F, whose entries have variance ``2 / I`` without it, I the numbers
            of an input.
        feedback_seed: seed of F; None takes the seed of the run.

    Raises:
        ValueError: at the first batch, if the weights have half precision, if the net's input is
            not one tensor of real numbers, if the output of a unit has not the shape in which its
            credit enters, or if a unit holds a PReLU, whose slope would not learn.

    Reference:
        Dellaferrera, Kreiman, Error-driven Input Modulation: Solving the Credit Assignment Problem
        without a Backward Pass, 2022, arXiv 2201.11665, algorithm 1. The readout learns from the
        error of the second pass, as in the authors' program; the paper has that of the first.
    """

    look = Look(order=8, color=AMBER)

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
        stray: Literal["error", "freeze", "train"] = "error",
        scale_penalty: float = 0.0,
        group_options: dict[str, dict[str, Any]] | None = None,
        derivative: bool = False,
        feedback: Distribution = "uniform",
        feedback_scale: float = 0.05,
        feedback_seed: int | None = None,
    ) -> None:
        check_range(feedback_scale=feedback_scale, feedback_seed=feedback_seed)
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
            scale_penalty=scale_penalty,
            group_options=group_options,
        )
        self.derivative = derivative
        seed = run_seed() if feedback_seed is None else feedback_seed
        self.feedback = InputFeedback(feedback, feedback_scale, seed)
        self._in_front: dict[str, Tensor] = {}  # what the units' last layers hand on

    def surrogate(self, batch: Any) -> tuple[Tensor, Tensor]:
        """The loss of the net, and the scalar whose gradient is the update."""
        try:
            return super().surrogate(batch)
        finally:
            self._in_front = {}  # they hold the graph of the pass

    def credit(self, batch: Any) -> dict[str, Tensor]:
        """The credit that the output of each unit that ran receives, of the output's shape."""
        try:
            return super().credit(batch)
        finally:
            self._in_front = {}

    def infer(self, batch: Any) -> Inferred:
        """The first pass, and the input that its error changes."""
        x, *rest = self.task.inputs(batch)
        if not isinstance(x, Tensor) or not x.is_floating_point():
            raise ValueError(
                f"PEPITA adds the error to the net's input, which is {described(x)}, expected real "
                "numbers. Train nets of symbols by DFA."
            )
        outputs: dict[str, Tensor] = {}

        def keep(name: str, value: Tensor) -> Tensor:
            outputs[name] = value
            return self.handed_on(name, value)

        first = LearningPass()
        output = self.run_silently(batch, keep)
        check_output(output)
        first.output = output.requires_grad_()
        with torch.enable_grad():
            first.loss = self.task.loss(first.output, batch)
            error = first.error() * first.rows
        return Inferred(first.loss.detach(), [x + self.feedback(error, x), *rest], found=outputs)

    def credits(
        self, batch: Any, inferred: Inferred, learning: LearningPass
    ) -> Mapping[str, Tensor]:
        """``(h_l - h'_l) / N``."""
        before = inferred.found
        return {n: before[n].sub_(h).div_(learning.rows) for n, h in learning.outputs.items()}

    def entries(self, outputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The outputs in front of the activations, unless the derivative is wanted."""
        if self.derivative:
            return outputs
        found: dict[str, Tensor] = {}
        for name, output in outputs.items():
            entry = self._in_front.get(name)
            if entry is None or entry.shape != output.shape:
                raise ValueError(
                    f"unit {name!r} hands on {tuple(output.shape)}, but its last layer "
                    f"{None if entry is None else tuple(entry.shape)}: the credit cannot enter in "
                    "front of the activation. Set `derivative: true`, or end the unit at the "
                    "activation."
                )
            # What a layer hands on that is a whole unit is cut off from its graph.
            found[name] = entry if entry.requires_grad else output
        return found

    def _learn(self, batch: Any, inferred: Inferred) -> tuple[LearningPass, UnitGraphs]:
        self._in_front = {}
        with ExitStack() as hooks:
            for name in [] if self.derivative else self.units:
                self._check_slopes(name)
                for layer in _layers(unit_modules(self.net, name)):
                    hooks.callback(layer.register_forward_hook(self._keep(name)).remove)
            return super()._learn(batch, inferred)

    def _check_slopes(self, name: str) -> None:
        for part in _layers(unit_modules(self.net, name)):
            if isinstance(part, nn.PReLU):
                raise ValueError(
                    f"unit {name!r} holds a PReLU, whose slope would not learn from a credit that "
                    "enters in front of it. Set `derivative: true`, or take another activation."
                )

    def _keep(self, name: str) -> Callable[[nn.Module, Any, Any], Any]:
        def keep(_: nn.Module, __: Any, output: Any) -> Any:
            if not isinstance(output, Tensor):
                return None
            self._in_front[name] = output
            return output.clone()  # the activation may work in place

        return keep


def _layers(members: list[nn.Module]) -> list[nn.Module]:
    """The submodules of a unit with parameters of their own; the last that runs counts."""
    return [
        part
        for member in members
        for part in member.modules()
        if any(True for _ in part.parameters(recurse=False))
    ]
