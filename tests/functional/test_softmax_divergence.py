import math

import pytest
import torch
from torch.nn import functional as F

from lit_credit.functional import logit_margins, softmax_divergence, top_probability
from tests.functional.heads import randn


def test_against_a_loop():
    f, p = randn(5, 6), randn(5, 6, seed=1).softmax(-1)
    p[0] = F.one_hot(torch.tensor(2), 6)
    divergence, top = softmax_divergence(f, p), top_probability(f, p)
    target = torch.tensor([0, 5, 2, 2, 1])
    margins = logit_margins(f, target)
    for m in range(5):
        z = sum(math.exp(x) for x in f[m].tolist())
        q = [math.exp(x) / z for x in f[m].tolist()]
        pairs = zip(p[m].tolist(), q, strict=True)
        kl = sum(a * (math.log(a) - math.log(b)) for a, b in pairs if a > 0)
        assert divergence[m].item() == pytest.approx(kl)
        assert top[m].item() == p[m][q.index(max(q))]
        wrong = [x for i, x in enumerate(f[m].tolist()) if i != target[m]]
        assert margins[m].item() == pytest.approx(f[m, target[m]].item() - max(wrong))


def test_ends_of_the_range():
    one, other = torch.eye(2)
    assert softmax_divergence(torch.tensor([1e4, -1e4]), one).item() == 0
    assert softmax_divergence(torch.tensor([0.0, -torch.inf]), one).item() == 0
    assert softmax_divergence(torch.tensor([0.0, -torch.inf]), other).item() == math.inf
    assert softmax_divergence(torch.tensor([0.0, math.nan]), one).isnan()
    assert top_probability(torch.tensor([0.0, math.nan]), one).isnan()
    assert logit_margins(torch.ones(2), torch.tensor(0)).item() == 0


def test_targets_broadcast_over_heads_and_others_are_refused():
    f = randn(3, 4, 5)
    target = torch.tensor([0, 1, 2, 3])
    torch.testing.assert_close(logit_margins(f, target)[1], logit_margins(f[1], target))
    for bad, message in ((target[:3], "does not broadcast"), (target.float(), "dtype")):
        with pytest.raises(ValueError, match=message):
            logit_margins(f, bad)
    with pytest.raises(ValueError, match="at least two symbols"):
        logit_margins(f[..., :1], target)
    with pytest.raises(ValueError, match=r"`logits` and `probs` have shapes \(3, 4, 5\)"):
        softmax_divergence(f, f[0])
