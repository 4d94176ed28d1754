import io
import math

import pytest

from lit_credit.callbacks.credit import parameter_bars

VALUES = {"a": 0.5, "b": -1.0, "c": math.nan, "d": 0.0}


@pytest.mark.parametrize("limits", [(-1.0, 1.0), None])
def test_bars_in_order_with_numbers(limits):
    figure = parameter_bars(VALUES, title="Updates", xlabel="cosine", limits=limits)
    figure.savefig(io.BytesIO(), format="png", dpi=30)
    ax = figure.axes[0]
    assert [bar.get_width() for bar in ax.patches] == [0.5, -1.0, 0.0, 0.0]
    assert [label.get_text() for label in ax.get_yticklabels()] == list(VALUES)
    assert [text.get_text() for text in ax.texts] == ["0.50", "-1.00", "n/a", "0.00"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first on top
    assert ax.get_xlim()[0] < -1.0


@pytest.mark.parametrize("values", [{}, {"a": math.nan}, {"a": math.inf}])
def test_degenerate(values):
    figure = parameter_bars(values, title="", xlabel="", limits=None)
    figure.savefig(io.BytesIO(), format="png", dpi=30)
    expected = "inf" if values.get("a") == math.inf else "n/a"
    assert [text.get_text() for text in figure.axes[0].texts] == [expected]


def test_many_parameters_stay_a_figure_of_finite_size():
    figure = parameter_bars({str(i): 0.1 for i in range(500)}, title="", xlabel="")
    assert figure.get_figheight() <= 40
