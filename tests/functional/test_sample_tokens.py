"""Sampling symbol by symbol."""

import pytest
import torch

from lit_credit.functional import sample_tokens


def test_frequencies_are_those_of_the_softmax_at_a_temperature():
    logits = torch.tensor([0.0, 1.0, 2.0])
    drawn = sample_tokens(
        lambda x: logits.expand(*x.shape, 3),
        torch.tensor([0]),
        length=4000,
        context=1,
        temperature=0.5,
        generator=torch.Generator().manual_seed(0),
    )
    shares = torch.bincount(drawn, minlength=3) / 4000
    torch.testing.assert_close(shares, (logits / 0.5).softmax(0), atol=0.02, rtol=0)


def test_the_model_sees_the_last_symbols_only_and_zero_temperature_takes_the_largest():
    seen = []

    def logits_of(x):
        seen.append(x[0].tolist())
        return torch.nn.functional.one_hot((x + 1) % 7, 7).float()

    drawn = sample_tokens(logits_of, torch.tensor([3, 4]), length=4, context=3, temperature=0)
    assert drawn.tolist() == [5, 6, 0, 1]
    assert seen == [[3, 4], [3, 4, 5], [4, 5, 6], [5, 6, 0]]


@pytest.mark.parametrize("bad", [{"prompt": torch.tensor([])}, {"temperature": -1}])
def test_bad_arguments_are_named(bad):
    arguments = {"prompt": torch.tensor([0]), "length": 1, "context": 1} | bad
    with pytest.raises(ValueError, match=f"`{next(iter(bad))}`"):
        sample_tokens(lambda x: x, **arguments)
