import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lit_credit.functional import ScaleFlags, growth, scale_flags


def test_growth_is_a_float64_ratio():
    factor = growth(torch.tensor([1e30, 20.0]), torch.tensor([1e-30, 10.0]))
    assert factor.dtype == torch.float64
    torch.testing.assert_close(
        factor, torch.tensor([1e60, 2.0], dtype=torch.float64), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize(
    ("last", "first"), [(1.0, 0.0), (0.0, 0.0), (1.0, math.inf), (math.nan, 1.0), (1.0, math.nan)]
)
def test_growth_undefined(last, first):
    assert growth(last, first).isnan()


def test_an_infinite_end_is_unstable():
    assert growth(math.inf, 9.5).item() == math.inf
    assert scale_flags(growth(math.inf, 9.5).item()).scale_unstable == 1.0


def test_the_papers_limits():
    assert scale_flags(growth=50.0).scale_unstable == 0.0
    assert scale_flags(growth=50.1).scale_unstable == 1.0
    # 0.42 - 0.40 is 0.01999999999999996 in float64: two points are two points.
    assert scale_flags(accuracy=0.42, frozen_accuracy=0.40).depth_unused == 0.0
    assert scale_flags(accuracy=0.419, frozen_accuracy=0.40).depth_unused == 1.0
    assert scale_flags(reference_cosine=0.9999).reference_invalid == 0.0
    assert scale_flags(reference_cosine=0.5).reference_invalid == 1.0


def test_limits_are_arguments():
    flags = scale_flags(
        30.0, 0.5, 0.45, 0.95, growth_limit=20.0, accuracy_margin=0.1, reference_limit=0.9
    )
    assert flags == ScaleFlags(1.0, 1.0, 0.0)


def test_what_was_not_measured_raises_no_flag_and_clears_none():
    assert all(math.isnan(flag) for flag in scale_flags())
    assert math.isnan(scale_flags(accuracy=0.3).depth_unused)


@given(growths=st.floats(0, 1e300), limit=st.floats(1e-3, 1e300))
def test_flag_is_the_comparison(growths, limit):
    assert scale_flags(growths, growth_limit=limit).scale_unstable == float(growths > limit)
