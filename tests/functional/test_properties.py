"""What holds of every function: of any shape, dtype and layout, of zero, huge, tiny and NaN."""

import inspect
import math
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lit_credit import functional
from tests.functional.cases import CASES
from tests.functional.cases.case import flattened
from tests.functional.strategies import (
    FLOATS,
    Values,
    any_shapes,
    fitting,
    sizes_of,
)


def cases(has=lambda case: True):
    """One test a function that has the property."""
    return pytest.mark.parametrize("name", [name for name, case in CASES.items() if has(case)])


def call(name, values):
    return flattened(CASES[name].call(**values))


def is_floating(value):
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def in_dtype(values, dtype):
    return {k: v.to(dtype) if is_floating(v) else v for k, v in values.items()}


def floating(case):
    """Names of the arguments that are tensors of real numbers."""
    return [k for k, argument in case.arguments.items() if getattr(argument, "floating", False)]


def close(found, expected, tolerance=1e-9):
    """As many results, equal and NaN at the same places."""
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(
            one, other, rtol=tolerance, atol=tolerance, equal_nan=True, check_dtype=False
        )


def test_every_public_name_has_properties():
    covered = [name for case in CASES.values() for name in case.covers]
    assert sorted([*CASES, *covered]) == sorted(functional.__all__)


@cases()
@given(data=st.data())
def test_what_does_not_fit_is_refused_by_name(name, data):
    values = data.draw(any_shapes(CASES[name]))
    try:
        call(name, values)
    except ValueError as error:
        known = {*inspect.signature(getattr(functional, name)).parameters, *values, "left", "right"}
        assert known & set(re.findall(r"`(\w+)", str(error))), error  # noqa: PT017


@cases()
@given(data=st.data())
def test_any_mixture_of_dtypes_counts_in_float32_at_least(name, data):
    values = data.draw(fitting(CASES[name]))
    drawn = {
        k: v.to(data.draw(st.sampled_from(FLOATS))) if is_floating(v) else v
        for k, v in values.items()
    }
    wide = torch.float32
    for value in drawn.values():
        if is_floating(value):
            wide = torch.promote_types(wide, value.dtype)
    found = call(name, drawn)
    for result in found:
        if result.is_floating_point():
            assert result.dtype in (torch.float32, torch.float64)
            assert result.dtype == torch.float64 or not CASES[name].double
    close(found, call(name, in_dtype(drawn, wide)), 1e-4)


LAYOUTS = {
    "as it is": lambda x: x,
    "transposed": lambda x: x.mT.contiguous().mT if x.ndim > 1 else x,
    "every second": lambda x: torch.stack([x, x], -1)[..., 0],
    "expanded": lambda x: x[:1].expand_as(x),
    "with a graph": lambda x: x.clone().requires_grad_() * 1,
}


@cases()
@given(data=st.data())
def test_any_layout_and_nothing_is_changed(name, data):
    values = data.draw(fitting(CASES[name]))
    laid = {
        k: LAYOUTS[data.draw(st.sampled_from(sorted(LAYOUTS)))](v) if is_floating(v) else v
        for k, v in values.items()
    }
    plain = {
        k: v.detach().clone(memory_format=torch.contiguous_format) if is_floating(v) else v
        for k, v in laid.items()
    }
    state = torch.get_rng_state()
    found = call(name, laid)
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(result.requires_grad for result in found)
    assert all(torch.equal(plain[k], laid[k]) for k in plain if is_floating(plain[k]))
    close(found, call(name, plain))


@cases(lambda case: case.rows is not None)
@given(data=st.data())
def test_rows_do_not_know_of_each_other(name, data):
    case = CASES[name]
    values = data.draw(fitting(case))
    chosen = torch.tensor(
        data.draw(st.lists(st.integers(0, count(values, case) - 1), min_size=1, max_size=4))
    )
    picked = {
        k: v.index_select(case.arguments[k].dims.index("b"), chosen) if has_rows(case, k) else v
        for k, v in values.items()
    }
    close(
        call(name, picked),
        [result.index_select(case.rows, chosen) for result in call(name, values)],
    )


def has_rows(case, name):
    return isinstance(case.arguments[name], Values) and "b" in case.arguments[name].dims


def count(values, case):
    name = next(name for name in values if has_rows(case, name))
    return values[name].shape[case.arguments[name].dims.index("b")]


@cases(floating)
@given(data=st.data())
def test_nan_in_is_nan_out_and_stays_in_its_row(name, data):
    case = CASES[name]
    values = data.draw(fitting(case))
    spoilt = data.draw(st.sampled_from(floating(case)))
    place = tuple(data.draw(st.integers(0, n - 1)) for n in values[spoilt].shape)
    bad = data.draw(st.sampled_from([math.nan, math.inf, -math.inf]))
    before = call(name, values)
    values[spoilt] = values[spoilt].clone()
    values[spoilt][place] = bad
    after = call(name, values)
    for old, new in zip(before, after, strict=True):
        mine = torch.ones_like(new, dtype=torch.bool)
        if case.rows is not None and has_rows(case, spoilt):
            mine.zero_().select(case.rows, place[case.arguments[spoilt].dims.index("b")]).fill_(
                True
            )
        close([new[~mine]], [old[~mine]])
        if new.is_floating_point() and math.isnan(bad):
            unread = torch.isclose(new, old, rtol=1e-9, atol=1e-9) & (spoilt in case.partial)
            assert (new.isnan() | unread)[mine].all()


@cases(lambda case: case.degrees)
@given(data=st.data())
def test_scale(name, data):
    case = CASES[name]
    dtype = data.draw(st.sampled_from([torch.float32, torch.float64]))
    values = in_dtype(data.draw(fitting(case)), dtype)
    scaled = data.draw(st.sampled_from(sorted(case.degrees)))
    power = data.draw(st.integers(-100, 100) if dtype == torch.float32 else st.integers(-990, 990))
    before = call(name, values)
    after = call(name, {**values, scaled: values[scaled] * 2.0**power})
    degrees = case.degrees[scaled]
    degrees = degrees if isinstance(degrees, tuple) else (degrees,) * len(before)
    for old, new, degree in zip(before, after, degrees, strict=True):
        if degree is None:
            continue
        expected = old.double() * 2.0 ** (power * degree / 2) * 2.0 ** (power * degree / 2)
        limits = torch.finfo(new.dtype)
        normal = (
            (expected == 0)
            | expected.isnan()
            | (expected.abs() > limits.tiny) & (expected.abs() < limits.max)
        )
        tolerance = 1e-4 if dtype == torch.float32 else 1e-8
        torch.testing.assert_close(
            new.double()[normal],
            expected[normal],
            rtol=tolerance,
            atol=tolerance * min(2.0 ** (power * degree), 1),
            equal_nan=True,
        )


@cases(lambda case: case.degrees)
@given(data=st.data())
def test_zero_is_zero_or_has_no_direction(name, data):
    case = CASES[name]
    values = data.draw(fitting(case))
    nothing = data.draw(st.sampled_from(sorted(case.degrees)))
    found = call(name, {**values, nothing: torch.zeros_like(values[nothing])})
    degrees = case.degrees[nothing]
    degrees = degrees if isinstance(degrees, tuple) else (degrees,) * len(found)
    for result, degree in zip(found, degrees, strict=True):
        if degree == 0:
            assert result.isnan().all()
        elif degree is not None and degree > 0:
            assert not (result.abs() > 0).any()


@cases()
@given(data=st.data())
def test_results_stay_within_their_bounds(name, data):
    case = CASES[name]
    sizes = data.draw(sizes_of(case))
    dtype = data.draw(st.sampled_from([torch.float32, torch.float64]))
    values = in_dtype(data.draw(fitting(case, sizes)), dtype)
    for key, argument in case.arguments.items():
        at_edge = getattr(argument, "degenerate", ())
        if at_edge and data.draw(st.booleans()):
            values[key] = data.draw(st.sampled_from(at_edge))(values[key])
    low, high = case.bounds(sizes) if callable(case.bounds) else case.bounds
    for result in call(name, values):
        seen = result[~result.isnan()]
        assert ((seen >= low - 1e-5) & (seen <= high + 1e-5)).all()
