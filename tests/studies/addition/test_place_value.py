"""The place-value ratio against a loop over columns and sources."""

import math

import pytest
import torch

from lit_credit.studies.addition import best_ratio, force_ratio, place_value_ratio, without_source

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
