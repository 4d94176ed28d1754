"""Checking the exact gradient against float64: is it precise enough to be a reference?"""

from collections.abc import Sequence

import torch
from lightning.pytorch import LightningModule, Trainer
from matplotlib.figure import Figure

from lit_credit.callbacks.base.chunk import Chunk
from lit_credit.callbacks.base.points import layer_tag
from lit_credit.callbacks.base.stream import StreamDiagnostic
from lit_credit.callbacks.base.values import over_samples
from lit_credit.callbacks.credit.reference import DoubleReference
from lit_credit.headlines import Headline, Panel
from lit_credit.plotting import Level, layer_curves
from lit_credit.runs.history import Row

__all__ = ["ReferenceValidity"]

_EQUAL = 1e-16
"""Rounding of float64: a smaller distance cannot be told from zero."""
_LEVELS = (
    Level(1e-2, "limit: cosine 0.99", "above"),
    # Rounding every entry by a relative error up to u turns a vector by 1 - cos = u^2 / 6.
    Level(2.0**-16 / 6, "rounded to bfloat16"),
    Level(2.0**-48 / 6, "rounded to float32"),
)


class ReferenceValidity(StreamDiagnostic):
    """Is the reference of every cosine a gradient, or rounding noise? ``cos(g_32, g_64)``.

    The exact gradient at the points of :class:`lit_credit.callbacks.ResidualNorms` is computed in
    the precision of the module's weights (float32 under mixed precision) and again in float64. Logs
    ``reference/cosine/L00`` ..: mean over samples; ``reference/cosine_min/L00`` ..: the worst
    sample. Both use the samples where the cosine is defined. They are NaN if it is defined for no
    sample: the gradient has vanished, or overflowed.

    The float64 pass has weights, buffers and plain attributes in float64. Tensors that the module
    casts below float64 (``.float()``, ``.to(dtype)``, autocast) or makes below it (``torch.zeros``)
    are kept in float64 too. ``reference/share_below`` is the share of the float64 pass's operations
    that were still computed in lower precision, such as one that writes into a float32 tensor from
    outside the module. 0 means that the reference is float64; above 0 the cosines are too large. If
    an operation does not support float64, such as the grouped products of mixtures of experts, all
    values are NaN, and one line names the operation.

    Costs two forward and two backward passes on ``n_samples`` rows, half of them in float64, and a
    float64 copy of the weights. See :class:`lit_credit.callbacks.ProbeDiagnostic` for the
    arguments.

    Raises:
        MisconfigurationException: if no units are given or declared, and the net does not have
            exactly one stack of blocks; see :class:`lit_credit.callbacks.base.StreamDiagnostic`.

    Reference:
        Hao, Wan, Zhai, What Accuracy and Gradient Cosine Miss, 2026, arXiv 2606.21126.
    """

    name = "reference_validity"
    section = "reference"
    charts = ("cosine",)
    headline = (
        Headline(
            "reference_cosine",
            "cosine",
            layers="mean",
            form=".4f",
            better="up",
            panel=Panel("Measured gradient against float64", "cosine, mean over points"),
        ),
    )
    steps_of_a_batch = 4.0

    def prepare(self, trainer: Trainer, module: LightningModule) -> None:
        """Find the points of the residual stream."""
        super().prepare(trainer, module)
        self._reference = DoubleReference(self)

    def prove(self, chunk: Chunk) -> dict[str, float]:
        """Prove that no operation of the float64 pass is computed below float64."""
        return {**super().prove(chunk), **self._reference.prove(chunk, self.stream(chunk))}

    def update(self, chunk: Chunk) -> None:
        """The cosines of a chunk's samples."""
        reference = self._reference.compare(chunk, chunk.gradients(self.stream(chunk)))
        self.gathered.add("share_below", torch.tensor([reference.share_below]))
        for index, cosines in enumerate(reference.cosines):
            self.gathered.add(layer_tag(index), cosines)

    def compute(self) -> dict[str, float]:
        """``cosine/L..``, ``cosine_min/L..`` and ``share_below``."""
        of = dict(self.gathered.items())
        values = {"share_below": float(of.pop("share_below").max())}
        for layer, cosines in of.items():
            over = over_samples(cosines)
            values[f"cosine/{layer}"] = over.mean
            values[f"cosine_min/{layer}"] = over.min
        return values

    def draw(self, rows: Sequence[Row], section: str) -> Figure | None:
        """One minus the cosine over epochs; the title tells of operations below float64."""
        share = rows[-1]["values"].get(f"{section}/share_below", 0.0)  # older rows have none
        but = f" {share:.2g} of its operations are below float64" if share > 0 else ""
        return layer_curves(
            [_distances(row, f"{section}/cosine/") for row in rows],
            f"{section}/cosine/",
            ylabel="1 - cosine of the measured\nand the float64 gradient",
            title=f"Is the reference valid?{but}",
            reach=(_EQUAL, 1.0),
            levels=_LEVELS,
        )


def _distances(row: Row, prefix: str) -> Row:
    """The row with one minus the cosine in place of each cosine, at least float64's rounding."""
    values = row["values"]
    found = {
        t: max(1.0 - v, _EQUAL) if v == v else v for t, v in values.items() if t.startswith(prefix)
    }
    return {**row, "values": found}
