"""Ridge probes against numpy, gradients, and a twin by augmented least squares."""

import numpy as np
import pytest
import torch

from lit_credit.functional import ridge_probe
from lit_credit.functional.layer_probes import RidgeSums, ridge_of_sums
from tests.functional.heads import randn


def slow(x, y, strength):
    """Predictions of least squares with sqrt(n lambda) I as further rows, in numpy."""
    x, y = x.numpy(), y.numpy()
    n, d = x.shape
    sd = x.std(0)
    z = np.where(sd > 0, (x - x.mean(0)) / np.where(sd > 0, sd, 1), 0.0)
    a = np.concatenate([z, np.sqrt(n * strength) * np.eye(d)])
    b = np.concatenate([y - y.mean(0), np.zeros((d, y.shape[1]))])
    weight = np.linalg.lstsq(a, b, rcond=None)[0]
    return z @ weight + y.mean(0)


@pytest.mark.parametrize("strength", [1e-3, 0.1, 10.0])
@pytest.mark.parametrize(("n", "d"), [(30, 6), (6, 30), (9, 9), (12, 1), (1, 3)])
def test_against_augmented_least_squares(n, d, strength):
    x, y = randn(n, d, seed=0) * torch.linspace(1, 9, d) + 5, randn(n, 3, seed=1)
    if n > 1:
        x[:, 0] = 0.1  # does not vary
    found = ridge_probe(x, y, strength)
    np.testing.assert_allclose(found(x).numpy(), slow(x, y, strength), rtol=1e-7, atol=1e-9)
    if n > 1:
        assert not found.weight[0].any()


@pytest.mark.parametrize("n", [20, 4])
def test_the_gradient_of_the_objective_vanishes(n):
    x, y, strength = 3 * randn(n, 6, seed=2), randn(n, 2, seed=3), 0.3
    found = ridge_probe(x, y, strength)
    weight, bias = (part.clone().requires_grad_() for part in found)
    error = (x @ weight + bias - y).square().sum() / n
    penalty = strength * (x.std(0, correction=0)[:, None] * weight).square().sum()
    for gradient in torch.autograd.grad(error + penalty, (weight, bias)):
        assert gradient.abs().max() < 1e-12


def test_sums_of_pieces_are_those_of_all_rows():
    x, y = randn(23, 5, seed=4) + 100, randn(23, 3, seed=5)
    sums = RidgeSums.of(x[:4] - x[0], y[:4])
    for rows in (slice(4, 5), slice(5, 23)):
        sums.add(RidgeSums.of(x[rows] - x[0], y[rows]))
    for one, other in zip(ridge_of_sums(sums, 0.1, x[0]), ridge_probe(x, y, 0.1), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("n", [40, 5])
def test_scale_and_offset_of_a_feature_do_not_count(n):
    x, y = randn(n, 8, seed=6), randn(n, 2, seed=7)
    other = x * torch.logspace(-6, 30, 8, dtype=torch.float64) + 2
    other[:, 0] = x[:, 0] * 1e-6 + 2
    found, scaled = ridge_probe(x, y), ridge_probe(other, y)
    torch.testing.assert_close(found(x), scaled(other), rtol=1e-6, atol=1e-6)


def test_separable_classes_are_told_apart_and_noise_is_not():
    labels = torch.arange(400) % 4
    one_hot = torch.eye(4)[labels]
    centres = 3 * randn(4, 10, seed=8)
    apart, noise = centres[labels] + 0.1 * randn(400, 10, seed=9), randn(400, 10, seed=10)
    for x, least, most in ((apart, 1.0, 1.0), (noise, 0.1, 0.4)):
        found = ridge_probe(x[:200], one_hot[:200])(x[200:]).argmax(1) == labels[200:]
        assert least <= found.float().mean() <= most


def test_what_is_not_finite_or_empty_is_nan():
    x, y = randn(6, 3), randn(6, 2)
    for bad in (torch.nan, torch.inf):
        for n in (6, 2):
            spoilt = x[:n].clone()
            spoilt[1, 1] = bad
            assert ridge_probe(spoilt, y[:n]).weight.isnan().all()
            target = y[:n].clone()
            target[1, 0] = bad
            assert ridge_probe(x[:n], target).weight[:, 0].isnan().all()
    assert ridge_probe(x[:0], y[:0]).bias.isnan().all()
    for strength in (0.0, -1.0, torch.nan):
        with pytest.raises(ValueError, match=r"`strength` is .*above 0"):
            ridge_probe(x, y, strength)
