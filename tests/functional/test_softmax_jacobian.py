"""Against torch.autograd of a float64 softmax, and against loops over single entries."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_credit.functional import softmax_cosines, softmax_energies, softmax_gradients

T, S = 5, 6
HEAD = (T, S)


def draw(shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def scores_of(kind, shape=(3, 2, *HEAD)):
    if kind == "uniform":
        return torch.zeros(shape, dtype=torch.float64)
    scores = 2 * draw(shape)
    if kind == "one-hot":
        return scores + 10 * torch.nn.functional.one_hot(scores.argmax(-1), shape[-1])
    return scores


def causal(t=T, s=S):
    return torch.ones(t, s, dtype=torch.bool).tril()


def padded():
    """Per sample: the last keys are padding, and in the last sample all of them."""
    allowed = torch.ones(3, 1, 1, S, dtype=torch.bool)
    for sample, length in enumerate((S, 3, 0)):
        allowed[sample, ..., length:] = False
    return allowed


def softmax(scores, allowed):
    """Rows without an allowed key are zero, as in torch's attention."""
    if allowed is None:
        return scores.softmax(-1)
    a = scores.masked_fill(~allowed, -math.inf).softmax(-1)
    return a.masked_fill(~allowed.any(-1, keepdim=True), 0.0)


def autograd(scores, g, allowed):
    """The gradient at the scores, one row after the other, over the allowed keys alone."""
    found = torch.zeros_like(scores)
    mask = torch.ones_like(scores, dtype=torch.bool) if allowed is None else allowed
    for index in np.ndindex(*scores.shape[:-1]):
        keys = mask.expand_as(scores)[index]
        row = scores[index][keys].clone().requires_grad_()
        if keys.any():
            found[index][keys] = torch.autograd.grad(row.softmax(0), row, g[index][keys])[0]
    return found


def loops(a, g, allowed):
    """All four gradients, entry by entry, from the study's formulas."""
    a, g = a.numpy(), g.numpy()
    mask = np.ones(a.shape, bool) if allowed is None else allowed.expand(a.shape).numpy()
    full, diagonal, off, ste = (np.zeros(a.shape) for _ in range(4))
    for index in np.ndindex(*a.shape[:-1]):
        keys = np.flatnonzero(mask[index])
        for i in keys:
            p = a[index]
            diagonal[(*index, i)] = p[i] * (1 - p[i]) * g[(*index, i)]
            off[(*index, i)] = -p[i] * sum(p[j] * g[(*index, j)] for j in keys if j != i)
            full[(*index, i)] = p[i] * (g[(*index, i)] - sum(p[j] * g[(*index, j)] for j in keys))
            ste[(*index, i)] = g[(*index, i)]
    return full, diagonal, off, ste


MASKS = {"none": None, "causal": causal(), "padding": padded()}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("kind", ["random", "uniform", "one-hot"])
def test_the_full_gradient_is_that_of_autograd_and_the_parts_those_of_loops(kind, mask):
    allowed, scores, g = MASKS[mask], scores_of(kind), draw((3, 2, *HEAD), seed=1)
    a = softmax(scores, allowed)
    found = softmax_gradients(a, g, allowed)
    assert all(x.dtype == torch.float64 for x in found)
    torch.testing.assert_close(found.full, autograd(scores, g, allowed), rtol=1e-9, atol=1e-14)
    for name, x, expected in zip(found._fields, found, loops(a, g, allowed), strict=True):
        np.testing.assert_allclose(x, expected, rtol=1e-9, atol=1e-14, err_msg=name)
    both = found.diagonal + found.off_diagonal
    torch.testing.assert_close(both, found.full, rtol=0, atol=1e-14)


def test_a_saturated_head_in_float32_keeps_its_digits():
    """1 - A of the attended key is mostly rounding there, but the other keys are known."""
    scores, g = 12 * draw((4, *HEAD)).float(), draw((4, *HEAD), seed=1)
    a = scores.softmax(-1)
    assert (1 - a.amax(-1)).min() < 1e-6
    exact = softmax_gradients(scores.double().softmax(-1), g)
    for x, y in zip(softmax_gradients(a, g), exact, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=0)


def energies_by_loop(full, diagonal, off):
    sums = [float((x * y).sum()) for x, y in ((diagonal, diagonal), (off, off), (diagonal, off))]
    norm = float((full * full).sum())
    return [sums[0] / norm, sums[1] / norm, 2 * sums[2] / norm]


def cosine_by_loop(x, y):
    x, y = x.ravel(), y.ravel()
    return float(x @ y) / math.sqrt(float(x @ x)) / math.sqrt(float(y @ y))


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("kind", ["random", "uniform", "one-hot"])
def test_energies_and_cosines_of_every_sample_and_head(kind, mask):
    allowed, g = MASKS[mask], draw((3, 2, *HEAD), seed=1)
    a = softmax(scores_of(kind), allowed)
    found = softmax_gradients(a, g, allowed)
    energies, cosines = softmax_energies(found), softmax_cosines(found)
    full, diagonal, off, ste = loops(a, g, allowed)
    for n, h in np.ndindex(3, 2):
        one = [float(r[n, h]) for r in (*energies, *cosines)]
        if mask == "padding" and n == 2:  # nothing but padding
            assert all(map(math.isnan, one))
            continue
        expected = energies_by_loop(full[n, h], diagonal[n, h], off[n, h])
        expected += [cosine_by_loop(x[n, h], full[n, h]) for x in (diagonal, ste)]
        assert one == pytest.approx(expected, rel=1e-8)
        assert sum(one[:3]) == pytest.approx(1, abs=1e-12)


def test_pooled_energies_are_sums_over_samples_before_the_ratio():
    g = draw((3, 2, *HEAD), seed=1) * torch.tensor([1.0, 10.0, 1e-3])[:, None, None, None]
    a = softmax(scores_of("random"), padded())
    pooled = softmax_energies(softmax_gradients(a, g, padded()), dims=(0, -2, -1))
    full, diagonal, off, _ = loops(a, g, padded())
    for h in range(2):
        expected = energies_by_loop(full[:, h], diagonal[:, h], off[:, h])
        assert [float(r[h]) for r in pooled] == pytest.approx(expected)


def test_the_part_that_the_document_calls_off_diagonal_is_not_its_energy():
    parts = softmax_gradients(softmax(scores_of("random"), None), draw((3, 2, *HEAD), seed=1))
    r_diag, r_off, _ = softmax_energies(parts)
    assert ((1 - r_diag) - r_off).abs().min() > 1e-3


def test_nothing_lives_outside_of_the_causal_support():
    g = draw((2, T, S), seed=1)
    a = softmax(draw((2, T, S)), causal())
    wild = g.masked_fill(~causal(), math.nan)
    found = softmax_gradients(a, wild, causal())
    for x in found:
        assert (x[:, ~causal()] == 0).all()
    assert torch.equal(found.straight_through[:, causal()], g[:, causal()])
    inside = softmax_cosines(softmax_gradients(a, g, causal()))
    assert torch.equal(softmax_cosines(found).cosine_ste, inside.cosine_ste)
    # Credit outside of the support would count in the straight-through cosine.
    assert not torch.allclose(softmax_cosines(softmax_gradients(a, g)).cosine_ste, inside[1])


def test_a_row_without_keys_may_hold_anything():
    g, a = draw(HEAD, seed=1), softmax(draw(HEAD), causal())
    allowed = causal().index_fill(0, torch.tensor([2]), False)
    expected = softmax_gradients(a.index_fill(0, torch.tensor([2]), 0.0), g, allowed)
    for value in (math.nan, 1 / S, 0.0):
        found = softmax_gradients(a.index_fill(0, torch.tensor([2]), value), g, allowed)
        assert all(torch.equal(x, y) for x, y in zip(found, expected, strict=True))
        assert all((x[2] == 0).all() for x in found)
    # Without a mask, a row of zeros is known to be a masked one, and NaN is not.
    assert (softmax_gradients(torch.zeros(HEAD), g).straight_through == 0).all()
    lost = softmax_gradients(a.index_fill(0, torch.tensor([2]), math.nan), g)
    assert softmax_energies(lost).r_diag.isnan()


UNDEFINED = {
    "no credit": (torch.full(HEAD, 1 / S), torch.zeros(HEAD)),
    "credit alike at all keys": (torch.full(HEAD, 1 / S), torch.full(HEAD, 0.3)),
    "rounded credit alike at all keys": (
        draw(HEAD).float().softmax(-1),
        torch.full(HEAD, 0.3) * (1 + 1e-7 * draw(HEAD).float()),
    ),
    "one-hot": (torch.eye(S)[:T], draw(HEAD)),
    "one key": (torch.ones(T, 1), draw((T, 1))),
    "infinite": (torch.full(HEAD, 1 / S), torch.full(HEAD, math.inf)),
    "no key": (torch.zeros(HEAD), draw(HEAD)),
    "no queries": (torch.zeros(0, S), torch.zeros(0, S)),
}


@pytest.mark.parametrize("case", UNDEFINED)
def test_undefined_is_nan(case):
    a, g = UNDEFINED[case]
    parts = softmax_gradients(a, g.to(a.dtype))
    assert all(x.isnan() for x in (*softmax_energies(parts), *softmax_cosines(parts)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_what_is_no_softmax_is_nan_and_stays_in_its_head(dtype):
    scores, g = draw((2, 2, T, 64)), draw((2, 2, T, 64), seed=1)
    a = scores.softmax(-1)
    a[0, 1] = (scores[0, 1] - math.log(64)).sigmoid()  # near 1 in sum, and not a softmax
    a[1, 0, 3, :2] = torch.tensor([-0.5, 0.5]) + a[1, 0, 3, :2].sum() / 2
    parts = softmax_gradients(a.to(dtype), g.to(dtype))
    for r in (*softmax_energies(parts), *softmax_cosines(parts)):
        assert r.isfinite().tolist() == [[True, False], [False, True]]


@pytest.mark.parametrize("scale", [1e-30, 1e30, 1e-150, 1e150])
def test_scale_of_the_credit_cancels(scale):
    a, g = softmax(draw(HEAD), causal()), draw(HEAD, seed=1)
    one, other = (softmax_gradients(a, g * factor, causal()) for factor in (1.0, scale))
    for x, y in zip(
        (*softmax_energies(one), *softmax_cosines(one)),
        (*softmax_energies(other), *softmax_cosines(other)),
        strict=True,
    ):
        assert float(y) == pytest.approx(float(x), rel=1e-9)


def test_no_graph_is_kept_and_nothing_is_written_to():
    a = draw(HEAD).softmax(-1).requires_grad_()
    g = draw(HEAD, seed=1).requires_grad_()
    before = a.detach().clone(), g.detach().clone()
    assert not any(x.requires_grad for x in softmax_gradients(a, g, causal()))
    assert torch.equal(a, before[0])
    assert torch.equal(g, before[1])


@pytest.mark.parametrize(
    ("a", "g", "allowed", "message"),
    [
        (torch.ones(3), torch.ones(3), None, r"`attention` has shape \(3,\).*\(\.\.\., T, S\)"),
        (torch.ones(2, 2).long(), torch.ones(2, 2).long(), None, "int64.*floating-point"),
        (torch.ones(2, 2), torch.ones(2, 3), None, r"`credit`.*\(2, 2\) and \(2, 3\)"),
        (torch.ones(2, 2), torch.ones(2, 2), torch.zeros(2, 2), "`allowed`.*float32.*mask == 0"),
        (torch.ones(2, 2), torch.ones(2, 2), torch.ones(3, 2).bool(), r"`allowed`.*\(3, 2\)"),
        (torch.ones(2, 2), torch.ones(2, 2), torch.ones(4, 2, 2).bool(), r"broadcast.*\(2, 2\)"),
    ],
)
def test_errors_name_argument_and_remedy(a, g, allowed, message):
    with pytest.raises(ValueError, match=message):
        softmax_gradients(a, g, allowed)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    t=st.integers(1, 6),
    s=st.integers(2, 6),
    sharpness=st.floats(0, 40),
    density=st.floats(0.2, 1),
)
def test_identities_hold_for_any_mask_and_sharpness(seed, t, s, sharpness, density):
    scores, g = draw((2, t, s), seed) * sharpness, draw((2, t, s), seed + 1)
    generator = torch.Generator().manual_seed(seed)
    allowed = torch.rand(t, s, generator=generator) < density
    a = softmax(scores, allowed)
    parts = softmax_gradients(a, g, allowed)
    torch.testing.assert_close(parts.full, autograd(scores, g, allowed), rtol=1e-9, atol=1e-13)
    # J is symmetric and maps a constant to zero: the gradient at the scores sums to nothing.
    assert (parts.full.sum(-1).abs() < 1e-13).all()
    total = sum(softmax_energies(parts))
    assert ((total - 1).abs() < 1e-6)[total.isfinite()].all()
    for cosine in softmax_cosines(parts):
        assert (cosine.abs() <= 1)[cosine.isfinite()].all()
    # <g, J g> >= 0: the straight-through direction never points away from the full gradient.
    ste = softmax_cosines(parts).cosine_ste
    assert (ste >= -1e-9)[ste.isfinite()].all()
