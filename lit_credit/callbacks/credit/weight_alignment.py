"""Angles between weights and their feedback matrices."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from matplotlib.figure import Figure

from lit_credit.callbacks.base.chunk import Chunk
from lit_credit.callbacks.base.diagnostic import Diagnostic
from lit_credit.callbacks.base.failures import missing
from lit_credit.functional import norm_ratio, weight_angle
from lit_credit.headlines import Headline
from lit_credit.inspect.probe.probe import take_probe
from lit_credit.plotting import Level, layer_curves
from lit_credit.protocols import FeedbackPairProtocol, ModuleProtocol, method
from lit_credit.runs.history import Row

__all__ = ["WeightAlignment"]

_ROWS = 4
_REMEDY = "Leave this callback out, or train with a rule such as FA."


class WeightAlignment(Diagnostic):
    """Do the weights turn toward their feedback? Angle and norm ratio of W and B, layer by layer.

    From a module with ``feedback_matrices()``, for every matrix that replaces a weight:

    - ``weight/angle/<name>``: the angle between W and B as vectors, in degrees; 90 is unrelated;
    - ``weight/ratio/<name>``: ``|B|_F / |W|_F``.

    Costs a pass over the weights; a forward pass only if the matrices are not drawn yet. See
    :class:`lit_credit.callbacks.Diagnostic` for the arguments.

    Raises:
        MisconfigurationException: if the module has no ``feedback_matrices``, or none of its
            matrices replaces a weight.

    Reference:
        Lillicrap, Cownden, Tweed, Akerman, Random synaptic feedback weights support error
        backpropagation for deep learning, 2016, doi:10.1038/ncomms13276, figure 1.
    """

    name = "weight_alignment"
    section = "weight"
    charts = ("angle", "ratio")
    headline = (
        Headline(
            "weight_angle",
            "angle",
            layers="mean",
            form=".1f",
            better="down",
            unit="deg",
        ),
    )

    def prepare(self, trainer: Trainer, module: LightningModule) -> None:
        """Check that there are matrices."""
        found = _matrices(module)
        # An empty dict comes from a rule that draws its matrices at the first batch.
        if found is None or (found and all(pair.weight is None for pair in found.values())):
            raise missing(self, module, "feedback matrices (`feedback_matrices()`)", _REMEDY)

    def begin(self, trainer: Trainer, module: LightningModule) -> None:
        """Take a few rows if the module has not drawn its matrices yet."""
        drawn = _matrices(module)
        self._few: Any = None if drawn else take_probe(trainer, module, _ROWS).chunks[0]

    def chunks(self, module: LightningModule) -> Iterable[Chunk]:
        """One chunk of the module, with rows if its matrices must be drawn first."""
        return [Chunk(module, self._few)]

    def update(self, chunk: Chunk) -> None:
        """Compute angles and ratios."""
        module = chunk.module
        matrices = _matrices(module)
        if not matrices and (draw := method(module, ModuleProtocol.credit)) is not None:
            # Some rules draw their matrices at the first batch, which is still to come.
            draw(chunk.batch)
            matrices = _matrices(module)
        self._values: dict[str, float] = {}
        values = self._values
        for name, pair in (matrices or {}).items():
            if pair.weight is not None:
                tag = name.removeprefix("net.")
                values[f"angle/{tag}"] = float(weight_angle(pair.weight, pair.feedback))
                values[f"ratio/{tag}"] = float(norm_ratio(pair.weight, pair.feedback))
        if not values:
            raise missing(self, module, "a feedback matrix that stands for a weight", _REMEDY)

    def compute(self) -> dict[str, float]:
        """``angle/<name>`` and ``ratio/<name>``."""
        return self._values

    def draw(self, rows: Sequence[Row], section: str) -> Figure | None:
        """Angles over epochs, one curve per matrix."""
        return layer_curves(
            rows,
            f"{section}/angle/",
            ylabel="angle of W and B (degrees)",
            title="Weights against feedback",
            log=False,
            reach=(0.0, 90.0),
            levels=[Level(90.0, "unrelated")],
        )


def _matrices(module: LightningModule) -> Mapping[str, FeedbackPairProtocol] | None:
    """The module's matrices that are drawn so far; None if the module does not have any."""
    matrices = method(module, ModuleProtocol.feedback_matrices)
    return None if matrices is None else matrices()
