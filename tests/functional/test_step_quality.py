"""The minimum of a parabola, against numpy."""

import math

import numpy as np
import pytest
import torch

from lit_credit.functional import fitted_minimum, step_alpha

S = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0])


def test_the_fit_is_that_of_numpy():
    noise = torch.randn(5, generator=torch.Generator().manual_seed(0))
    losses = 2 * (S - 0.7) ** 2 + 5 + 0.1 * noise
    c, b, _ = np.polyfit(S.double().numpy(), losses.double().numpy(), 2)
    assert float(fitted_minimum(S, losses)) == pytest.approx(-b / (2 * c))
    assert float(step_alpha(S, losses)) == pytest.approx(1 / (-b / (2 * c)) - 1)


@pytest.mark.parametrize(("minimum", "alpha"), [(1000.0, -0.999), (2.0, -0.5), (1.0, 0), (0.5, 1)])
def test_alpha_says_where_the_step_ends(minimum, alpha):
    s = S.double()
    assert float(step_alpha(s, ((s - minimum) / minimum) ** 2, 0.0)) == pytest.approx(alpha)


@pytest.mark.parametrize(
    "losses",
    [
        -((S - 1) ** 2),  # a maximum
        (S + 1) ** 2,  # uphill from the beginning
        1 - 1e-3 * S,  # a line
        1 + 1e-9 * (S - 1) ** 2,  # curvature that float32 cannot show
        torch.full((5,), math.nan),
        torch.zeros(5),
    ],
)
def test_without_a_minimum_ahead_alpha_is_nan(losses):
    assert math.isnan(step_alpha(S, losses))


def test_two_places_make_no_parabola():
    with pytest.raises(ValueError, match=r"`scales` has shape \(2,\), expected \(S,\)"):
        fitted_minimum(S[:2], S[:2])
