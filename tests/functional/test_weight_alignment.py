import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_credit.functional import norm_ratio, weight_angle


def angle_twin(w: torch.Tensor, b: torch.Tensor) -> float:
    x, y = (t.double().numpy().ravel().astype(np.longdouble) for t in (w, b))
    cosine = (x @ y) / (np.sqrt(x @ x) * np.sqrt(y @ y))
    return float(np.degrees(np.arccos(cosine)))


@pytest.mark.parametrize("shape", [(6, 5), (4, 3, 2, 2), (7,)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_agrees_with_numpy(shape, dtype):
    generator = torch.Generator().manual_seed(0)
    w, b = (torch.randn(shape, generator=generator).to(dtype) for _ in range(2))
    angle, ratio = weight_angle(w, b), norm_ratio(w, b)
    assert angle.dtype == ratio.dtype == torch.float64
    assert angle.shape == ratio.shape == ()
    assert angle.item() == pytest.approx(angle_twin(w, b), abs=1e-10)
    expected = np.linalg.norm(b.double().numpy()) / np.linalg.norm(w.double().numpy())
    assert ratio.item() == pytest.approx(float(expected), rel=1e-12)


def test_exact_angles():
    w = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    assert weight_angle(w, w).item() == 0.0
    assert weight_angle(w, -w).item() == 180.0
    assert weight_angle(torch.eye(2), torch.eye(2).flip(0)).item() == pytest.approx(90.0, abs=1e-12)


def test_a_small_angle_keeps_its_digits():
    # The arc cosine of a float64 cosine reads 0 here.
    w, b = torch.tensor([1.0, 0.0]).double(), torch.tensor([1.0, 1e-9]).double()
    assert weight_angle(w, b).item() == pytest.approx(math.degrees(1e-9), rel=1e-6)


@pytest.mark.parametrize("bad", [0.0, math.nan, math.inf])
def test_undefined_is_nan(bad):
    w, b = torch.full((2, 2), bad), torch.ones(2, 2)
    assert weight_angle(w, b).isnan()
    assert weight_angle(b, w).isnan()
    assert norm_ratio(w, b).isnan()


def test_no_feedback_at_all_has_a_ratio():
    assert norm_ratio(torch.ones(2, 2), torch.zeros(2, 2)).item() == 0.0
    assert norm_ratio(torch.ones(2), torch.full((2,), math.inf)).isnan()


def test_shapes_in_the_error():
    with pytest.raises(ValueError, match=r"`weight` and `feedback`.*\(2, 3\) and \(3, 2\)"):
        weight_angle(torch.ones(2, 3), torch.ones(3, 2))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), power=st.integers(-300, 300))
def test_scale_leaves_the_angle(seed, power):
    w, b = torch.randn(2, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    factor = 10.0**power
    angle = weight_angle(w, b)
    assert 0 <= angle <= 180
    torch.testing.assert_close(weight_angle(w * factor, b), angle, rtol=0, atol=1e-10)
    torch.testing.assert_close(
        norm_ratio(w, b * factor), norm_ratio(w, b) * factor, rtol=1e-12, atol=0
    )
