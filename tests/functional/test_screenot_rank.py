import numpy as np
import pytest
import torch

from lit_credit.functional import screenot_rank


def spiked(n, p, spikes, seed):
    """Noise of coloured rows with singular values up to about 2.5, and orthogonal spikes."""
    generator = np.random.default_rng(seed)
    noise = generator.standard_normal((n, p)) * np.linspace(0.5, 1.5, p) / np.sqrt(n)
    u = np.linalg.qr(generator.standard_normal((n, len(spikes))))[0]
    v = np.linalg.qr(generator.standard_normal((p, len(spikes))))[0]
    return noise + u * spikes @ v.T


def values(matrix):
    return torch.from_numpy(np.linalg.svd(matrix, compute_uv=False))


def twin(y, shape, k):
    """The threshold by bisection of Psi, whose derivative is a difference quotient."""
    p, n = min(shape), max(shape)
    y = np.concatenate([y.numpy(), np.zeros(p - len(y))])
    z = y.copy()
    for i in range(k):
        z[i] = y[k] + (1 - (i / k) ** (2 / 3)) / (2 ** (2 / 3) - 1) * (y[k] - y[2 * k])

    def log_d(x):
        phi = np.mean(x / (x**2 - z**2))
        return np.log(phi * (p / n * phi + (1 - p / n) / x))

    low, high = z.max(), 100 * z.max()
    while high - low > 1e-9 * high:
        x = (low + high) / 2
        h = 1e-6 * (x - z.max())
        psi = x * (log_d(x + h) - log_d(x - h)) / (2 * h)
        low, high = (x, high) if psi < -4 else (low, x)
    return int((y > high).sum())


# The package screenot 0.0.2 for seeds 0 to 11: adaptiveHardThresholding(matrix, k)[2].
PACKAGE = [
    ((64, 64), 5, [2, 3, 3, 3, 2, 2, 3, 3, 2, 1, 4, 3]),
    ((64, 64), 12, [3, 4, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3]),
    ((64, 40), 5, [3, 2, 2, 3, 3, 2, 3, 2, 2, 3, 3, 3]),
    ((64, 40), 12, [4, 4, 3, 4, 3, 3, 4, 3, 3, 4, 3, 3]),
    ((40, 64), 12, [2, 3, 3, 3, 3, 3, 3, 2, 2, 3, 2, 3]),
    ((200, 50), 5, [3, 4, 4, 4, 4, 3, 4, 4, 3, 3, 3, 3]),
]


@pytest.mark.parametrize(("shape", "k", "expected"), PACKAGE)
def test_against_the_package_and_the_threshold_by_bisection(shape, k, expected):
    y = torch.stack([values(spiked(*shape, np.linspace(1, 4, 6), seed)) for seed in range(12)])
    found = screenot_rank(y, shape, k)
    assert found.dtype == torch.int64
    assert found.tolist() == expected
    assert [twin(one, shape, k) for one in y] == expected


@pytest.mark.parametrize("k", [3, 8])
def test_a_matrix_of_low_rank_has_zeros_beyond(k):
    # The factored W_QK of a head gives d_head singular values of d.
    generator = np.random.default_rng(0)
    left, right = generator.standard_normal((2, 64, 24)) / 8
    left[:, :3] *= [[4, 3, 2.5]]
    y = values(left @ right.T)[:24]
    assert screenot_rank(y, (64, 64), k).item() == twin(y, (64, 64), k) > 0


def test_spikes_far_above_noise_and_noise_alone():
    far = values(spiked(80, 60, np.array([8.0, 7.0, 6.0, 5.0]), 0))
    assert screenot_rank(far, (80, 60), 10).item() == 4
    assert screenot_rank(far, (60, 80), 10).item() == 4
    # Signal that is taken for the tail of the noise hides the rest of it.
    assert screenot_rank(far, (80, 60), 2).item() == 0
    assert screenot_rank(far * 1e-9, (80, 60), 10).item() == 4
    alone = values(spiked(80, 60, np.array([0.0]), 0))
    assert screenot_rank(alone, (80, 60), 10).item() == 0


def test_the_bound_is_clamped_to_what_the_tail_allows():
    # Of 11 values 2 k + 1 < 11 allows k = 4.
    spikes = np.array([3.5, 3.0, 2.5])
    y = torch.stack([values(spiked(12, 11, spikes, seed)) for seed in range(12)])
    found = [screenot_rank(y, (12, 11), k).tolist() for k in (4, 5, 100)]
    assert found == [[twin(one, (12, 11), 4) for one in y]] * 3
    assert found[0] != [twin(one, (12, 11), 5) for one in y]


def test_nothing_stands_out_of_zero_or_nan():
    y = torch.stack([torch.zeros(8), torch.full((8,), torch.nan), torch.ones(8)])
    assert screenot_rank(y, (8, 8), 2).tolist() == [0, 0, 0]


@pytest.mark.parametrize(("given", "k"), [(8, 0), (3, 1), (9, 1)])
def test_errors(given, k):
    with pytest.raises(ValueError, match=f"`max_rank` is {k} and there are {given} singular"):
        screenot_rank(torch.ones(given), (8, 20), k)
