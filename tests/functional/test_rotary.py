import cmath
import math

import pytest
import torch

from lit_credit.functional import rotary_frequencies, rotary_matrix
from tests.functional.heads import randn

D_HEAD, ROTARY = 10, 6
PAIRS = {
    "interleaved": [(0, 1), (2, 3), (4, 5)],
    "half": [(0, 3), (1, 4), (2, 5)],
}


def rotated(vector, position, layout):
    """Each pair as a complex number, multiplied by exp(i position theta^(-2 pair / dim))."""
    found = vector.clone()
    for pair, (a, b) in enumerate(PAIRS[layout]):
        angle = position * 10000.0 ** (-2 * pair / ROTARY)
        turned = complex(vector[a], vector[b]) * cmath.exp(1j * angle)
        found[a], found[b] = turned.real, turned.imag
    return found


@pytest.mark.parametrize("layout", PAIRS)
def test_reproduces_the_scores_of_rotated_queries_and_keys(layout):
    q, k = randn(2, 8, D_HEAD)
    frequencies = rotary_frequencies(ROTARY)
    m, n = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    matrices = rotary_matrix(frequencies, m - n, D_HEAD, layout)
    assert matrices.shape == (8, 8, D_HEAD, D_HEAD)
    for i in range(8):
        for j in range(8):
            expected = rotated(q[i], i, layout) @ rotated(k[j], j, layout)
            assert (q[i] @ matrices[i, j] @ k[j]).item() == pytest.approx(expected.item())


@pytest.mark.parametrize("layout", PAIRS)
def test_the_sign_is_that_of_a_key_before_its_query(layout):
    q, k = randn(2, D_HEAD, seed=3)
    frequencies = rotary_frequencies(ROTARY)
    before, after = (rotary_matrix(frequencies, x, D_HEAD, layout) for x in (3, -3))
    score = (rotated(q, 7, layout) @ rotated(k, 4, layout)).item()
    assert (q @ before @ k).item() == pytest.approx(score)
    assert (q @ after @ k).item() != pytest.approx(score, rel=0.1)
    assert torch.equal(before, after.mT)


def test_what_does_not_turn_stays():
    frequencies = rotary_frequencies(ROTARY)
    matrix = rotary_matrix(frequencies, 5, D_HEAD)
    assert torch.equal(matrix[ROTARY:, ROTARY:], torch.eye(4).double())
    assert torch.equal(rotary_matrix(frequencies, 0, D_HEAD), torch.eye(D_HEAD).double())
    assert rotary_matrix(frequencies, 5).shape == (ROTARY, ROTARY)
    assert rotary_matrix(frequencies.float(), 5).dtype == torch.float32


def test_frequencies():
    expected = [500000.0 ** (-2 * i / 8) for i in range(4)]
    assert rotary_frequencies(8, theta=500000.0).tolist() == pytest.approx(expected)
    assert rotary_matrix(rotary_frequencies(2), math.pi / 2)[0, 1].item() == pytest.approx(1)


def test_errors():
    for rotary_dim in (0, 3):
        with pytest.raises(ValueError, match=f"`rotary_dim` is {rotary_dim}"):
            rotary_frequencies(rotary_dim)
    with pytest.raises(ValueError, match="`d_head` is 4, expected at least 6"):
        rotary_matrix(rotary_frequencies(6), 1, 4)
    with pytest.raises(ValueError, match="`layout` is 'pairs', expected interleaved or half"):
        rotary_matrix(rotary_frequencies(6), 1, layout="pairs")
