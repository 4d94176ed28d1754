import math
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lit_credit.functional import geometric_mean, mean_and_sd

finite = st.floats(-1e6, 1e6)


@given(st.lists(finite, min_size=2, max_size=8))
def test_agrees_with_the_standard_library(values):
    mean, sd = mean_and_sd(values)
    assert mean.dtype == sd.dtype == torch.float64
    assert mean.item() == pytest.approx(statistics.fmean(values), rel=1e-9, abs=1e-9)
    assert sd.item() == pytest.approx(statistics.stdev(values), rel=1e-6, abs=1e-6)


def test_one_value_has_no_spread_and_none_no_mean():
    mean, sd = mean_and_sd([0.3])
    assert mean.item() == 0.3
    assert sd.isnan()
    assert all(x.isnan() for x in mean_and_sd([]))
    assert geometric_mean([]).isnan()


def test_nan_is_kept():
    assert all(x.isnan() for x in mean_and_sd([1.0, math.nan]))
    assert geometric_mean([1.0, math.nan]).isnan()


def test_over_the_first_dimension():
    mean, sd = mean_and_sd(torch.tensor([[1.0, 10.0], [3.0, 10.0]]))
    assert mean.tolist() == [2.0, 10.0]
    assert sd.tolist() == [math.sqrt(2), 0.0]


@given(st.lists(st.floats(1e-12, 1e12), min_size=1, max_size=8))
def test_geometric_mean(values):
    assert geometric_mean(values).item() == pytest.approx(
        statistics.geometric_mean(values), rel=1e-9
    )


def test_geometric_mean_of_what_is_not_positive():
    assert geometric_mean([0.0, 1.0]).item() == 0.0
    assert geometric_mean([-1.0, 1.0]).isnan()
