import numpy as np
import pytest
import torch

from lit_credit.functional import FactoredMatrix, product_norm
from tests.functional.heads import randn, zero

SHAPES = [(7, 6, 3), (7, 7, 3), (5, 5, 5), (4, 9, 6), (9, 4, 6), (3, 4, 8), (6, 6, 1)]


def matrices(m, n, k, batch=(2, 3)):
    return FactoredMatrix(randn(*batch, m, k), randn(*batch, n, k, seed=1))


@pytest.mark.parametrize(("m", "n", "k"), SHAPES)
def test_every_quantity_is_that_of_the_dense_matrix(m, n, k):
    a = matrices(m, n, k)
    dense = np.einsum("...mk,...nk->...mn", a.left.numpy(), a.right.numpy())
    assert tuple(a.shape) == dense.shape
    np.testing.assert_allclose(a.dense(), dense)
    np.testing.assert_allclose(a.T.dense(), dense.swapaxes(-1, -2))
    np.testing.assert_allclose(a.sum(), dense.sum((-2, -1)))
    np.testing.assert_allclose(a.norm(), np.linalg.norm(dense, axis=(-2, -1)))
    np.testing.assert_allclose(a[1, :, None].dense(), dense[1, :, None])
    np.testing.assert_allclose((a @ a.T).dense(), dense @ dense.swapaxes(-1, -2))
    if m == n:
        np.testing.assert_allclose(a.trace(), np.trace(dense, axis1=-2, axis2=-1))


@pytest.mark.parametrize(("m", "n", "k"), SHAPES)
def test_svd(m, n, k):
    a = matrices(m, n, k)
    u, s, v = a.svd()
    r = min(m, n, k)
    assert s.shape == (2, 3, r)
    np.testing.assert_allclose(s, np.linalg.svd(a.dense(), compute_uv=False)[..., :r], atol=1e-12)
    torch.testing.assert_close((u * s[..., None, :]) @ v.mT, a.dense())
    for vectors in (u, v):
        torch.testing.assert_close(vectors.mT @ vectors, torch.eye(r).double().expand(2, 3, r, r))


def test_the_product_keeps_the_smaller_rank():
    narrow, wide = matrices(6, 6, 2), matrices(6, 6, 4)
    for product in (narrow @ wide, wide @ narrow):
        assert product.left.shape[-1] == product.right.shape[-1] == 2
    torch.testing.assert_close((wide @ narrow).dense(), wide.dense() @ narrow.dense())


def test_all_pairs_by_broadcasting():
    a, b = matrices(6, 5, 2, (3,)), matrices(5, 7, 4, (4,))
    pairs, norms = a[:, None] @ b[None], product_norm(a[:, None], b[None])
    assert pairs.shape == (3, 4, 6, 7)
    for i, j in np.ndindex(3, 4):
        dense = a.dense()[i].numpy() @ b.dense()[j].numpy()
        np.testing.assert_allclose(pairs.dense()[i, j], dense)
        assert float(norms[i, j]) == pytest.approx(np.linalg.norm(dense))


def test_the_norm_keeps_its_digits_where_factors_cancel():
    # Squares of 1e-12 are lost in Gram matrices of order 1.
    left = torch.tensor([[1.0, 1.0], [0.0, 1e-12]], dtype=torch.float64)
    right = torch.tensor([[1.0, -1.0], [0.0, 0.0]], dtype=torch.float64)
    a = FactoredMatrix(left, right)
    assert a.norm().item() == pytest.approx(1e-12, rel=1e-3)
    one = FactoredMatrix(torch.eye(2).double(), torch.eye(2).double())
    assert product_norm(a, one).item() == pytest.approx(1e-12, rel=1e-3)


def test_a_matrix_without_directions_has_none():
    u, s, v = zero(4).svd()
    assert u.isnan().all()
    assert v.isnan().all()
    assert torch.equal(s, torch.zeros(2).double())
    both = FactoredMatrix(randn(2, 4, 2), randn(2, 4, 2))
    both.left[0, 1, 1] = torch.inf
    assert [x[0].isnan().all().item() for x in both.svd()] == [True] * 3
    assert [x[1].isfinite().all().item() for x in both.svd()] == [True] * 3


def test_shapes_in_the_errors():
    with pytest.raises(ValueError, match=r"`left` and `right`.*\(4, 2\) and \(4, 3\)"):
        FactoredMatrix(torch.ones(4, 2), torch.ones(4, 3))
    a = FactoredMatrix(torch.ones(4, 2), torch.ones(5, 2))
    with pytest.raises(ValueError, match="no trace"):
        a.trace()
    with pytest.raises(ValueError, match=r"\(4, 5\) and \(4, 5\) have no product"):
        a @ a
    with pytest.raises(ValueError, match=r"`a` and `b` have shapes \(4, 5\) and \(4, 5\)"):
        product_norm(a, a)
