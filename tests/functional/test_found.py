"""What the properties found, pinned: each was once a wrong number or an error from deep inside."""

import math

import pytest
import torch
from torch import nan

from lit_credit import functional
from lit_credit.functional import FactoredMatrix

ONE = FactoredMatrix(torch.ones(2, 1), torch.ones(2, 1))
SPOILT = FactoredMatrix(torch.tensor([[nan], [1.0]]), torch.ones(2, 1))


def test_nan_in_the_first_entry_of_a_factor():
    # LAPACK's R of such a column is finite.
    assert SPOILT.norm().isnan()
    assert SPOILT.svd().s.isnan().all()
    assert functional.product_norm(SPOILT, ONE).isnan()
    assert functional.composition_scores(SPOILT, ONE, ONE).key.isnan()


def test_the_largest_numbers_have_a_direction():
    # Their logarithm rounds up to that of infinity.
    for dtype in (torch.float32, torch.float64):
        x = torch.full((1, 3), torch.finfo(dtype).max, dtype=dtype)
        assert functional.gradient_cosine(x, x).item() == 1


def test_undefined_is_nan():
    assert functional.cosine_matrix(torch.ones(2, 0)).isnan().all()
    assert functional.feature_dimensionality(torch.ones(2, 0)).isnan().all()
    assert functional.participation_ratio(torch.ones(2, 0, 3)).isnan().all()
    assert math.isnan(functional.accuracy_bound(nan, contexts=2, vocab_size=2))


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_squares_of_float32_neither_overflow_nor_vanish(scale):
    x = torch.diag(torch.tensor([2.0, 1.0])) * scale
    a = FactoredMatrix(x, torch.eye(2))
    assert a.norm().item() == pytest.approx(5**0.5 * scale)
    assert functional.leading_directions(x, 1).abs().tolist() == [[1.0], [0.0]]
    assert functional.composition_scores(a, a, a).key.item() == pytest.approx(17**0.5 / 5)
    assert not functional.diagonal_score(a, a).isnan()
    assert functional.token_mismatch(x, a, a).item() == 0
    assert functional.position_matching(x, x, [2]).token.item() == pytest.approx(1)


def test_the_spread_of_huge_values():
    assert functional.mean_and_sd(torch.ones(2, 0)).sd.shape == (0,)  # and no warning
    assert functional.mean_and_sd([1e300, 3e300]).sd.item() == pytest.approx(2**0.5 * 1e300)


@pytest.mark.parametrize("wrong", [{"context": 0}, {"length": -1}])
def test_tokens_without_a_context(wrong):
    arguments = {"length": 2, "context": 1, **wrong}
    with pytest.raises(ValueError, match=f"`{next(iter(wrong))}` is"):
        functional.sample_tokens(lambda x: torch.ones(1, 1, 3), torch.tensor([0]), **arguments)


@pytest.mark.parametrize("logit", [nan, math.inf])
def test_tokens_of_logits_that_are_no_numbers(logit):
    for temperature in (0, 1):
        with pytest.raises(ValueError, match="`logits_of` gave"):
            functional.sample_tokens(
                lambda x: torch.tensor([[[logit, 0.0]]]), torch.tensor([0]), 1, 1, temperature
            )


def test_places_that_are_not_there():
    with pytest.raises(
        ValueError, match="`target` holds numbers from 2 to 2, expected from 0 to 1"
    ):
        functional.logit_margins(torch.ones(1, 2), torch.tensor([2]))
