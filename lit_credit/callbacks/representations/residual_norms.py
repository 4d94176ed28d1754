"""The diagnostic ``ResidualNorms``: norms of the residual stream."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from lit_credit.callbacks.base.chunk import Chunk
from lit_credit.callbacks.base.points import layer_tag
from lit_credit.callbacks.base.stream import StreamDiagnostic
from lit_credit.functional import growth, sample_norms, scale_flags
from lit_credit.headlines import Derived, Ends, Flag, Headline, Panel
from lit_credit.plotting import Level, layer_curves
from lit_credit.plotting._style import TIMES
from lit_credit.runs.history import Row
from lit_credit.runs.series import layer_tags

__all__ = ["ResidualNorms"]


def _grown(ends: Ends) -> float:
    return growth(ends.last, ends.first).item()


def _scale_unstable(ends: Ends) -> float:
    return scale_flags(_grown(ends)).scale_unstable


_LIMIT = 50.0
"""Growth above it raises the flag, the default of :func:`lit_credit.functional.scale_flags`."""
_SCALE = Flag("scale", "scale_unstable", f"|h_L| grew more than {_LIMIT:g}x", _scale_unstable)


class ResidualNorms(StreamDiagnostic):
    """Size of the residual stream, layer by layer: ``median_n |h_l(x_n)|_2``.

    Logs ``residual/norm/L00`` .. ``L<L>``: h_l is the input of block l, h_L the input of the
    readout. If the module declares no ``residual_stream``, they are the inputs of the units and the
    output of the last unit.

    Costs one forward on ``n_samples`` rows. See
    :class:`lit_credit.callbacks.ProbeDiagnostic` for the arguments.

    Raises:
        MisconfigurationException: if no units are given or declared, and the net does not have
            exactly one stack of blocks; see :class:`lit_credit.callbacks.base.StreamDiagnostic`.

    Example::

        trainer = Trainer(callbacks=[ResidualNorms(units=["encoder.layers.*"])])
    """

    name = "residual_norms"
    section = "residual"
    needs_loss = False
    charts = ("norm",)
    steps_of_a_batch = 0.4
    headline = (
        Headline(
            "h",
            "norm",
            layers="last",
            head="|h_L|",
            order=40,
            start=True,
            derived=(Derived("growth", _grown, flag=_SCALE),),
            panel=Panel(
                "Residual stream at the readout, $|h_L|$",
                "L2 norm, median over samples",
                log=True,
                order=0,
            ),
        ),
    )

    def update(self, chunk: Chunk) -> None:
        """Add the norms of a chunk's samples."""
        for index, h in enumerate(chunk.values(self.stream(chunk)).values()):
            self.gathered.add(f"norm/{layer_tag(index)}", sample_norms(h))

    def compute(self) -> dict[str, float]:
        """``norm/L..``: the median over samples."""
        return {tag: float(norms.median()) for tag, norms in self.gathered.items()}

    def draw(self, rows: Sequence[Row], section: str) -> Figure | None:
        """Norms over epochs, one curve per layer, and the limit of the last layer's growth."""
        last = layer_tags(rows, f"{section}/norm/")[-1:]
        first = [row["values"][last[0]] for row in rows if last and last[0] in row["values"]][:1]
        return layer_curves(
            rows,
            f"{section}/norm/",
            ylabel=r"median $\|h_l\|_2$ over the probe",
            title="Size of the residual stream",
            levels=[Level(_LIMIT * norm, f"{_LIMIT:g} {TIMES} first", "above") for norm in first],
        )
