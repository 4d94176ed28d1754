"""Centred log-probabilities and their directions against numpy."""

import numpy as np

from lit_credit.functional import centred_log_probs, log_prob_directions
from tests.functional.heads import randn

M, N, D = 13, 7, 3


def test_directions_against_numpy():
    p = randn(M, N).softmax(-1)
    logs = np.log(p.numpy())
    logs -= logs.mean(1, keepdims=True)
    np.testing.assert_allclose(centred_log_probs(p), logs, atol=1e-14)
    b = np.linalg.svd(logs, full_matrices=False)[2]
    directions = log_prob_directions(p, D).numpy()
    np.testing.assert_allclose(directions @ directions.T, b[:D].T @ b[:D], atol=1e-10)
    np.testing.assert_allclose(directions.sum(0), 0, atol=1e-12)


def test_a_symbol_that_never_comes_leaves_no_directions():
    p = randn(M, N).softmax(-1)
    p[:, -1] = 0
    assert log_prob_directions(p / p.sum(-1, keepdim=True), 2).isnan().all()
