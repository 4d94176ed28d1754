import math

import pytest
import torch

from lit_credit.functional import extreme_eigenvalues

DOUBLE = torch.float64


def generator():
    return torch.Generator().manual_seed(1)


def symmetric(n):
    a = torch.randn(n, n, generator=generator(), dtype=DOUBLE)
    return (a + a.T) / 2


def ends(matrix, **options):
    start = torch.randn(len(matrix), generator=generator(), dtype=matrix.dtype)
    return extreme_eigenvalues(lambda v: matrix @ v, start, **options)


def test_all_eigenvalues_of_a_small_matrix():
    matrix = symmetric(9)
    found = ends(matrix, count=9, tolerance=0.0)
    expected = torch.linalg.eigvalsh(matrix)
    torch.testing.assert_close(found.largest, expected.flip(0))
    torch.testing.assert_close(found.smallest, expected[0])
    assert found.asymmetry < 1e-12


@pytest.mark.parametrize("keeps_all", [True, False])
def test_ends_of_a_large_matrix_lie_within_the_residual(keeps_all):
    matrix = symmetric(300)
    expected = torch.linalg.eigvalsh(matrix)
    found = ends(matrix, iterations=120, tolerance=1e-4, keeps_all=keeps_all)
    assert found.residuals[0] <= 1e-4 * found.largest[0]
    assert abs(found.largest[0] - expected[-1]) <= found.residuals[0]
    assert found.smallest.item() == pytest.approx(expected[0].item(), rel=1e-4)


def test_largest_is_not_largest_in_magnitude():
    matrix = torch.diag(torch.tensor([-50.0, -3.0, 0.5, 2.0]))
    found = ends(matrix)
    assert found.largest.item() == pytest.approx(2, rel=1e-5)
    assert found.smallest.item() == pytest.approx(-50, rel=1e-5)


def test_an_eigenvalue_counts_once_and_what_is_missing_is_nan():
    found = ends(torch.diag(torch.tensor([3.0, 3.0, 1.0], dtype=DOUBLE)), count=3)
    assert found.largest[:2].tolist() == pytest.approx([3, 1])
    assert found.largest[2].isnan()


def test_no_curvature_is_zero():
    found = ends(torch.zeros(5, 5))
    assert (found.largest.item(), found.smallest.item(), found.residuals.item()) == (0, 0, 0)


def test_few_products_leave_a_residual():
    matrix = symmetric(300)
    found = ends(matrix, iterations=3)
    expected = torch.linalg.eigvalsh(matrix)
    assert found.residuals[0] > 0.01 * found.largest[0]
    assert found.largest[0] < expected[-1]
    assert found.smallest > expected[0]


def test_a_matrix_that_is_not_symmetric_is_told():
    matrix = symmetric(9)
    assert ends(matrix + torch.triu(symmetric(9), 1)).asymmetry > 0.1
    assert ends(matrix.float()).asymmetry < 1e-5


def test_what_is_not_finite_is_nan():
    found = ends(torch.tensor([[1.0, math.nan], [math.nan, 1.0]]), count=2)
    assert all(part.isnan().all() for part in found)
    assert extreme_eigenvalues(lambda v: v, torch.zeros(3)).largest.isnan()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"count": 0}, "`count` is 0"),
        ({"iterations": 0}, "`iterations` is 0"),
        ({"count": 2, "keeps_all": False}, "`count` is 2"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(options, named):
    with pytest.raises(ValueError, match=named):
        ends(symmetric(3), **options)


def test_a_product_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"`product` returns \(2,\) for a vector \(3,\)"):
        extreme_eigenvalues(lambda v: v[:2], torch.ones(3))
