"""A piece of the probe, and what can be asked of a module on it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from lit_credit.callbacks.base.points import gradients_of
from lit_credit.inspect.batch_loss import LossFunction, own_batch_loss
from lit_credit.inspect.capture import Point, capture
from lit_credit.inspect.contexts import NO_CONTEXTS, Contexts, run_contexts
from lit_credit.inspect.exact_backward import exact_backward
from lit_credit.inspect.probe.layout import Layout
from lit_credit.inspect.probe.rows import first_rows
from lit_credit.inspect.state.guard import isolated
from lit_credit.protocols import ModuleProtocol, is_rule
from lit_credit.utils.nested import has_fractions

__all__ = ["Chunk", "Gradients", "unfrozen"]

Gradients = dict[Point, tuple[Tensor, Tensor]]
"""The value at each point, and the gradient there."""


@dataclass(frozen=True, eq=False)
class Chunk:
    """Rows of the probe, in the form of a batch, or contexts, and the module that is measured.

    The probe's loss is the mean over its rows, and passes in chunks so that memory stays bounded.
    What a chunk gives is its part of it: summed over chunks, losses and gradients are those of the
    whole probe.

    Attributes:
        module: the module.
        batch: the rows, as the module receives a batch; None of a diagnostic that needs no data.
        rows: how many rows.
        share: ``rows`` over those of the whole probe.
        given: the diagnostic's ``loss``, a function of (module, batch); None asks the module.
        index: the ``batch_idx`` that the module's ``training_step`` gets.
        contexts: of a :class:`lit_credit.callbacks.ContextDiagnostic`, some of the datamodule's
            contexts in place of a batch.
        layout: what of the batch has one entry a row; None asks the batch.
        passed: the points that were looked at so far, and whether a tensor passed them.
    """

    module: LightningModule
    batch: Any = None
    rows: int = 1
    share: float = 1.0
    given: LossFunction | None = None
    index: int = 0
    contexts: Contexts = NO_CONTEXTS
    layout: Layout | None = None
    passed: dict[Point, bool] = field(default_factory=dict)

    def loss(self) -> Tensor:
        """The loss on these rows, times ``share``: a scalar with a graph, which leaves no trace.

        It is that of the diagnostic's ``loss`` if there is one; else ``module.batch_loss(batch)``
        where it exists, as in lit_credit's rules; else what ``training_step`` returns. Random
        numbers are the same ones at every call.

        Raises:
            MisconfigurationException: if it is not a scalar, or training cannot be run for it.
        """
        with isolated(self.module):
            return self._loss()

    def _loss(self) -> Tensor:
        return self._part(own_batch_loss(self.module, self.batch, self.index, self.given))

    def surrogate(self) -> Tensor:
        """The scalar whose gradient is the module's own update, times ``share``.

        That is the surrogate of a rule, and the loss of any other module. Random numbers are those
        of :meth:`loss`.
        """
        with isolated(self.module):
            return self._surrogate()

    def _surrogate(self) -> Tensor:
        module = self.module
        return self._part(module.surrogate(self.batch)[1]) if is_rule(module) else self._loss()

    def values(self, points: Sequence[Point]) -> dict[Point, Tensor]:
        """What passes each point, outside of any graph; see :meth:`gradients`."""
        with torch.no_grad(), capture(self.module, points) as values:
            self.loss()
        return self._completed(points, values)

    def gradients(self, points: Sequence[Point]) -> Gradients:
        """The value at each point and the true gradient of the probe's loss there.

        The gradient is zero where none arrives, and NaN where the module runs the point without
        autograd, as in ``with torch.no_grad()``. The input of an embedding, whole numbers, is left
        out if the embedding's output is a point too. A point that is not passed, as at an expert
        that has nothing to do, has no rows: value and gradient are empty.
        """
        module = self.module
        with (
            exact_backward(module),
            unfrozen(module),
            capture(module, points) as values,
            isolated(module),
        ):
            loss = self._loss()
            passed = self._completed(points, values)
            found = [point for point, value in passed.items() if value.requires_grad]
            tensors = [passed[point] for point in found]
            gradients = dict(zip(found, gradients_of(loss, tensors), strict=True))
        return {
            point: (value.detach(), gradients.get(point, torch.full_like(value, torch.nan)))
            for point, value in passed.items()
        }

    def parameter_gradients(
        self, parameters: Sequence[Tensor], *, exact: bool = False
    ) -> list[Tensor]:
        """This chunk's part of the module's own update, or of the true gradient of the loss.

        Args:
            parameters: of the module; one that has no gradient gets zeros.
            exact: of the loss, through the true weights.
        """
        module = self.module
        with exact_backward(module) if exact else nullcontext(), isolated(module):
            return gradients_of(self._loss() if exact else self._surrogate(), parameters)

    def credit(self) -> dict[str, Tensor]:
        """The credit a_l (N, ...) that the output of each unit that ran receives, by its name.

        Of a module with ``credit(batch)``, as all rules of lit_credit; random numbers are those of
        :meth:`loss`.
        """
        with isolated(self.module):
            found = cast(ModuleProtocol, self.module).credit(self.batch)
        return {name: self._part(credit) for name, credit in found.items()}

    def logits(self, point: Point | None = None) -> tuple[Tensor, Tensor | None]:
        """Logits (M, N) after these contexts, and what passed a point on the way, (M, d).

        See :func:`lit_credit.inspect.contexts.run_contexts`.
        """
        with isolated(self.module):
            return run_contexts(self.module, self.contexts, point)

    def few(self, count: int = 4) -> "Chunk":
        """The first rows, or contexts, as a probe of their own; all if rows are not known."""
        contexts = Contexts(*(part[:count] for part in self.contexts))
        batch, rows = first_rows(self.batch, count, self.layout), min(count, self.rows)
        return replace(self, batch=batch, contexts=contexts, rows=rows, share=1.0)

    def on(self, batch: Any) -> "Chunk":
        """The same with another batch in place of these rows."""
        return replace(self, batch=batch)

    def _completed(
        self, points: Sequence[Point], values: Mapping[Point, Tensor]
    ) -> dict[Point, Tensor]:
        """The values of the points in their order, with no rows at one that was not passed."""
        ran = {point.module for point in values if point.side == "output"}
        due = [point for point in points if point in values or point.module not in ran]
        for point in due:
            self.passed[point] = self.passed.get(point, False) or point in values
        nothing = torch.empty(0, 1, device=self.module.device)
        return {point: values.get(point, nothing) for point in due}

    def _part(self, value: Tensor) -> Tensor:
        return value if self.share == 1.0 else value * self.share


@contextmanager
def unfrozen(module: nn.Module) -> Iterator[None]:
    """Let frozen parameters require a gradient inside of the ``with``.

    So the graph reaches back to where a frozen front begins, with all paths around its submodules.
    """
    frozen = [p for p in module.parameters() if not p.requires_grad and has_fractions(p)]
    try:
        for parameter in frozen:
            parameter.requires_grad_(True)
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
