"""What holds of every function: of any shape, dtype and layout, and of what is not finite."""

import inspect
import math
import re

import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.functional.cases import CASES, PUBLIC, having
from tests.functional.strategies import FLOATS, any_shapes, fitting, in_dtypes, is_floating


def close(found, expected, tolerance=1e-9):
    """As many results, equal, and NaN at the same places."""
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(
            one, other, rtol=tolerance, atol=tolerance, equal_nan=True, check_dtype=False
        )


def test_every_public_name_has_properties():
    covered = [name for case in CASES.values() for name in case.covers]
    assert {*CASES, *covered} == PUBLIC.keys()


@having()
@given(data=st.data())
def test_what_does_not_fit_is_refused_by_name(name, data):
    values = data.draw(any_shapes(CASES[name]))
    message = None
    try:
        CASES[name].results(values)
    except ValueError as error:
        message = str(error)
    names = {*inspect.signature(PUBLIC[name]).parameters, *values, "left", "right"}
    assert message is None or names & set(re.findall(r"`(\w+)", message))


@having()
@given(data=st.data())
def test_any_mixture_of_dtypes_counts_in_float32_at_least(name, data):
    case = CASES[name]
    dtypes = {name: data.draw(st.sampled_from(FLOATS)) for name in case.floating()}
    values = in_dtypes(data.draw(fitting(case)), dtypes)
    found = case.results(values)
    for result in found:
        least = torch.float64 if case.double else torch.float32
        exact = not result.is_floating_point()
        assert exact or torch.promote_types(result.dtype, least) == result.dtype
    wide = torch.float64 if torch.float64 in dtypes.values() else torch.float32
    close(found, case.results(in_dtypes(values, dict.fromkeys(dtypes, wide))), 1e-4)


LAYOUTS = [
    lambda x: x,
    lambda x: x.mT.contiguous().mT if x.ndim > 1 else x,
    lambda x: torch.stack([x, x], -1)[..., 0],
    lambda x: x[:1].expand_as(x),
    lambda x: x.clone().requires_grad_() * 1,
]


@having()
@given(data=st.data())
def test_any_layout_gives_the_same_and_nothing_is_changed(name, data):
    case = CASES[name]
    values = data.draw(fitting(case))
    for key in case.floating():
        values[key] = data.draw(st.sampled_from(LAYOUTS))(values[key])
    plain = {
        key: value.detach().clone(memory_format=torch.contiguous_format)
        if is_floating(value)
        else value
        for key, value in values.items()
    }
    state = torch.get_rng_state()
    found = case.results(values)
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(result.requires_grad for result in found)
    assert all(torch.equal(values[key], plain[key]) for key in case.floating())
    close(found, case.results(plain), case.tolerance)


@having(lambda case: case.rows is not None)
@given(data=st.data())
def test_rows_do_not_know_of_each_other(name, data):
    case = CASES[name]
    values, dims = data.draw(fitting(case)), case.row_dims()
    last = min(values[key].shape[dim] for key, dim in dims.items()) - 1
    chosen = torch.tensor(data.draw(st.lists(st.integers(0, last), min_size=1, max_size=4)))
    picked = {key: values[key].index_select(dim, chosen) for key, dim in dims.items()}
    expected = [result.index_select(case.rows, chosen) for result in case.results(values)]
    close(case.results(values | picked), expected, case.tolerance)


@having(lambda case: case.floating())
@given(data=st.data())
def test_nan_in_is_nan_out_and_stays_in_its_row(name, data):
    case = CASES[name]
    values = data.draw(fitting(case))
    spoilt = data.draw(st.sampled_from(case.floating()))
    place = tuple(data.draw(st.integers(0, n - 1)) for n in values[spoilt].shape)
    bad = data.draw(st.sampled_from([math.nan, math.inf, -math.inf]))
    before = case.results(values)
    values[spoilt] = values[spoilt].index_put(
        tuple(map(torch.tensor, place)), torch.tensor(bad).double()
    )
    row = None if case.rows is None else case.row_dims().get(spoilt)
    for old, new in zip(before, case.results(values), strict=True):
        touched = torch.ones_like(new, dtype=torch.bool)
        if row is not None:
            touched = torch.zeros_like(touched)
            touched.select(case.rows, place[row]).fill_(True)
        close([new[~touched]], [old[~touched]], case.tolerance)
        if math.isnan(bad) and new.is_floating_point():
            unread = torch.isclose(new, old, rtol=1e-9, atol=1e-9) & (spoilt in case.partial)
            assert (new.isnan() | unread)[touched].all()
