"""Does the credit do what a gradient does? Moves along it, and the loss."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from matplotlib.figure import Figure
from torch import Generator, Tensor

from lit_credit.callbacks.base.chunk import Chunk
from lit_credit.callbacks.base.credited import delivered_credit
from lit_credit.callbacks.base.points import layer_tag, point_text, unit_names
from lit_credit.callbacks.base.probe import ProbeDiagnostic
from lit_credit.callbacks.base.values import over_samples
from lit_credit.callbacks.credit.credit_function_figure import credit_function_figure
from lit_credit.functional import relative_step, sample_correlation, sample_products
from lit_credit.headlines import Headline, Panel
from lit_credit.inspect.batch_loss import LossFunction
from lit_credit.inspect.capture import Point
from lit_credit.runs.history import Row
from lit_credit.utils.ranges import check_range

__all__ = ["CreditFunction"]

_SMOOTH = 0.1
"""Relative error of the sum of the samples' changes up to which nothing is said."""


class CreditFunction(ProbeDiagnostic):
    r"""Does the credit do what a gradient does? The loss after a small move along the credit.

    A cosine compares two vectors; here the net answers. The output h_l of each unit, where the
    update uses the credit a_l, is moved for each sample of the probe, and the net runs on from
    there. Logs, for each unit in forward order:

    - ``function/nudging/L00`` ..: mean change of a sample's loss when h_l moves by
      ``-eta |h_l| a_l / |a_l|``; below 0 the credit lowers the loss;
    - ``function/nudging_exact/L00`` ..: the same along the exact gradient, the steepest descent;
    - ``function/nudging_random/L00`` ..: the same along random directions;
    - ``function/ratio/L00`` ..: ``nudging`` over ``nudging_exact``; 1 under backpropagation;
    - ``function/rho/L00`` ..: correlation over random directions d of the predicted change
      ``<a_l, d>`` with the change of the loss after the step ``eta |h_l| d / |d|``, per sample,
      then the mean; ``function/rho_sd/L00`` is its spread over samples. 1 under backpropagation,
      but for the curvature of the loss within ``eta``; about 0 for a random credit.

    The change of one sample's loss is taken from the loss of the whole batch, as
    ``<g(h + delta / 2), delta>``, where g is the exact gradient at the middle of the move. It
    equals the difference of two losses up to the third order in ``eta``. It needs only the scalar
    loss that any module has, it does not suffer from the rounding of that loss, and all samples
    move at once. It assumes that a sample's loss depends on no other sample: ``mode="train"`` with
    batch norms, or a contrastive loss, adds the effect of the others. The first row of the history
    holds the relative error of the sum of these changes against the difference of two losses. A
    large one is told: the backward of such a net is not the slope of its loss, as with a
    straight-through estimator.

    For nudging, one unit moves at a time. In random directions all units move at once, and each
    unit's part of the change is observed. Their directions are independent, so the other units add
    only noise of second order in ``eta`` to rho.

    If the module has no ``credit(batch)``, the credit is the gradient that its own backward
    delivers to the unit; without feedback layers this is the exact gradient. A rule that credits
    parameters, not units, has NaN for ``nudging``, ``ratio`` and ``rho``. A sample whose output,
    credit or gradient is zero or not finite is left out, and a unit without any other is NaN. Of a
    sequence, the whole sequence is one sample.

    Directions are drawn per sample from a generator of their own, the same in every measurement
    and for every ``chunk_size``; on another kind of device they are others. Costs, on
    ``n_samples`` rows, ``n_directions + 3`` forward and backward passes, and two for each unit, one
    if its credit is exact; a backward pass ends at the unit. Memory is that of a training step, and
    three times the units' outputs. With more than 16 units, loggers get minimum, median and maximum
    over units in place of each unit; the history has all numbers. See
    :class:`lit_credit.callbacks.ProbeDiagnostic` for the other arguments.

    Args:
        eta: length of a move, in units of the length of h_l; at most 1.
        n_directions: random directions for each sample and unit, from 3 to 1000. Without any
            relation rho has the standard deviation ``1 / sqrt(n_samples (n_directions - 1))``.

    Raises:
        ValueError: if ``eta`` or ``n_directions`` is out of its range; if one of ``units``
            receives no credit.
        MisconfigurationException: if the module declares no units and none are given.

    Reference:
        Hao, Wan, Zhai, What Accuracy and Gradient Cosine Miss: Evaluating Feedback Alignment via
        Scale Stability, Reference Validity, and Depth Utility, 2026, arXiv 2606.21126.
    """

    name = "credit_function"
    section = "function"
    charts = ("ratio", "rho", "nudging", "nudging_exact")
    default_n_samples = 256
    over_layers = ("min", "median", "max")
    options = ("eta", "n_directions")
    headline = (
        Headline(
            "nudging_ratio",
            "ratio",
            layers="mean",
            head="nudging / exact",
            form=".3f",
            order=21,
            better="up",
            panel=Panel(
                "Fall of the loss along the credit, over that along the gradient",
                "ratio, mean over units",
                reach=(0, 1),
                order=3,
            ),
        ),
        Headline("rho", layers="mean", form=".3f", order=22, better="up"),
    )

    def __init__(
        self,
        *,
        eta: float = 0.01,
        n_directions: int = 8,
        n_samples: int | None = None,
        chunk_size: int | None = None,
        units: list[str] | None = None,
        loss: LossFunction | None = None,
        probe: Literal["val", "train"] = "val",
        mode: Literal["eval", "train"] = "eval",
        every_n_epochs: int | None = None,
        every_n_steps: int | None = None,
        figure: bool = True,
    ) -> None:
        super().__init__(
            n_samples=n_samples,
            chunk_size=chunk_size,
            units=units,
            loss=loss,
            probe=probe,
            mode=mode,
            every_n_epochs=every_n_epochs,
            every_n_steps=every_n_steps,
            figure=figure,
        )
        check_range(above=0, most=1, eta=eta)
        check_range(3, 1000, n_directions=n_directions)
        self.eta = eta
        self.n_directions = n_directions

    def prepare(self, trainer: Trainer, module: LightningModule) -> None:
        """Find the units."""
        self.names = unit_names(self, module, self.units)
        self.points = [Point(name, "output") for name in self.names]
        self.layer_texts = list(map(point_text, self.points))
        self.steps_of_a_batch = 3 + self.n_directions + 1.2 * len(self.names)

    def prove(self, chunk: Chunk) -> dict[str, float]:
        """Compare the sum of the samples' changes with the change of the loss."""
        few = chunk.few()
        exact = few.gradients(self.points)
        error = max(self._error(few, point, h, g) for point, (h, g) in exact.items())
        if error > _SMOOTH:
            rank_zero_info(
                f"{type(self).__name__}: after a move the loss changes by {error:.0%} more or less "
                "than its gradient says, so `nudging` and `rho` tell of the gradient alone. "
                "Straight-through estimators do this, and too large an `eta`."
            )
        return {"the samples' changes add up to the change of the loss; relative error": error}

    def reset(self) -> None:
        """Forget what the chunks have brought, and draw the same directions again."""
        super().reset()
        self._generators: dict[tuple[int, int], Generator] = {}

    def update(self, chunk: Chunk) -> None:
        """The changes of the loss of a chunk's samples, unit by unit."""
        exact = chunk.gradients(self.points)
        credit = delivered_credit(chunk, self.points)
        nothing = {point.module: torch.full_like(g, torch.nan) for point, (_, g) in exact.items()}
        credit = {**nothing, **credit}
        for index, (point, (h, g)) in enumerate(exact.items()):
            layer, a = layer_tag(index), credit[point.module]
            steepest = self._nudging(chunk, point, h, g)
            self.gathered.add(f"nudging_exact/{layer}", steepest)
            own = steepest if torch.equal(a, g) else self._nudging(chunk, point, h, a)
            self.gathered.add(f"nudging/{layer}", own)
        self._try_directions(chunk, {point: h for point, (h, _) in exact.items()}, credit)

    def _nudging(self, chunk: Chunk, point: Point, h: Tensor, direction: Tensor) -> Tensor:
        step = relative_step(h, direction, -self.eta)
        return self._changes(chunk, {point: step})[point]

    def _try_directions(
        self, chunk: Chunk, values: Mapping[Point, Tensor], credit: Mapping[str, Tensor]
    ) -> None:
        """Correlate predicted and observed changes over random moves of all units at once."""
        predicted: dict[Point, list[Tensor]] = {point: [] for point in values}
        observed: dict[Point, list[Tensor]] = {point: [] for point in values}
        for trial in range(self.n_directions):
            steps = {
                point: relative_step(h, self._directions(index, trial, h), self.eta)
                for index, (point, h) in enumerate(values.items())
            }
            for point, change in self._changes(chunk, steps).items():
                observed[point].append(change)
                predicted[point].append(sample_products(credit[point.module], steps[point]).cpu())
        for index, point in enumerate(values):
            layer, changes = layer_tag(index), torch.stack(observed[point], 1)
            rho = sample_correlation(torch.stack(predicted[point], 1), changes)
            self.gathered.add(f"rho/{layer}", rho)
            self.gathered.add(f"nudging_random/{layer}", changes.mean(1))

    def compute(self) -> dict[str, float]:
        """``ratio/L..``, ``rho/L..``, ``rho_sd/L..`` and ``nudging/L..`` with its references."""
        values: dict[str, dict[str, float]] = {}
        for tag, found in self.gathered.items():
            quantity, layer = tag.split("/")
            over = over_samples(found)
            # Gradients are those of the mean over the probe: a sample has 1 / N of its own.
            mean = over.mean if quantity == "rho" else over.mean * len(found)
            values.setdefault(quantity, {})[layer] = mean
            if quantity == "rho":
                values.setdefault("rho_sd", {})[layer] = over.sd
        exact = values.get("nudging_exact", {})
        ratio = {layer: _over(x, exact[layer]) for layer, x in values.get("nudging", {}).items()}
        return {
            f"{quantity}/{layer}": value
            for quantity, of in {"ratio": ratio, "rho": values.pop("rho", {}), **values}.items()
            for layer, value in of.items()
        }

    def _directions(self, index: int, trial: int, h: Tensor) -> Tensor:
        """One direction per sample; drawn one by one, so that chunks do not matter."""
        key = (index, trial)
        if key not in self._generators:
            seed = index * self.n_directions + trial
            self._generators[key] = Generator(h.device).manual_seed(seed)
        dtype = torch.promote_types(h.dtype, torch.float32)
        drawn = torch.empty(h.shape, dtype=dtype, device=h.device)
        for row in drawn:
            row.normal_(generator=self._generators[key])
        return drawn

    def _changes(self, chunk: Chunk, steps: Mapping[Point, Tensor]) -> dict[Point, Tensor]:
        """The change (N,) of each sample's part of the loss by the step at each point, on the CPU.

        The moves are made together; those of a unit's samples count at the middle of all moves.
        """
        # A sample without a direction stays where it is.
        moves = {p: partial(_moved, step=(s / 2).nan_to_num(0.0)) for p, s in steps.items()}
        moved = chunk.gradients(list(steps), changes=moves)
        return {point: sample_products(moved[point][1], s).cpu() for point, s in steps.items()}

    def _error(self, chunk: Chunk, point: Point, h: Tensor, g: Tensor) -> float:
        """Relative error of the sum of the samples' changes along the exact gradient."""
        step = relative_step(h, g, -self.eta)
        expected = float(self._changes(chunk, {point: step})[point].nansum())
        if not expected:
            return 0.0
        whole = partial(_moved, step=step.nan_to_num(0.0))
        before = chunk.changed_loss(point, Tensor.clone)
        change = float(chunk.changed_loss(point, whole).double() - before.double())
        rounding = 8 * torch.finfo(before.dtype).eps * float(before.abs())
        return max(abs(change - expected) - rounding, 0.0) / abs(expected)

    def draw(self, rows: Sequence[Row], section: str) -> Figure | None:
        """Ratio and correlation over epochs, one curve per unit, beside those of the gradient."""
        return credit_function_figure(rows, section, [n.removeprefix("net.") for n in self.names])


def _moved(value: Tensor, step: Tensor) -> Tensor:
    return (value + step).to(value.dtype)


def _over(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
