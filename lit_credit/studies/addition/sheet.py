"""Fifteen panels about a net that adds."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from lit_credit.plotting._style import INK, LARGE
from lit_credit.runs.history import Row
from lit_credit.studies.addition.findings import AdderFindings
from lit_credit.studies.addition.panels_attention import (
    draw_attention,
    draw_forced,
    draw_ratio,
    draw_ratio_history,
    draw_sources,
)
from lit_credit.studies.addition.panels_errors import (
    draw_differences,
    draw_errors,
    draw_errors_by_carry,
    draw_runs,
    draw_training,
)
from lit_credit.studies.addition.panels_geometry import (
    draw_digits,
    draw_factors,
    draw_gains,
    draw_keys,
    draw_queries,
    draw_readout,
)
from lit_credit.utils.numbers import number_text

__all__ = ["adder_sheet"]

_SIDE = 4
_PANELS = (
    *(draw_digits, draw_queries, draw_keys, draw_attention),
    *(draw_sources, draw_ratio, None, draw_forced),
    *(draw_errors, draw_errors_by_carry, draw_differences, draw_runs),
    *(draw_readout, draw_factors, draw_gains, None),
)
"""Row by row; None where a panel is drawn from the history."""
_OVER_TRAINING = {6: draw_ratio_history, 15: draw_training}


def adder_sheet(found: AdderFindings, rows: Sequence[Row], *, section: str = "adder") -> Figure:
    """What a net reads, where it looks, which sums it gets wrong, and how it came to that.

    The panels, of which 13 has two parts: 1 the digits' embedding, 2 queries and 3 keys in their
    plane, 4 attention and 5 its top sources, 6 errors by digit, 7 and by the carry into it, 8 by
    how much they are off, 9 what attention reads of a digit, 10 and through which features, 11 the
    norms' gains, 12 training, 13 the place-value ratio, 14 sums right at a forced ratio, 15 sums
    right by their longest run of carries.

    Args:
        found: a measurement.
        rows: of the history ``adder_anatomy``, for the panels over training.
        section: what the history's tags begin with.

    Returns:
        The figure; a panel without anything to show says n/a.
    """
    figure = Figure(figsize=(26.0, 21.0))
    figure.set_layout_engine("constrained", w_pad=0.15, h_pad=0.15)
    axes = list(figure.subplots(_SIDE, _SIDE).flat)
    sums, symbols = (number_text(100 * x, ".2f") for x in (found.exact, found.token_accuracy))
    title = (
        f"A net that adds two numbers of {found.layout.digits} digits: {sums} % of "
        f"{found.sums:,} sums right, {symbols} % of the answers' symbols"
    )
    figure.suptitle(title, fontsize=LARGE + 6, fontweight="bold", color=INK)
    for index, (ax, draw) in enumerate(zip(axes, _PANELS, strict=True)):
        if draw is not None:
            draw(ax, found)
        else:
            _OVER_TRAINING[index](ax, rows, section)
    return figure
