"""Steps, products and correlations of credit, against loops in numpy."""

import math

import numpy as np
import pytest
import torch

from lit_credit.functional import relative_step, sample_correlation, sample_products
from tests.functional.heads import randn


def test_a_step_has_the_direction_and_the_relative_length():
    value, direction = randn(5, 3, 2, seed=0), randn(5, 3, 2, seed=1)
    step = relative_step(value, direction, -0.25)
    for h, d, found in zip(value.numpy(), direction.numpy(), step.numpy(), strict=True):
        expected = -0.25 * np.linalg.norm(h) * d / np.linalg.norm(d)
        assert found == pytest.approx(expected)


@pytest.mark.parametrize("scale", [1e-40, 1e-20, 1.0, 1e30])
def test_the_length_of_the_direction_does_not_count(scale):
    value, direction = randn(4, 6, seed=0).float(), randn(4, 6, seed=1).float()
    expected = relative_step(value, direction, 0.1)
    found = relative_step(value, (direction.double() * scale).float(), 0.1)
    assert torch.allclose(found, expected, rtol=1e-4 if scale < 1e-38 else 1e-6)


def test_a_sample_without_value_or_direction_has_no_step():
    value = torch.tensor([[0.0, 0.0], [1.0, 0.0], [math.inf, 0.0], [1.0, 0.0], [3.0, 4.0]])
    direction = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 0.0], [math.nan, 0.0], [0.0, 2.0]])
    step = relative_step(value, direction, 1.0)
    assert step[:4].isnan().all(1).tolist() == [True] * 4
    assert step[4].tolist() == [0.0, 5.0]


def test_steps_in_half_precision_are_float32():
    step = relative_step(torch.ones(1, 4).bfloat16(), torch.ones(1, 4).bfloat16(), 0.01)
    assert step.dtype == torch.float32
    assert step[0].tolist() == pytest.approx([0.01] * 4)


def test_products_of_complex_vectors_are_those_of_real_ones():
    a, b = randn(3, 4, 2, seed=0), randn(3, 4, 2, seed=1)
    found = sample_products(torch.view_as_complex(a), torch.view_as_complex(b))
    assert found.tolist() == pytest.approx((a * b).sum((1, 2)).tolist())


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1.0, 1e150])
def test_correlations_are_numpys(scale):
    p, o = randn(6, 9, seed=0), randn(6, 9, seed=1)
    expected = [np.corrcoef(x, y)[0, 1] for x, y in zip(p.numpy(), o.numpy(), strict=True)]
    assert sample_correlation(p * scale, o + 3.0).tolist() == pytest.approx(expected)


def test_a_constant_has_no_correlation():
    constant = torch.full((1, 7), 0.1)  # a third of which is no sum of three of them
    assert sample_correlation(constant, torch.arange(7.0)[None]).isnan().all()
    assert sample_correlation(torch.arange(7.0)[None], constant).isnan().all()
    assert sample_correlation(torch.ones(2, 0), torch.ones(2, 0)).isnan().all()
    assert sample_correlation(torch.ones(0, 3), torch.ones(0, 3)).shape == (0,)


def test_without_a_relation_the_spread_is_the_one_of_the_docstring():
    n, k = 4000, 8
    rho = sample_correlation(randn(n, k, seed=0), randn(n, k, seed=1))
    assert float(rho.mean()) == pytest.approx(0, abs=4 / math.sqrt(n * (k - 1)))
    assert float(rho.std()) == pytest.approx(1 / math.sqrt(k - 1), rel=0.05)
