"""The functions of the study against loops and numpy."""

import math

import numpy as np
import pytest
import torch

from lit_credit.studies.addition import (
    best_ratio,
    column_errors,
    digit_differences,
    digit_readout,
    exact_by_run,
    force_ratio,
    place_value_ratio,
    without_source,
)

# Errors of sums.


@pytest.fixture
def sums():
    generator = torch.Generator().manual_seed(1)
    predicted, target = torch.randint(10, (2, 60, 4), generator=generator)
    carries = torch.rand(60, 4, generator=generator) < 0.4
    carries[:, 0] = False
    return predicted, target, carries


def share(values):
    return sum(values) / len(values) if values else math.nan


def test_errors_by_column_and_carry(sums):
    predicted, target, carries = sums
    found = column_errors(predicted != target, carries)
    for c in range(4):
        wrong = [(bool(p != t), bool(k)) for p, t, k in zip(*(x[:, c] for x in sums), strict=True)]
        expected = [
            share([w for w, _ in wrong]),
            share([w for w, carry in wrong if not carry]),
            share([w for w, carry in wrong if carry]),
        ]
        assert found[c].tolist() == pytest.approx(expected, nan_ok=True)
    assert found[0, 2].isnan()


def test_differences_are_counted_modulo_ten_and_by_carry(sums):
    counts = [[0] * 10, [0] * 10]
    for predicted, target, carry in zip(*(x.flatten().tolist() for x in sums), strict=True):
        counts[int(carry)][(predicted - target) % 10] += 1
    assert digit_differences(*sums).tolist() == counts


def test_right_sums_by_run():
    generator = torch.Generator().manual_seed(2)
    runs = torch.randint(5, (80,), generator=generator)
    runs[runs == 3] = 4
    right = torch.rand(80, generator=generator) < 0.5
    found = exact_by_run(right, runs, longest=4)
    for length in range(5):
        of_length = [bool(r) for r, n in zip(right, runs, strict=True) if n == length]
        assert float(found[length]) == pytest.approx(share(of_length), nan_ok=True)
    assert found.isnan().tolist() == [False, False, False, True, False]


# What is read of digits.


def drawn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


def test_of_rank_one_it_is_what_the_factors_read():
    e, h, a, b = drawn(10, 2), drawn(2, 5), drawn(5) + 1, drawn(5) - 2
    found = digit_readout(e, torch.outer(b, h @ a))
    expected = b.norm() * e @ h @ a
    slope = np.polyfit(range(10), expected.numpy(), 1)[0]
    torch.testing.assert_close(found.values, expected * np.sign(slope), rtol=1e-4, atol=1e-4)
    assert float(found.share) == pytest.approx(1)
    torch.testing.assert_close(found.write.abs(), (b / b.norm()).abs())
    torch.testing.assert_close(torch.outer(found.write, found.values), torch.outer(b, e @ h @ a))


def test_linearity_is_the_r_squared_of_a_fit():
    e, matrix = drawn(10, 2), drawn(5, 2)
    found = digit_readout(e, matrix)
    expected = np.corrcoef(np.arange(10), found.values.numpy())[0, 1]
    assert expected > 0
    assert float(found.linearity) == pytest.approx(expected**2, rel=1e-4)
    s = np.linalg.svd(matrix.numpy())[1]
    assert float(found.share) == pytest.approx(s[0] ** 2 / (s**2).sum(), rel=1e-5)


def test_points_of_a_line_are_read_as_one_and_equal_ones_have_no_line():
    line = torch.outer(torch.arange(10.0), torch.tensor([-1.0, 2.0]))
    assert float(digit_readout(line, drawn(5, 2)).linearity) == pytest.approx(1)
    assert digit_readout(torch.ones(10, 2), drawn(5, 2)).linearity.isnan()


@pytest.mark.parametrize("value", [0.0, torch.nan])
def test_a_map_that_reads_nothing_is_undefined(value):
    found = digit_readout(drawn(10, 2), torch.full((5, 2), value))
    assert all(x.isnan().all() for x in found)


def test_digits_at_points_that_are_not_finite():
    points = torch.tensor([[torch.nan, 0.0], [1.0, 0.0], [2.0, 0.0]])
    found = digit_readout(points, torch.tensor([[-1.0, 0.0]]))
    assert found.share == 1
    assert all(x.isnan().all() for x in (found.values, found.read, found.write))


# The place value.

ROWS = torch.tensor([2, 0, 3])
OWN = torch.tensor([[0, 4], [1, 5], [2, 6]])
LEAK = torch.tensor([[1, 2, 3], [0, 4, 6], [1, 5, 0]])


@pytest.fixture
def attention():
    return torch.randn(4, 7, generator=torch.Generator().manual_seed(0)).softmax(-1)


def test_the_ratio_is_that_of_a_loop(attention):
    found = place_value_ratio(attention, ROWS, OWN, LEAK)
    for c, row in enumerate(ROWS.tolist()):
        below = sum(float(attention[row, t]) for t in LEAK[c].tolist()) / 3
        own = sum(float(attention[row, t]) for t in OWN[c].tolist()) / 2
        assert float(found[c]) == pytest.approx(below / own)


def test_a_column_that_is_not_read_has_no_ratio(attention):
    attention[2, OWN[0]] = 0
    found = place_value_ratio(attention, ROWS, OWN, LEAK)
    assert found.isnan().tolist() == [True, False, False]


@pytest.mark.parametrize("ratio", [0.0, 0.1, 1.3])
def test_a_forced_ratio_is_found_again_and_the_rest_stays(attention, ratio):
    before = attention.clone()
    forced = force_ratio(attention, ROWS, OWN, LEAK, ratio)
    assert torch.equal(attention, before)
    torch.testing.assert_close(
        place_value_ratio(forced, ROWS, OWN, LEAK), torch.full((3,), ratio), atol=1e-6, rtol=0
    )
    torch.testing.assert_close(forced.sum(1), torch.ones(4))
    assert torch.equal(forced[1], attention[1])
    for c, row in enumerate(ROWS.tolist()):
        used = {*OWN[c].tolist(), *LEAK[c].tolist()}
        for t in set(range(7)) - used:
            assert forced[row, t] == attention[row, t]
        assert len({float(forced[row, t]) for t in OWN[c].tolist()}) == 1
        assert len({float(forced[row, t]) for t in LEAK[c].tolist()}) == 1


def test_a_source_taken_out_leaves_its_share_to_the_others(attention):
    left = without_source(attention, ROWS, LEAK[:, 1])
    for c, row in enumerate(ROWS.tolist()):
        gone = int(LEAK[c, 1])
        for t in range(7):
            kept = 0.0 if t == gone else float(attention[row, t] / (1 - attention[row, gone]))
            assert float(left[row, t]) == pytest.approx(kept)
    assert torch.equal(left[1], attention[1])


def test_the_best_ratio_is_the_middle_of_those_that_are_best():
    ratios = torch.tensor([0.05, 0.09, 0.1, 0.13])
    assert float(best_ratio(ratios, torch.tensor([0.5, 0.9, 0.4, 0.1]))) == pytest.approx(0.09)
    assert float(best_ratio(ratios, torch.tensor([0.5, 1.0, 1.0, 0.1]))) == pytest.approx(0.095)
    assert math.isnan(float(best_ratio(ratios, torch.zeros(4))))


def test_no_column_has_no_ratio():
    none = torch.zeros(0, dtype=torch.long)
    attention = torch.ones(2, 3) / 3
    assert place_value_ratio(attention, none, none.view(0, 2), none.view(0, 3)).shape == (0,)
    forced = force_ratio(attention, none, none.view(0, 2), none.view(0, 3), 0.1)
    assert torch.equal(forced, attention)


def test_a_negative_ratio_is_refused(attention):
    with pytest.raises(ValueError, match=r"`ratio` is -0\.1"):
        force_ratio(attention, ROWS, OWN, LEAK, -0.1)


def test_a_best_ratio_of_none_and_a_source_that_is_not_there():
    assert best_ratio(torch.ones(0), torch.ones(0)).isnan()
    with pytest.raises(ValueError, match="`source` holds numbers from 2 to 2"):
        without_source(torch.ones(1, 2), torch.tensor([0]), torch.tensor([2]))
