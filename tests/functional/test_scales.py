"""What holds of every function: of huge and of tiny values, of zero, and at the edges."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.functional.cases import CASES, having
from tests.functional.strategies import fitting, in_dtypes, sizes_of

PRECISIONS = st.sampled_from([torch.float32, torch.float64])


@having(lambda case: case.degrees)
@given(data=st.data(), dtype=PRECISIONS)
def test_scale_comes_out_as_its_power(name, data, dtype):
    case = CASES[name]
    values = in_dtypes(data.draw(fitting(case)), dict.fromkeys(case.floating(), dtype))
    scaled = data.draw(st.sampled_from(sorted(case.degrees)))
    most = 100 if dtype == torch.float32 else 990
    factor = 2.0 ** data.draw(st.integers(-most, most))
    before = case.results(values)
    after = case.results({**values, scaled: values[scaled] * factor})
    for old, new, degree in zip(before, after, case.degrees_of(scaled, before), strict=True):
        if degree is None:
            continue
        # What the result's dtype cannot hold to its last digit is not asked.
        root = factor ** (degree / 2)
        expected, range_ = old.double() * root * root, torch.finfo(new.dtype)
        size = expected.abs()
        held = ~((size > 0) & (size < range_.tiny) | (size > range_.max))
        tolerance = 1e-4 if dtype == torch.float32 else 1e-8
        torch.testing.assert_close(
            new.double()[held],
            expected[held],
            rtol=tolerance,
            atol=tolerance * min(root * root, 1),
            equal_nan=True,
        )


@having(lambda case: case.degrees)
@given(data=st.data())
def test_zero_is_zero_or_has_no_direction(name, data):
    case = CASES[name]
    values = data.draw(fitting(case))
    nothing = data.draw(st.sampled_from(sorted(case.degrees)))
    found = case.results({**values, nothing: torch.zeros_like(values[nothing])})
    for result, degree in zip(found, case.degrees_of(nothing, found), strict=True):
        if degree == 0:
            assert result.isnan().all()
        elif degree is not None and degree > 0:
            assert ((result == 0) | result.isnan()).all()


@having()
@given(data=st.data(), dtype=PRECISIONS)
def test_results_stay_within_their_bounds(name, data, dtype):
    case = CASES[name]
    sizes = data.draw(sizes_of(case))
    values = in_dtypes(data.draw(fitting(case, sizes)), dict.fromkeys(case.floating(), dtype))
    for key in case.floating():
        at_edge = case.arguments[key].degenerate
        if at_edge and data.draw(st.booleans()):
            values[key] = data.draw(st.sampled_from(at_edge))(values[key])
    low, high = case.bounds(sizes) if callable(case.bounds) else case.bounds
    for result in case.results(values):
        defined = result[~result.isnan()]
        assert ((defined >= low - 1e-5) & (defined <= high + 1e-5)).all()
