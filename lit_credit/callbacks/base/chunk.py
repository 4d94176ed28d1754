"""A chunk of the probe, with the losses, gradients and credits of a module on it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from lit_credit.callbacks.base.points import gradients_of
from lit_credit.inspect.batch_loss import LossFunction, own_batch_loss
from lit_credit.inspect.capture import Captured, Point, capture
from lit_credit.inspect.contexts import NO_CONTEXTS, Contexts, run_contexts
from lit_credit.inspect.exact_backward import exact_backward
from lit_credit.inspect.probe.layout import Layout
from lit_credit.inspect.probe.rows import cut_rows, first_rows
from lit_credit.inspect.second_order import twice_differentiable
from lit_credit.inspect.state.guard import isolated
from lit_credit.protocols import ModuleProtocol, is_rule, method
from lit_credit.utils.nested import cloned, has_fractions

__all__ = ["Chunk", "Gradients", "unfrozen"]

Gradients = dict[Point, tuple[Tensor, Tensor]]
"""The value at each point, and the gradient there."""


@dataclass(frozen=True, eq=False)
class Chunk:
    """The measured module, with rows of the probe as a batch, or with contexts.

    The loss of the probe is the mean over its rows. The probe passes in chunks, so that memory
    stays bounded. Each chunk returns its part: summed over chunks, losses and gradients are those
    of the whole probe.

    Attributes:
        module: the module.
        batch: the rows, as the module receives a batch; None if the diagnostic needs no data.
        rows: the number of rows.
        share: ``rows`` divided by the rows of the whole probe.
        given: the diagnostic's ``loss``, a function of (module, batch); None asks the module.
        index: the ``batch_idx`` that the module's ``training_step`` gets.
        contexts: some of the datamodule's contexts in place of a batch, for a
            :class:`lit_credit.callbacks.ContextDiagnostic`.
        layout: which parts of the batch have one entry per row; None asks the batch.
        passed: the points asked for so far, and whether a tensor passed each of them.
        repeated: points that a forward pass passed several times.
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
    repeated: set[Point] = field(default_factory=set)

    def loss(self) -> Tensor:
        """The loss on these rows, times ``share``: a scalar with a graph.

        The loss is the diagnostic's ``loss`` if given; else ``module.batch_loss(batch)`` if it
        exists, as in lit_credit's rules; else what ``training_step`` returns. Every call draws the
        same random numbers, and leaves the module unchanged.

        Raises:
            MisconfigurationException: if the loss is not a scalar, or ``training_step`` cannot be
                run for it.
        """
        with isolated(self.module):
            return self._loss()

    def _loss(self) -> Tensor:
        return self._part(own_batch_loss(self.module, self.batch, self.index, self.given))

    def forward(self) -> None:
        """Run the module on the rows, for hooks that record what passes.

        Runs ``given(module, batch)`` if ``given``; else ``module.run_batch(batch)`` if it exists;
        else :meth:`loss`. Random numbers are those of :meth:`loss`.
        """
        run = method(self.module, ModuleProtocol.run_batch)
        if self.given is not None or run is None:
            self.loss()
            return
        with isolated(self.module):
            run(cloned(self.batch))

    def surrogate(self) -> Tensor:
        """The scalar whose gradient is the module's own update, times ``share``.

        This is the surrogate of a rule, and the loss of any other module. Random numbers are those
        of :meth:`loss`.
        """
        with isolated(self.module):
            return self._surrogate()

    def _surrogate(self) -> Tensor:
        module = self.module
        return self._part(module.surrogate(self.batch)[1]) if is_rule(module) else self._loss()

    def values(self, points: Sequence[Point]) -> dict[Point, Tensor]:
        """The value at each point, without a graph; see :meth:`gradients`."""
        with torch.no_grad(), capture(self.module, points) as values:
            self.forward()
        return self._completed(points, values)

    def changed_loss(self, point: Point, change: Callable[[Tensor], Tensor]) -> Tensor:
        """:meth:`loss` with the value at a point replaced by a function of it, without a graph.

        Args:
            point: the input or output of a submodule.
            change: maps the value to a new tensor of its shape.
        """
        with torch.no_grad(), capture(self.module, [point], change):
            return self.loss()

    def gradients(
        self,
        points: Sequence[Point],
        *,
        exact: bool = True,
        changes: Mapping[Point, Callable[[Tensor], Tensor]] | None = None,
    ) -> Gradients:
        """The value at each point and the true gradient of the probe's loss there.

        The gradient is zero if none arrives, and NaN if the module runs the point without autograd,
        as in ``with torch.no_grad()``. The input of an embedding (whole numbers) is left out if
        the embedding's output is a point too. A point that is not passed, such as an expert without
        tokens, has no rows: value and gradient are empty.

        Args:
            points: inputs and outputs of submodules.
            exact: False returns what the module's own backward delivers, which differs from the
                true gradient where layers have a feedback backward.
            changes: for some points, a function that maps the value to what the net goes on with.
                The value is returned as it was, the gradient is the one after the change.
        """
        module = self.module
        with (
            exact_backward(module) if exact else nullcontext(),
            unfrozen(module),
            capture(module, points, changes or {}) as values,
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
            parameters: parameters of the module; one without a gradient gets zeros.
            exact: return the true gradient of the loss, through the true weights.
        """
        module = self.module
        with exact_backward(module) if exact else nullcontext(), isolated(module):
            return gradients_of(self._loss() if exact else self._surrogate(), parameters)

    @contextmanager
    def graph(self, points: Sequence[Point] = ()) -> Iterator[tuple[Tensor, dict[Point, Tensor]]]:
        """The loss times ``share``, and the values at points, with a graph for second derivatives.

        The backward pass is the true one. Differentiate by parameters, points or both inside the
        ``with``. A point that is not passed has no value.

        Args:
            points: see :func:`lit_credit.inspect.capture.capture`.
        """
        module = self.module
        with (
            exact_backward(module),
            twice_differentiable(module),
            capture(module, points) as values,
            isolated(module),
        ):
            yield self._loss(), values

    def credit(self) -> dict[str, Tensor]:
        """The credit a_l (N, ...) that the output of each unit that ran receives, by its name.

        The module must have ``credit(batch)``, as all rules of lit_credit have. Random numbers are
        those of :meth:`loss`.
        """
        with isolated(self.module):
            found = cast(ModuleProtocol, self.module).credit(self.batch)
        return {name: self._part(credit) for name, credit in found.items()}

    def logits(self, point: Point | None = None) -> tuple[Tensor, Tensor | None]:
        """Logits (M, N) after these contexts, and the value (M, d) at a point on the way.

        See :func:`lit_credit.inspect.contexts.run_contexts`.
        """
        with isolated(self.module):
            return run_contexts(self.module, self.contexts, point)

    def few(self, count: int = 4) -> "Chunk":
        """The first rows, or contexts, as a smaller probe; all of them if rows are not known."""
        contexts = Contexts(*(part[:count] for part in self.contexts))
        batch, rows = first_rows(self.batch, count, self.layout), min(count, self.rows)
        return replace(self, batch=batch, contexts=contexts, rows=rows, share=1.0)

    def part(self, start: int, stop: int) -> "Chunk":
        """Some rows as a smaller probe; the chunk itself if these are all its rows.

        Raises:
            UnknownRows: if the rows of the batch are not known.
        """
        if (start, stop) == (0, self.rows):
            return replace(self, share=1.0)
        batch = cut_rows(self.batch, start, stop, self.layout)
        return replace(self, batch=batch, rows=stop - start, share=1.0)

    def on(self, batch: Any) -> "Chunk":
        """The same chunk with another batch in place of its rows."""
        return replace(self, batch=batch)

    def _completed(self, points: Sequence[Point], values: Captured) -> dict[Point, Tensor]:
        """The values of the points in their order, without rows at a point that was not passed."""
        ran = {point.module for point in values if point.side == "output"}
        due = [point for point in points if point in values or point.module not in ran]
        for point in due:
            self.passed[point] = self.passed.get(point, False) or point in values
        self.repeated.update(values.repeated)
        nothing = torch.empty(0, 1, device=self.module.device)
        return {point: values.get(point, nothing) for point in due}

    def _part(self, value: Tensor) -> Tensor:
        return value if self.share == 1.0 else value * self.share


@contextmanager
def unfrozen(module: nn.Module) -> Iterator[None]:
    """Let frozen parameters require a gradient inside the ``with``.

    The graph then reaches back through frozen first layers, with all paths around submodules.
    """
    frozen = [p for p in module.parameters() if not p.requires_grad and has_fractions(p)]
    try:
        for parameter in frozen:
            parameter.requires_grad_(True)
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
