"""Angles between a rule's credit and the exact gradient."""

from collections.abc import Sequence
from typing import Literal

from lightning.pytorch import LightningModule, Trainer
from matplotlib.figure import Figure
from torch import Tensor

from lit_credit.callbacks.base.chunk import Chunk
from lit_credit.callbacks.base.credited import check_credited
from lit_credit.callbacks.base.failures import missing
from lit_credit.callbacks.base.parameters import trained_parameters
from lit_credit.callbacks.base.points import (
    layer_tag,
    point_text,
    unit_names,
)
from lit_credit.callbacks.base.probe import ProbeDiagnostic
from lit_credit.callbacks.base.values import over_samples
from lit_credit.callbacks.credit.parameter_bars import parameter_bars
from lit_credit.functional import gradient_cosine
from lit_credit.headlines import Headline, Panel
from lit_credit.inspect.batch_loss import LossFunction
from lit_credit.inspect.capture import Point
from lit_credit.plotting import Level, layer_curves
from lit_credit.protocols import ModuleProtocol, method
from lit_credit.runs.history import Row
from lit_credit.utils.compiled import clean_name

__all__ = ["CreditAlignment"]


class CreditAlignment(ProbeDiagnostic):
    """Does the credit point where the gradient points? ``mean_n cos(a_l(x_n), dL/df_l(x_n))``.

    From a module with ``credit(batch)`` (every rule of lit_credit has it), for each unit in forward
    order:

    - ``credit/cosine/L00`` ..: cosine of the credit with the exact gradient at the unit's output,
      where the update uses the credit; ``credit/cosine_sd/L00`` is its spread over samples;
    - ``credit/cosine_input/L00`` ..: cosine with the exact gradient at the unit's input, the
      convention of earlier work; only for units whose input and output have the same shape.

    From any module, for each parameter:

    - ``credit/update/<parameter>``: cosine of the gradient that the optimizer gets with the exact
      gradient. If the module is not a rule, the former comes from its own backward, which differs
      from the exact one where layers have a feedback backward.

    The cosine of a vanished or infinite gradient is undefined. Means and spread use the samples
    where the cosine is defined, and are NaN if it is defined for no sample. The cosine of a
    parameter without a gradient is NaN. NaN shows as a gap. Costs two to four forward and backward
    passes on ``n_samples`` rows. See :class:`lit_credit.callbacks.ProbeDiagnostic` for the other
    arguments.

    Args:
        parameters: also compare updates parameter by parameter.

    Raises:
        ValueError: if one of ``units`` receives no credit.
        MisconfigurationException: if the module declares no units and none are given, or if it has
            no ``credit(batch)`` and ``parameters`` is False, so that nothing is left to compare.
    """

    name = "credit_alignment"
    section = "credit"
    charts = ("cosine", "cosine_input")
    steps_of_a_batch = 4.0
    options = ("parameters",)
    headline = (
        Headline(
            "cosine",
            layers="mean",
            form=".3f",
            order=20,
            better="up",
            panel=Panel(
                "Credit against the exact gradient",
                "cosine at outputs, mean over units",
                reach=(0, 1),
                order=2,
            ),
        ),
    )

    def __init__(
        self,
        *,
        parameters: bool = True,
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
        self.parameters = parameters

    def prepare(self, trainer: Trainer, module: LightningModule) -> None:
        """Find the units if the module has credit to compare."""
        self.has_credit = method(module, ModuleProtocol.credit) is not None
        self._check_compares(module)
        self.names = unit_names(self, module, self.units) if self.has_credit else []
        self.layer_texts = [point_text(Point(name, "output")) for name in self.names]

    def reset(self) -> None:
        """Forget what the chunks have brought."""
        super().reset()
        self._updates: dict[str, tuple[Tensor, Tensor]] = {}

    def update(self, chunk: Chunk) -> None:
        """Cosines of a chunk's samples, and its part of the parameters' gradients."""
        if self.has_credit:
            self._gather_credit(chunk)
        if self.parameters:
            self._add_updates(chunk)

    def compute(self) -> dict[str, float]:
        """``cosine/L..``, ``cosine_sd/L..``, ``cosine_input/L..`` and ``update/<parameter>``."""
        values: dict[str, float] = {}
        for tag, cosines in self.gathered.items():
            over = over_samples(cosines)
            values[tag] = over.mean
            if tag.startswith("cosine/"):
                values[f"cosine_sd/{tag.removeprefix('cosine/')}"] = over.sd
        names = {clean_name(name) for name in self._updates}
        for name, (own, exact) in self._updates.items():
            cosine = gradient_cosine(own.reshape(1, -1), exact.reshape(1, -1))
            full = clean_name(name)
            short = full.removeprefix("net.")  # unless a parameter outside of the net has it
            values[f"update/{full if short in names else short}"] = float(cosine)
        return values

    def _gather_credit(self, chunk: Chunk) -> None:
        credit = chunk.credit()
        points = [Point(name, side) for name in self.names for side in ("input", "output")]
        exact = chunk.gradients(points)
        if not credit and any(len(gradient) for _, gradient in exact.values()):
            self.has_credit = False  # the rule credits parameters, not units
            self._check_compares(chunk.module)
            return
        check_credited(chunk.module, self.names, credit)
        for index, name in enumerate(self.names):
            layer, (_, b) = layer_tag(index), exact[Point(name, "output")]
            a = credit.get(name, b.new_empty(0, 1))  # a unit that did not run: empty, like `b`
            cosine = gradient_cosine(a, b)
            self.gathered.add(f"cosine/{layer}", cosine)
            _, g = exact.get(Point(name, "input"), (None, None))
            if g is not None and g.shape == a.shape and len(g):
                self.gathered.add(f"cosine_input/{layer}", gradient_cosine(a, g))

    def _check_compares(self, module: LightningModule) -> None:
        if not self.has_credit and not self.parameters:
            remedy = "Leave `parameters` at True, or this callback out."
            raise missing(self, module, "`credit(batch)`", remedy)

    def _add_updates(self, chunk: Chunk) -> None:
        named = trained_parameters(chunk.module)
        parameters = list(named.values())
        own = chunk.parameter_gradients(parameters)
        exact = chunk.parameter_gradients(parameters, exact=True)
        for name, *pair in zip(named, own, exact, strict=True):
            before = self._updates.get(name)
            a, b = pair if before is None else (x + y for x, y in zip(before, pair, strict=True))
            self._updates[name] = a, b

    def draw(self, rows: Sequence[Row], section: str) -> Figure | None:
        """Cosines over epochs, one curve per unit; without credit, bars of the last updates."""
        if self.has_credit:
            return layer_curves(
                rows,
                f"{section}/cosine/",
                names=[name.removeprefix("net.") for name in self.names],
                ylabel="mean cosine over the probe",
                title="Credit against the exact gradient",
                log=False,
                levels=[Level(0.0, "unrelated"), Level(1.0, "the gradient")],
            )
        prefix = f"{section}/update/"
        last = {
            tag.removeprefix(prefix): value
            for tag, value in rows[-1]["values"].items()
            if tag.startswith(prefix)
        }
        return parameter_bars(last, xlabel="cosine", title="Update against the exact gradient")
