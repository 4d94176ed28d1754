"""Norms of the residual stream."""

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from matplotlib.figure import Figure

from lit_credit.callbacks.points import check_passed, layer_tag, stream_points
from lit_credit.callbacks.scheduled import ScheduledDiagnostic
from lit_credit.functional import sample_norms
from lit_credit.plotting import layer_curves
from lit_credit.utils.batch_loss import batch_loss
from lit_credit.utils.capture import capture
from lit_credit.utils.history import Row

__all__ = ["ResidualNorms"]


class ResidualNorms(ScheduledDiagnostic):
    """How large the residual stream is, layer by layer: ``median_n |h_l(x_n)|_2``.

    Logs ``residual/norm/L00`` .. ``L<L>``: h_l is the input of block l, h_L that of the readout.
    On a module that declares no ``residual_stream`` they are the inputs of the units and the
    output of the last.

    Costs one forward on ``n_samples`` rows. See
    :class:`lit_credit.callbacks.ScheduledDiagnostic` for the arguments.

    Raises:
        MisconfigurationException: if the module declares no units and none are given.

    Example::

        trainer = Trainer(callbacks=[ResidualNorms(units=["encoder.layers.*"])])
    """

    name = "residual_norms"
    section = "residual"
    charts = ("norm",)

    def prepare(self, trainer: Trainer, module: LightningModule) -> None:
        """Find the stream."""
        self.points = stream_points(self, module, self.units)

    def measure(self, module: LightningModule, batch: Any) -> dict[str, float]:
        """``norm/L..``: the median over samples."""
        with torch.no_grad(), capture(module, self.points) as values:
            batch_loss(module, batch)
        return {
            f"norm/{layer_tag(index)}": float(sample_norms(h).median())
            for index, h in enumerate(check_passed(self.points, values).values())
        }

    def draw(self, rows: Sequence[Row], section: str) -> Figure | None:
        """Norms over epochs, one curve a layer."""
        return layer_curves(
            rows,
            f"{section}/norm/",
            ylabel=r"median $\|h_l\|_2$ over the probe",
            title="Size of the residual stream",
        )
