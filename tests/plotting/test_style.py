import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lit_credit.plotting._style import factor_text, spread


@given(st.lists(st.floats(0, 1), max_size=12))
def test_labels_never_overlap_and_keep_their_order(places):
    moved = spread(places, gap=0.05)
    order = sorted(range(len(places)), key=lambda i: places[i])
    for below, above in itertools.pairwise(order):
        assert moved[above] - moved[below] >= 0.05 - 1e-9
    assert all(0 <= place <= 0.97 for place in moved)


def test_labels_with_room_stay_where_they_are():
    assert spread([0.9, 0.1, 0.5], gap=0.1) == [0.9, 0.1, 0.5]


@pytest.mark.parametrize(
    ("factor", "text"),
    [
        (1.0, "\u00d71.0"),
        (9.96, "\u00d710"),
        (1e6, "\u00d7$1\\cdot10^{6}$"),
        (0.0, "÷∞"),
        (math.inf, "\u00d7∞"),
        (math.nan, "n/a"),
    ],
)
def test_factor_text(factor, text):
    assert factor_text(factor) == text
