"""What a map reads of points, against numpy."""

import numpy as np
import pytest
import torch

from lit_credit.studies.addition import digit_readout


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


def test_of_rank_one_it_is_what_the_factors_read():
    e, h, a, b = random(10, 2), random(2, 5), random(5) + 1, random(5) - 2
    found = digit_readout(e, torch.outer(b, h @ a))
    expected = b.norm() * e @ h @ a
    slope = np.polyfit(range(10), expected.numpy(), 1)[0]
    torch.testing.assert_close(found.values, expected * np.sign(slope), rtol=1e-4, atol=1e-4)
    assert float(found.share) == pytest.approx(1)
    torch.testing.assert_close(found.write.abs(), (b / b.norm()).abs())
    torch.testing.assert_close(torch.outer(found.write, found.values), torch.outer(b, e @ h @ a))


def test_linearity_is_the_r_squared_of_a_fit():
    e, matrix = random(10, 2), random(5, 2)
    found = digit_readout(e, matrix)
    expected = np.corrcoef(np.arange(10), found.values.numpy())[0, 1]
    assert expected > 0
    assert float(found.linearity) == pytest.approx(expected**2, rel=1e-4)
    s = np.linalg.svd(matrix.numpy())[1]
    assert float(found.share) == pytest.approx(s[0] ** 2 / (s**2).sum(), rel=1e-5)


def test_points_of_a_line_are_read_as_one_and_equal_ones_have_no_line():
    line = torch.outer(torch.arange(10.0), torch.tensor([-1.0, 2.0]))
    assert float(digit_readout(line, random(5, 2)).linearity) == pytest.approx(1)
    assert digit_readout(torch.ones(10, 2), random(5, 2)).linearity.isnan()


@pytest.mark.parametrize("value", [0.0, torch.nan])
def test_a_map_that_reads_nothing_is_undefined(value):
    found = digit_readout(random(10, 2), torch.full((5, 2), value))
    assert all(x.isnan().all() for x in found)
