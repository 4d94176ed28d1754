"""The base class of rules that run the net several times, or an inner loop, before they learn."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from lit_credit.feedback.attached import attached
from lit_credit.feedback.credits import rows_of
from lit_credit.feedback.entry import check_output
from lit_credit.feedback.unit_checks import unreached
from lit_credit.feedback.units import UnitGraphs
from lit_credit.inspect.unit_names import with_prefix
from lit_credit.rules.cut import CutRule
from lit_credit.rules.extra_passes import full_precision

__all__ = ["InferenceRule", "Inferred", "LearningPass"]


class Inferred(NamedTuple):
    """What a rule has found before the pass that it learns from.

    Attributes:
        loss: the loss of the net on the batch; None if it is that of the pass that learns.
        inputs: what the net is given in the pass that learns; None for the inputs of the batch.
        values: what the net goes on with in place of the units' outputs, by unit; None for the
            outputs themselves.
        found: anything else that :meth:`InferenceRule.credits` needs.
    """

    loss: Tensor | None = None
    inputs: Sequence[Any] | None = None
    values: Mapping[str, Tensor] | None = None
    found: Any = None


class LearningPass:
    """The pass that a rule learns from.

    Attributes:
        outputs: the units' outputs, detached, in the order in which they ran.
        output: the net's output or, where the error is taken at the last unit, that unit's output.
        loss: the loss.
    """

    output: Tensor
    loss: Tensor

    def __init__(self) -> None:
        self.outputs: dict[str, Tensor] = {}

    def __call__(self, value: Tensor, graphs: UnitGraphs) -> Tensor:
        """Keep the net's output."""
        check_output(value)
        self.output = value if value.requires_grad else value.detach().requires_grad_()
        return self.output

    def extend(self, name: str, value: Tensor, graphs: UnitGraphs) -> Tensor:
        """Keep the output of a unit, as the beginning of what follows."""
        self.output = value.detach().requires_grad_()
        return self.output.clone()  # the next operation may work in place

    @property
    def rows(self) -> int:
        """Samples, or positions, that the loss averages over."""
        return rows_of(self.output.shape)

    def error(self) -> Tensor:
        """The gradient of the loss at :attr:`output`; its graph is kept.

        Raises:
            ValueError: if the loss does not depend on it.
        """
        (error,) = torch.autograd.grad(self.loss, self.output, retain_graph=True, allow_unused=True)
        if error is None:
            raise unreached("the units' outputs")
        return error


class InferenceRule(CutRule):
    """A rule whose credits come from passes of its own before, or beside, the one that learns.

    A step has two parts. :meth:`infer` runs extra passes or an inner loop, and keeps no graph. The
    pass that learns is one run of the net with its units cut apart; :meth:`credits` gives each unit
    its credit, and the update is the gradient of ``loss(readout) + sum_l <f_l, stopgrad(a_l)>``.
    The sum is never computed: credits enter the backward pass at their units.

    The loss must be a mean over samples, or over positions. Under mixed precision the passes run in
    float32, unless ``small_differences`` is False. The net must answer alike when it runs again:
    its state lies in buffers, and it draws from torch's global generator.

    See :class:`lit_credit.rules.cut.CutRule` for the arguments.
    """

    small_differences: ClassVar[bool] = True
    """Whether credits are small differences of passes, which mixed precision would round away."""

    def infer(self, batch: Any) -> Inferred:
        """Run what precedes the pass that learns; by default nothing."""
        return Inferred()

    @abstractmethod
    def credits(
        self, batch: Any, inferred: Inferred, learning: LearningPass
    ) -> Mapping[str, Tensor]:
        """The credit a_l of each unit that ran, in the shape of its output.

        Args:
            batch: what the task takes.
            inferred: what :meth:`infer` has returned.
            learning: the pass that learns.
        """

    def entries(self, outputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The tensors at which credits enter; by default the units' outputs, with their graphs."""
        return outputs

    def auxiliary_loss(self, batch: Any, learning: LearningPass) -> Tensor | None:
        """A loss of parameters beside the net, which is added to the scalar; by default None."""
        return None

    def surrogate(self, batch: Any) -> tuple[Tensor, Tensor]:
        """The loss of the net, and the scalar whose gradient is the update."""
        with self._digits():
            return self._surrogate(batch)

    def _digits(self) -> AbstractContextManager[None]:
        """What the passes run in: no autocast, if the rule takes small differences."""
        if not self.small_differences:
            return nullcontext()
        return full_precision(type(self).__name__, self.net, self.device.type)

    def _surrogate(self, batch: Any) -> tuple[Tensor, Tensor]:
        self.check_repeats(batch)
        inferred = self.infer(batch)
        learning, graphs = self._learn(batch, inferred)
        if self.training:
            self._trained.update(graphs.outputs)
        found = self.credits(batch, inferred, learning)
        entries = self.entries(graphs.outputs)
        scalar = attached(
            learning.loss, [entries[name] for name in found], [found[name] for name in found]
        )
        auxiliary = self.auxiliary_loss(batch, learning)
        if auxiliary is not None:
            scalar = scalar + auxiliary
        for output in graphs.outputs.values() if self.scale_penalty else ():
            scalar = scalar + self.scale_penalty * output.square().mean()
        return (learning.loss if inferred.loss is None else inferred.loss), scalar

    def credit(self, batch: Any) -> dict[str, Tensor]:
        """The credit that the output of each unit that ran receives, of the output's shape."""
        with self._digits():
            self.check_repeats(batch)
            inferred = self.infer(batch)
            learning, _ = self._learn(batch, inferred)
            found = self.credits(batch, inferred, learning) if learning.outputs else {}
        return {with_prefix(name, "net."): credit.detach() for name, credit in found.items()}

    def _learn(self, batch: Any, inferred: Inferred) -> tuple[LearningPass, UnitGraphs]:
        learning, values = LearningPass(), inferred.values or {}

        def go_on(name: str, value: Tensor) -> Tensor:
            return self.handed_on(name, values.get(name, value).to(value.dtype))

        learning.loss, graphs = self.run_units(
            batch, learning, inputs=inferred.inputs, values=go_on
        )
        learning.outputs = {name: output.detach() for name, output in graphs.outputs.items()}
        return learning, graphs
