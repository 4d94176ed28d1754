import pytest
import torch
from torch import Generator

from lit_credit.functional import (
    duplicate_token_score,
    induction_score,
    previous_token_score,
    repeated_tokens,
)

SCORES = {
    "previous_token": lambda a, period: previous_token_score(a),
    "induction": induction_score,
    "duplicate_token": duplicate_token_score,
}


def sequences(n=3, period=5, repeats=2, vocab_size=11):
    generator = Generator().manual_seed(2)
    return repeated_tokens(n, period, repeats, vocab_size, generator)


def last_place(tokens, t):
    """Where the token at t was last seen before t, or None."""
    places = [s for s in range(t) if tokens[s] == tokens[t]]
    return places[-1] if places else None


def targets(tokens, score, t):
    """The key that a perfect head looks at from t, found in the tokens themselves."""
    if score == "previous_token":
        return t - 1 if t else None
    last = last_place(tokens, t)
    if last is None:
        return None
    return last if score == "duplicate_token" else last + 1


def perfect(tokens, score):
    """(N, 1, T, T): one-hot at the target, at the query itself without one."""
    n, length = tokens.shape
    a = torch.zeros(n, 1, length, length)
    for i in range(n):
        for t in range(length):
            target = targets(tokens[i].tolist(), score, t)
            a[i, 0, t, t if target is None else target] = 1
    return a


@pytest.mark.parametrize("repeats", [2, 3])
@pytest.mark.parametrize("score", SCORES)
def test_a_perfect_head_scores_one_and_nothing_else(score, repeats):
    a = perfect(sequences(repeats=repeats), score)
    for name, function in SCORES.items():
        found = float(function(a, 5))
        assert found == (1.0 if name == score else pytest.approx(0.0, abs=1e-12))


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("repeats", [2, 3])
def test_against_a_loop_over_tokens(score, repeats):
    tokens = sequences(repeats=repeats)
    n, length = tokens.shape
    generator = Generator().manual_seed(3)
    logits = torch.randn(n, 4, length, length, generator=generator)
    a = logits.masked_fill(~torch.ones(length, length).tril().bool(), -torch.inf).softmax(-1)
    found = SCORES[score](a, 5)
    for h in range(4):
        seen = []
        for i in range(n):
            for t in range(length):
                target = targets(tokens[i].tolist(), score, t)
                if target is not None:
                    seen.append(float(a[i, h, t, target]))
        assert float(found[h]) == pytest.approx(sum(seen) / len(seen), rel=1e-6)


def test_sequences_repeat_a_block_of_different_tokens():
    tokens = sequences(n=200, period=5, repeats=3, vocab_size=7)
    assert tokens.shape == (200, 15)
    blocks = tokens.unflatten(1, (3, 5))
    assert (blocks == blocks[:, :1]).all()
    assert all(len(set(block.tolist())) == 5 for block in blocks[:, 0])
    share = tokens.flatten().bincount(minlength=7) / tokens.numel()
    torch.testing.assert_close(share, torch.full((7,), 1 / 7), rtol=0, atol=0.03)
    assert torch.equal(tokens, sequences(n=200, period=5, repeats=3, vocab_size=7))


def test_half_precision_is_averaged_in_float64():
    a = perfect(sequences(), "induction").bfloat16()
    assert float(induction_score(a, 5)) == 1.0


def test_undefined_stays_undefined():
    a = perfect(sequences(), "induction").repeat(1, 2, 1, 1)
    a[:, 1] = torch.nan
    assert induction_score(a, 5)[0] == 1
    assert induction_score(a, 5)[1].isnan()


def test_arguments_are_checked():
    a = torch.ones(1, 1, 6, 6)
    with pytest.raises(ValueError, match=r"`period` is 12, .* at most `vocab_size` of them, 11"):
        sequences(period=12)
    for function in (induction_score, duplicate_token_score):
        with pytest.raises(ValueError, match="`period` is 1, expected at least 2"):
            function(a, 1)
        with pytest.raises(ValueError, match=r"\(1, 1, 6, 6\), expected .* T above 6"):
            function(a, 6)
    for wrong in (torch.ones(1, 1, 5, 6), torch.ones(6, 6), torch.ones(1, 1, 1, 1)):
        with pytest.raises(ValueError, match="`attention` has shape"):
            previous_token_score(wrong)
