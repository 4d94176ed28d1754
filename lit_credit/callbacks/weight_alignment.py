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


class WeightAlignment(ScheduledDiagnostic):
    """Do the weights turn toward their feedback? Angle and norm ratio of W and B, layer by layer.

    From a module with ``feedback_matrices()``, for every matrix that stands for a weight:

    - ``weight/angle/<name>``: the angle between W and B as vectors, in degrees; 90 is unrelated;
    - ``weight/ratio/<name>``: ``|B|_F / |W|_F``.

    Costs a pass over the weights and no forward. See
    :class:`lit_credit.callbacks.ScheduledDiagnostic` for the arguments; ``units`` and
    ``n_samples`` play no part.

    Raises:
        MisconfigurationException: if the module has no ``feedback_matrices``, or its rule has none.

    Reference:
        Lillicrap, Cownden, Tweed, Akerman, Random synaptic feedback weights support error
        backpropagation for deep learning, 2016, doi:10.1038/ncomms13276, figure 1.
    """

    name = "weight_alignment"
    section = "weight"
    charts = ("angle", "ratio")

    def prepare(self, trainer: Trainer, module: LightningModule) -> None:
        """Check that there are matrices."""
        matrices = getattr(module, "feedback_matrices", None)
        if not callable(matrices) or matrices() is None:
            remedy = "Leave this callback out, or train with a rule such as FA."
            raise missing(self, module, "feedback matrices (`feedback_matrices()`)", remedy)

    def measure(self, module: LightningModule, batch: Any) -> dict[str, float]:
        """``angle/<name>`` and ``ratio/<name>``."""
        values = {}
        for name, pair in module.feedback_matrices().items():  # type: ignore[operator]
            if pair.weight is not None:
                tag = name.removeprefix("net.")
                values[f"angle/{tag}"] = float(weight_angle(pair.weight, pair.feedback))
                values[f"ratio/{tag}"] = float(norm_ratio(pair.weight, pair.feedback))
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
