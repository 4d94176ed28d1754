import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_credit.functional import frobenius_norm, sample_norms


def twin(x: torch.Tensor) -> float:
    """Sum of squares element by element, in numpy's widest float."""
    total = np.longdouble(0)
    for value in x.double().flatten().tolist():
        total += np.longdouble(value) ** 2
    return float(np.sqrt(total))


@pytest.mark.parametrize("shape", [(5, 7), (3, 4, 6), (2, 3, 4, 4)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_agrees_with_a_loop(shape, dtype):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    norms, frobenius = sample_norms(x), frobenius_norm(x)
    assert norms.shape == shape[:1]
    assert frobenius.shape == ()
    assert norms.dtype == frobenius.dtype == wide
    np.testing.assert_allclose(norms, [twin(row) for row in x], rtol=1e-6)
    assert frobenius.item() == pytest.approx(twin(x), rel=1e-6)


@pytest.mark.parametrize(
    ("scale", "dtype"),
    [
        (1e-40, torch.float32),
        (1e38, torch.float32),
        (1e-200, torch.float64),
        (1e300, torch.float64),
    ],
)
def test_squares_neither_underflow_nor_overflow(scale, dtype):
    x = torch.tensor([[1.0, 1.0, 1.0, 1.0]], dtype=dtype) * scale
    assert sample_norms(x).item() == pytest.approx(2 * scale, rel=1e-4)
    assert frobenius_norm(x).item() == pytest.approx(2 * scale, rel=1e-4)


def test_half_precision_sums_in_float32():
    assert sample_norms(torch.full((1, 4), 6e4, dtype=torch.float16)).item() == pytest.approx(
        1.2e5, rel=1e-3
    )


def test_zero_is_zero_and_the_rest_stays_in_its_row():
    x = torch.tensor([[0.0, 0.0], [math.inf, 1.0], [math.nan, 1.0], [3.0, 4.0]])
    norms = sample_norms(x).tolist()
    assert norms[0] == 0.0
    assert norms[1] == math.inf
    assert math.isnan(norms[2])
    assert norms[3] == 5.0


def test_empty_and_scalar():
    assert sample_norms(torch.zeros(0, 3)).shape == (0,)
    assert sample_norms(torch.zeros(2, 0)).tolist() == [0.0, 0.0]
    assert frobenius_norm(torch.zeros(0)).item() == 0.0
    assert frobenius_norm(torch.tensor(-2.0)).item() == 2.0


def test_a_single_vector_is_refused():
    with pytest.raises(ValueError, match="at least 2 dimensions"):
        sample_norms(torch.ones(3))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), d=st.integers(1, 9), power=st.integers(-300, 300))
def test_homogeneous(seed, d, power):
    x = torch.randn(3, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    factor = 10.0**power
    torch.testing.assert_close(
        sample_norms(x * -factor), sample_norms(x) * factor, rtol=1e-12, atol=0
    )
