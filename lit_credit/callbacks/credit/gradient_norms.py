"""Norms of the exact gradient along the residual stream."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from torch import Tensor

from lit_credit.callbacks.base.chunk import Chunk
from lit_credit.callbacks.base.points import layer_tag
from lit_credit.callbacks.base.stream import StreamDiagnostic
from lit_credit.functional import frobenius_norm, sample_norms
from lit_credit.headlines import Headline, Panel
from lit_credit.plotting import layer_curves
from lit_credit.runs.history import Row

__all__ = ["GradientNorms"]


class GradientNorms(StreamDiagnostic):
    """The size of the gradient that backpropagation would deliver to each layer: ``|dL/dh_l|``.

    L is the module's loss, a mean over the ``n_samples`` rows of the probe. Norms scale with
    1/n_samples, so compare runs with equal ``n_samples``. The gradient is exact under every rule.
    Logs, for the points h_0 .. h_L of :class:`lit_credit.callbacks.ResidualNorms`:

    - ``gradient/norm/L00`` ..: the median over samples of the L2 norm;
    - ``gradient/frobenius/L00`` ..: the norm over the whole probe.

    Costs one forward and one backward pass on ``n_samples`` rows. See
    :class:`lit_credit.callbacks.ProbeDiagnostic` for the arguments.

    Raises:
        MisconfigurationException: if no units are given or declared, and the net does not have
            exactly one stack of blocks; see :class:`lit_credit.callbacks.base.StreamDiagnostic`.
    """

    name = "gradient_norms"
    section = "gradient"
    charts = ("norm", "frobenius")
    headline = (
        Headline(
            "g",
            "norm",
            layers="last",
            head="|g_L|",
            order=50,
            start=True,
            panel=Panel(
                r"Exact gradient there, $|g_L|$, $g_L = \partial \mathcal{L} / \partial h_L$",
                "L2 norm, median over samples",
                log=True,
                order=1,
            ),
        ),
    )

    def update(self, chunk: Chunk) -> None:
        """The norms of a chunk's samples, and over the chunk."""
        for index, (_, g) in enumerate(chunk.gradients(self.stream(chunk)).values()):
            self.gathered.add(f"norm/{layer_tag(index)}", sample_norms(g))
            total = frobenius_norm(g)[None] if len(g) else sample_norms(g)  # no rows, no norm
            self.gathered.add(f"frobenius/{layer_tag(index)}", total)

    def compute(self) -> dict[str, float]:
        """``norm/L..`` and ``frobenius/L..``."""
        values = {}
        for tag, norms in self.gathered.items():
            values[tag] = float(norms.median() if tag.startswith("norm/") else _total(norms))
        return values

    def draw(self, rows: Sequence[Row], section: str) -> Figure | None:
        """Norms over epochs, one curve per layer."""
        return layer_curves(
            rows,
            f"{section}/norm/",
            ylabel=r"median $\|\partial L/\partial h_l\|_2$ over the probe",
            title="Size of the exact gradient",
        )


def _total(norms: Tensor) -> Tensor:
    """The norm of a whole whose parts have these norms; NaN without parts."""
    return frobenius_norm(norms) if len(norms) else norms.median()
