"""Errors of sums against loops over sums and columns."""

import math

import pytest
import torch

from lit_credit.studies.addition import column_errors, digit_differences, exact_by_run


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
