import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_credit.functional import gradient_cosine


def twin(a: torch.Tensor, b: torch.Tensor) -> list[float]:
    """One sample after the other, in numpy's widest float."""
    cosines = []
    for u, v in zip(a, b, strict=True):
        x, y = (t.double().numpy().ravel().astype(np.longdouble) for t in (u, v))
        cosines.append(float((x @ y) / np.sqrt((x @ x) * (y @ y))))
    return cosines


@pytest.mark.parametrize("shape", [(5, 7), (3, 4, 6), (2, 3, 4, 4), (1, 1)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_agrees_with_a_loop(shape, dtype):
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(shape, generator=generator).to(dtype) for _ in range(2))
    cosine = gradient_cosine(a, b)
    assert cosine.shape == shape[:1]
    assert cosine.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    np.testing.assert_allclose(cosine, twin(a, b), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("scale", "dtype"),
    [
        (5e-39, torch.float32),
        (3e37, torch.float32),
        (5e-200, torch.float64),
        (1e300, torch.float64),
    ],
)
def test_equal_gradients_of_any_norm_read_one(scale, dtype):
    direction = torch.randn(4, 9, generator=torch.Generator().manual_seed(1)).to(dtype)
    gradient = direction / direction.norm(dim=1, keepdim=True) * scale
    assert gradient_cosine(gradient, gradient).tolist() == [1.0] * 4
    assert gradient_cosine(gradient, -gradient).tolist() == [-1.0] * 4


def test_scales_of_the_two_may_be_far_apart():
    a = torch.tensor([[3e-40, 4e-40]])
    b = torch.tensor([[3e38, 0.0]])
    assert gradient_cosine(a, b).item() == pytest.approx(0.6, abs=1e-4)


@pytest.mark.parametrize("bad", [0.0, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("whole", [True, False])
def test_undefined_is_nan_and_stays_in_its_row(bad, whole):
    if bad == 0.0 and not whole:
        return
    a = torch.ones(3, 4)
    a[1, :] = bad if whole else torch.tensor([1.0, bad, 1.0, 0.0])
    for cosine in (gradient_cosine(a, torch.ones(3, 4)), gradient_cosine(torch.ones(3, 4), a)):
        assert cosine[1].isnan()
        assert cosine[[0, 2]].tolist() == [1.0, 1.0]


def test_no_samples_and_no_features():
    assert gradient_cosine(torch.zeros(0, 3), torch.zeros(0, 3)).shape == (0,)
    assert gradient_cosine(torch.zeros(2, 0), torch.zeros(2, 0)).isnan().all()


def test_mixed_dtypes_take_the_wider():
    a = torch.tensor([[1.0, 1e-12]], dtype=torch.float64)
    assert gradient_cosine(a.half(), a).dtype == torch.float64


def test_no_graph_is_kept():
    a = torch.ones(2, 3, requires_grad=True)
    assert not gradient_cosine(a, a).requires_grad


def test_errors_name_the_shapes():
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(2, 4\)"):
        gradient_cosine(torch.ones(2, 3), torch.ones(2, 4))
    with pytest.raises(ValueError, match=r"at least 2 dimensions, got \(3,\).*a\[None\]"):
        gradient_cosine(torch.ones(3), torch.ones(3))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    n=st.integers(1, 4),
    d=st.integers(1, 9),
    powers=st.tuples(st.integers(-300, 300), st.integers(-300, 300)),
)
def test_scale_invariant_symmetric_bounded(seed, n, d, powers):
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(2, n, d, generator=generator, dtype=torch.float64)
    cosine = gradient_cosine(a, b)
    assert (cosine.abs() <= 1).all()
    torch.testing.assert_close(gradient_cosine(b, a), cosine, rtol=0, atol=1e-12)
    scaled = gradient_cosine(a * 10.0 ** powers[0], b * -(10.0 ** powers[1]))
    torch.testing.assert_close(scaled, -cosine, rtol=0, atol=1e-12)
