"""Angles between a rule's credit and the exact gradient."""

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from matplotlib.figure import Figure
from torch import Tensor

from lit_credit.callbacks.points import (
    exact_gradients,
    gradients_of,
    layer_tag,
    own_scalar,
    unit_names,
)
from lit_credit.callbacks.samples import over_samples
from lit_credit.callbacks.scheduled import ScheduledDiagnostic, missing
from lit_credit.functional import gradient_cosine
from lit_credit.plotting import layer_curves, parameter_bars
from lit_credit.utils.batch_loss import batch_loss
from lit_credit.utils.capture import Point
from lit_credit.utils.compiled import clean_name
from lit_credit.utils.exact_backward import exact_backward
from lit_credit.utils.history import Row
from lit_credit.utils.probing import preserved_rng
from lit_credit.utils.short_text import choice

__all__ = ["CreditAlignment"]


class CreditAlignment(ScheduledDiagnostic):
    """Does the credit point where the gradient points? ``mean_n cos(a_l(x_n), dL/df_l(x_n))``.

    From a module with ``credit(batch)`` (every rule of lit_credit has it), per unit in forward
    order:

    - ``credit/cosine/L00`` ..: against the exact gradient at the unit's output, where the update
      uses the credit; ``credit/cosine_sd/L00`` is its spread over samples;
    - ``credit/cosine_input/L00`` ..: against the exact gradient at the unit's input, the convention
      of earlier work; only for units whose input and output have one shape.

    From any module, per parameter:

    - ``credit/update/<parameter>``: cosine of the gradient that the rule hands to the optimizer
      with the exact one. On a foreign module this is its own backward, which differs from the
      exact one where layers have a feedback backward.

    The cosine of a vanished or infinite gradient is undefined. Means and spread are over the
    samples where it is defined, and NaN where it is for none; that of a parameter without a
    gradient is NaN. NaN shows as a gap. Costs two to four forwards and backwards on ``n_samples``
    rows. See :class:`lit_credit.callbacks.ScheduledDiagnostic` for the arguments.

    Args:
        *args: see :class:`lit_credit.callbacks.ScheduledDiagnostic`.
        parameters: also compare updates parameter by parameter.
        **kwargs: see :class:`lit_credit.callbacks.ScheduledDiagnostic`.

    Raises:
        ValueError: if one of ``units`` receives no credit.
        MisconfigurationException: if the module declares no units and none are given, or if it has
            no ``credit(batch)`` and ``parameters`` is False, so that nothing is left to compare.
    """

    name = "credit_alignment"
    section = "credit"
    charts = ("cosine", "cosine_input")
    options = ("parameters",)

    def __init__(self, *args: Any, parameters: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.parameters = parameters

    def prepare(self, trainer: Trainer, module: LightningModule) -> None:
        """Find the units, where the module has credit to compare."""
        self.has_credit = callable(getattr(module, "credit", None))
        if not self.has_credit and not self.parameters:
            remedy = "Leave `parameters` at True, or this callback out."
            raise missing(self, module, "`credit(batch)`", remedy)
        self.names = unit_names(self, module, self.units) if self.has_credit else []

    def measure(self, module: LightningModule, batch: Any) -> dict[str, float]:
        """``cosine/L..``, ``cosine_sd/L..``, ``cosine_input/L..`` and ``update/<parameter>``."""
        values = self._credit_cosines(module, batch) if self.has_credit else {}
        if self.parameters:
            values |= self._update_cosines(module, batch)
        return values

    def _credit_cosines(self, module: LightningModule, batch: Any) -> dict[str, float]:
        # The same random numbers for the credit and, in `batch_loss`, for the gradient.
        with preserved_rng():
            credit: dict[str, Tensor] = module.credit(batch)  # type: ignore[operator]
        self._check_credited(credit)
        points = [Point(name, side) for name in self.names for side in ("input", "output")]
        exact = exact_gradients(module, batch, points)
        values: dict[str, float] = {}
        for index, name in enumerate(self.names):
            a, layer = credit[name], layer_tag(index)
            over = over_samples(gradient_cosine(a, exact[Point(name, "output")][1]))
            values[f"cosine/{layer}"] = over.mean
            values[f"cosine_sd/{layer}"] = over.sd
            _, g = exact.get(Point(name, "input"), (None, None))
            if g is not None and g.shape == a.shape:
                values[f"cosine_input/{layer}"] = over_samples(gradient_cosine(a, g)).mean
        return values

    def _check_credited(self, credit: dict[str, Tensor]) -> None:
        without = [name for name in self.names if name not in credit]
        if without:
            raise ValueError(
                f"`units`: {choice(without)} receive no credit. Choose from: "
                f"{choice(credit, without[0])}."
            )

    def _update_cosines(self, module: LightningModule, batch: Any) -> dict[str, float]:
        named = {n: p for n, p in module.named_parameters() if p.requires_grad}
        parameters = list(named.values())
        own = gradients_of(own_scalar(module, batch), parameters)
        with exact_backward(module):
            exact = gradients_of(batch_loss(module, batch), parameters)
        return {
            f"update/{clean_name(name).removeprefix('net.')}": float(
                gradient_cosine(a.reshape(1, -1), b.reshape(1, -1))
            )
            for name, a, b in zip(named, own, exact, strict=True)
        }

    def draw(self, rows: Sequence[Row], section: str) -> Figure | None:
        """Cosines over epochs, one curve a unit; without units, bars of the last updates."""
        if self.has_credit:
            return layer_curves(
                rows,
                f"{section}/cosine/",
                names=[name.removeprefix("net.") for name in self.names],
                ylabel="mean cosine over the probe",
                title="Credit against the exact gradient",
                log=False,
            )
        prefix = f"{section}/update/"
        last = {
            tag.removeprefix(prefix): value
            for tag, value in rows[-1]["values"].items()
            if tag.startswith(prefix)
        }
        return parameter_bars(last, xlabel="cosine", title="Update against the exact gradient")
