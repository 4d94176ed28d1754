"""Angles between weights and their feedback matrices."""

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from matplotlib.figure import Figure

from lit_credit.callbacks.scheduled import ScheduledDiagnostic, missing
from lit_credit.functional import norm_ratio, weight_angle
from lit_credit.plotting import layer_curves
from lit_credit.utils.history import Row

__all__ = ["WeightAlignment"]

_REMEDY = "Leave this callback out, or train with a rule such as FA."


class WeightAlignment(ScheduledDiagnostic):
    """Do the weights turn toward their feedback? Angle and norm ratio of W and B, layer by layer.

    From a module with ``feedback_matrices()``, for every matrix that stands for a weight:

    - ``weight/angle/<name>``: the angle between W and B as vectors, in degrees; 90 is unrelated;
    - ``weight/ratio/<name>``: ``|B|_F / |W|_F``.

    Costs a pass over the weights; a forward only where the matrices are not drawn yet. See
    :class:`lit_credit.callbacks.ScheduledDiagnostic` for the arguments; ``units`` and
    ``loss`` have no meaning here.

    Raises:
        MisconfigurationException: if the module has no ``feedback_matrices``, or its rule has none
            that stands for a weight.

    Reference:
        Lillicrap, Cownden, Tweed, Akerman, Random synaptic feedback weights support error
        backpropagation for deep learning, 2016, doi:10.1038/ncomms13276, figure 1.
    """

    name = "weight_alignment"
    section = "weight"
    charts = ("angle", "ratio")
    uses_loss = False
    uses_units = False

    def prepare(self, trainer: Trainer, module: LightningModule) -> None:
        """Check that there are matrices."""
        matrices = getattr(module, "feedback_matrices", None)
        found = matrices() if callable(matrices) else None
        # An empty dict is of a rule that draws at the first batch.
        if found is None or (found and all(pair.weight is None for pair in found.values())):
            raise missing(self, module, "feedback matrices (`feedback_matrices()`)", _REMEDY)

    def measure(self, module: LightningModule, batch: Any) -> dict[str, float]:
        """``angle/<name>`` and ``ratio/<name>``."""
        matrices = module.feedback_matrices()  # type: ignore[operator]
        if not matrices and callable(draw := getattr(module, "credit", None)):
            # Some rules draw their matrices at the first batch, and this is before it.
            draw(batch)
            matrices = module.feedback_matrices()  # type: ignore[operator]
        values = {}
        for name, pair in matrices.items():
            if pair.weight is not None:
                tag = name.removeprefix("net.")
                values[f"angle/{tag}"] = float(weight_angle(pair.weight, pair.feedback))
                values[f"ratio/{tag}"] = float(norm_ratio(pair.weight, pair.feedback))
        if not values:
            raise missing(self, module, "a feedback matrix that stands for a weight", _REMEDY)
        return values

    def draw(self, rows: Sequence[Row], section: str) -> Figure | None:
        """Angles over epochs, one curve a matrix."""
        return layer_curves(
            rows,
            f"{section}/angle/",
            ylabel="angle of W and B (degrees)",
            title="Weights against feedback",
            log=False,
        )
