"""Laws of one or of several functions: rotations, exchanges, and sums that must come out."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lit_credit import functional
from lit_credit.functional import FactoredMatrix
from tests.functional.heads import randn, random_orthonormal

seeds = st.integers(0, 2**16)
widths = st.integers(2, 5)


def distributions(*shape, seed):
    return (3 * randn(*shape, seed=seed)).softmax(-1)


def close(found, expected, tolerance=1e-9):
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance, equal_nan=True)


def spanned(a):
    return torch.linalg.qr(a[:, :2]).Q


# Of two sets of columns in one space, (d, 3).
GEOMETRIC = {
    "gradient_cosine": lambda a, b: functional.gradient_cosine(a.mT, b.mT),
    "sample_norms": lambda a, b: functional.sample_norms((a + b).mT),
    "weight_angle": functional.weight_angle,
    "norm_ratio": functional.norm_ratio,
    "cosine_matrix": lambda a, b: functional.cosine_matrix(torch.cat([a, b], 1).mT),
    "feature_dimensionality": lambda a, b: functional.feature_dimensionality((a - b).mT),
    "participation_ratio": lambda a, b: functional.participation_ratio(a @ b.mT),
    "product_norm": lambda a, b: functional.product_norm(
        FactoredMatrix(a, b), FactoredMatrix(b, a)
    ),
    "composition_scores": lambda a, b: functional.composition_scores(
        FactoredMatrix(a, b), FactoredMatrix(b, b), FactoredMatrix(b, a)
    ),
    "position_matching": lambda a, b: functional.position_matching(a.mT, b, [1, 2]),
    "token_mismatch": lambda a, b: functional.token_mismatch(
        a.mT, FactoredMatrix(a, b), FactoredMatrix(b, a)
    ),
    "projector_distance": lambda a, b: functional.projector_distance(spanned(a), spanned(b)),
    "principal_angles": lambda a, b: functional.principal_angles(spanned(a), spanned(b)),
    "subspace_match": lambda a, b: functional.subspace_match(spanned(a), spanned(b), [1, 2]),
    "logit_attribution": lambda a, b: functional.logit_attribution(a.mT, b.mT),
}


@pytest.mark.parametrize("name", GEOMETRIC)
@given(seed=seeds, d=st.integers(3, 6))
def test_no_basis_is_special(name, seed, d):
    a, b = randn(2, d, 3, seed=seed)
    turn = random_orthonormal(d, d, seed=seed + 1)
    turned, straight = (GEOMETRIC[name](*pair) for pair in ((turn @ a, turn @ b), (a, b)))
    close(turned, straight, 1e-7)


EITHER_WAY = {
    "gradient_cosine": functional.gradient_cosine,
    "weight_angle": functional.weight_angle,
    "projector_distance": functional.projector_distance,
    "principal_angles": functional.principal_angles,
    "subspace_match": lambda a, b: functional.subspace_match(a, b, [1, 2]),
}


@pytest.mark.parametrize("name", EITHER_WAY)
@given(seed=seeds, d=st.integers(2, 5))
def test_two_may_change_places(name, seed, d):
    a, b = random_orthonormal(2, d, 2, seed=seed)
    close(EITHER_WAY[name](a, b), EITHER_WAY[name](b, a))


@given(seed=seeds, factor=st.floats(0.1, 10), negative=st.booleans())
def test_a_cosine_and_an_angle_follow_the_sign(seed, factor, negative):
    a, b = randn(2, 3, 4, seed=seed)
    sign = -1 if negative else 1
    cosine, angle = functional.gradient_cosine(a, b), functional.weight_angle(a, b)
    close(functional.gradient_cosine(sign * factor * a, b), sign * cosine)
    close(functional.weight_angle(sign * factor * a, b), 180 - angle if negative else angle)


@given(seed=seeds, t=widths, s=widths)
def test_the_parts_of_a_softmax_are_its_gradient(seed, t, s):
    scores, credit = randn(2, t, s, seed=seed)
    allowed = randn(t, s, seed=seed + 1) > -0.5
    allowed[:, 0] = True
    scores.requires_grad_()
    attention = scores.masked_fill(~allowed, -torch.inf).softmax(-1)
    (full,) = torch.autograd.grad(attention, scores, credit)
    parts = functional.softmax_gradients(attention, credit, allowed)
    close(parts.full, full)
    close(parts.diagonal + parts.off_diagonal, full)
    shares = functional.softmax_energies(parts)
    assert all(share.isnan() for share in shares) or abs(sum(shares).item() - 1) < 1e-6
    unseen = attention.detach().masked_fill(~allowed, torch.nan), credit
    close(functional.softmax_gradients(*unseen, allowed), parts)
    close(functional.attention_entropy(unseen[0], allowed), functional.attention_entropy(attention))


@given(seed=seeds, t=widths, s=widths)
def test_the_order_of_keys_is_nothing(seed, t, s):
    attention = distributions(t, s, seed=seed)
    order = torch.randperm(s, generator=torch.Generator().manual_seed(seed))
    for function in (
        functional.attention_entropy,
        functional.effective_keys,
        functional.mean_attention,
        functional.is_softmax,
    ):
        close(function(attention[:, order]), function(attention))


@given(seed=seeds, n=widths, m=widths)
def test_divergence_is_zero_for_the_truth_and_blind_to_a_constant(seed, n, m):
    p, logits = distributions(m, n, seed=seed), randn(m, n, seed=seed + 1)
    close(functional.softmax_divergence(p.log(), p), torch.zeros(m).double())
    divergence = functional.softmax_divergence(logits, p)
    close(functional.softmax_divergence(logits + 7, p), divergence)
    close(functional.top_probability(p, p), p.amax(-1))
    right = functional.logit_margins(logits, p.argmax(-1)) > 0
    close(right, logits.argmax(-1) == p.argmax(-1))


@given(seed=seeds, n=st.integers(2, 8), d=widths)
def test_no_vectors_interfere_less_than_the_bound(seed, n, d):
    mean = functional.mean_squared_cosine(randn(n, d, seed=seed))
    assert mean >= functional.welch_bound(n, d) - 1e-9


@given(seed=seeds, d=widths, k=widths)
def test_factors_are_the_matrix(seed, d, k):
    a, b = (FactoredMatrix(*randn(2, d, k, seed=seed + i)) for i in range(2))
    dense, product = a.dense(), a.dense() @ b.dense()
    close((a @ b).dense(), product)
    close(functional.product_norm(a, b), product.norm())
    close((a.trace(), a.sum(), a.norm()), (dense.trace(), dense.sum(), dense.norm()))
    u, s, v = a.svd()
    close(u * s @ v.mT, dense)


@given(seed=seeds, pairs=st.integers(1, 3), distance=st.floats(-9, 9))
def test_a_rotation_turns_back(seed, pairs, distance):
    frequencies = randn(pairs, seed=seed).abs()
    for layout in ("interleaved", "half"):
        there, back = (
            functional.rotary_matrix(frequencies, x, 2 * pairs + 1, layout)
            for x in (distance, -distance)
        )
        close(there @ back, torch.eye(2 * pairs + 1).double())
        close(there.mT, back)
