import numpy as np
import pytest

from lit_credit.functional import match_baseline


def simulated(d, rank, other, draws):
    """Mean and sd of rms and largest between a fixed and random subspaces."""
    generator = np.random.default_rng(0)
    basis = np.linalg.qr(generator.standard_normal((draws, d, rank)))[0]
    s = np.linalg.svd(basis[:, :other], compute_uv=False)
    rms = np.sqrt((s**2).mean(-1))
    return rms.mean(), rms.std(), s[:, 0].mean(), s[:, 0].std()


# At rank 2 Johnstone's law is off by .015, at 5 by .007, at 10 to 28 by .004.
@pytest.mark.parametrize(
    ("d", "rank", "other", "tolerance"),
    [
        (64, 2, 2, 0.019),
        (64, 5, 5, 0.011),
        (64, 10, 10, 0.006),
        (64, 20, 20, 0.003),
        (64, 28, 28, 0.003),
        (64, 5, 20, 0.006),
        (64, 20, 5, 0.006),
        (128, 15, 15, 0.006),
    ],
)
def test_against_random_subspaces(d, rank, other, tolerance):
    rms, rms_sd, largest, largest_sd = simulated(d, rank, other, 1500)
    found = match_baseline(d, rank, other)
    assert found.rms_mean == pytest.approx(rms, abs=4 * rms_sd / 1500**0.5)
    assert found.rms_sd == pytest.approx(rms_sd, rel=0.07)
    assert found.largest_mean == pytest.approx(largest, abs=tolerance)
    assert found.largest_sd == pytest.approx(largest_sd, rel=0.25)


@pytest.mark.parametrize(("d", "rank", "other"), [(64, 1, 1), (64, 1, 5), (16, 1, 15)])
def test_one_direction_is_exact(d, rank, other):
    rms, sd, *_ = simulated(d, rank, other, 4000)
    found = match_baseline(d, rank, other)
    assert found[2:] == found[:2]
    assert found.rms_mean == pytest.approx(rms, abs=4 * sd / 4000**0.5)
    assert found.rms_sd == pytest.approx(sd, rel=0.05)


@pytest.mark.parametrize(("d", "rank", "other"), [(64, 32, 32), (32, 8, 24)])
def test_the_edge_where_two_subspaces_just_fit(d, rank, other):
    *_, largest, sd = simulated(d, rank, other, 1000)
    found = match_baseline(d, rank, other)
    assert 1 - found.largest_mean == pytest.approx(1 - largest, rel=0.15)
    assert found.largest_sd == pytest.approx(sd, rel=0.15)
    assert found == match_baseline(d, other, rank)


@pytest.mark.parametrize(("d", "rank", "other"), [(32, 20, 20), (16, 10, 7), (16, 1, 16)])
def test_subspaces_that_must_share_a_direction(d, rank, other):
    rms, sd, largest, largest_sd = simulated(d, rank, other, 1500)
    assert (largest, largest_sd) == pytest.approx((1, 0), abs=1e-12)
    found = match_baseline(d, rank, other)
    assert (found.largest_mean, found.largest_sd) == (1, 0)
    assert found.rms_mean == pytest.approx(rms, abs=4 * sd / 1500**0.5 + 1e-12)
    assert found.rms_sd == pytest.approx(sd, rel=0.07, abs=1e-7)


def test_the_study_s_numbers():
    # rms .395 at rank 10 and .559 at rank 20, largest .668 at rank 10, measured there on draws.
    assert match_baseline(64, 10).rms_mean == pytest.approx(0.395, abs=5e-4)
    assert match_baseline(64, 20).rms_mean == pytest.approx(0.559, abs=5e-4)
    assert match_baseline(64, 10).largest_mean == pytest.approx(0.668, abs=4e-3)


@pytest.mark.parametrize(("d", "rank", "other"), [(8, 0, 1), (8, 1, 9), (1, 1, 1)])
def test_ranks_that_there_are_not(d, rank, other):
    with pytest.raises(ValueError, match=f"`d` is {d} and the ranks are {rank} and {other}"):
        match_baseline(d, rank, other)
