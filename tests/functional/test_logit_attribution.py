import pytest
import torch
from torch import nn

from lit_credit.functional import (
    accuracy_bound,
    association_bound,
    logit_attribution,
    logit_margins,
    shared_work,
    through_frozen_norm,
)
from tests.functional.heads import randn

P, M, D, N = 3, 11, 4, 6


@pytest.mark.parametrize("kind", [nn.LayerNorm, nn.RMSNorm])
def test_parts_add_up_to_what_the_norm_and_the_unembedding_make(kind):
    parts, w = randn(P, M, D), randn(N, D, seed=1)
    norm = kind(D, eps=1e-3).double()
    nn.init.uniform_(norm.weight, 0.5, 2.0)
    stream = parts.sum(0)
    through = through_frozen_norm(
        parts, stream, norm.weight, norm.eps, centred=kind is nn.LayerNorm
    )
    logits = logit_attribution(through, w)
    torch.testing.assert_close(logits.sum(0), norm(stream) @ w.mT)
    for p in range(P):
        for m in range(M):
            torch.testing.assert_close(logits[p, m], w @ through[p, m].detach())


def test_shared_work_against_a_loop():
    f, target = randn(P, M, N), torch.arange(M) % N
    f[:, 0] = torch.nn.functional.one_hot(target[0], N)  # all heads are right, which is rare
    work = shared_work(logit_margins(f, target))
    right = [[int(f[p, m].argmax()) == int(target[m]) for m in range(M)] for p in range(P)]
    assert work.solo.tolist() == pytest.approx([sum(row) / M for row in right])
    columns = list(zip(*right, strict=True))
    assert work.all_right.item() == pytest.approx(sum(map(all, columns)) / M)
    assert work.none_right.item() == pytest.approx(sum(not any(c) for c in columns) / M)
    assert 0 < work.all_right < work.none_right
    assert shared_work(torch.zeros(2, 3)).none_right.item() == 1  # ties
    undefined = shared_work(torch.tensor([[1.0, 1.0], [1.0, torch.nan]]))
    assert torch.stack([*undefined.solo, *undefined[1:]]).isnan().tolist() == [False, *[True] * 3]


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match=r"expected \(..., d\) and \(N, d\)"):
        logit_attribution(randn(M, D + 1), randn(N, D))
    with pytest.raises(ValueError, match=r"`margins` has shape \(11,\)"):
        shared_work(randn(M))


def test_bounds_grow_with_heads_up_to_all():
    bounds = [accuracy_bound(association_bound(h, 10, 10), 2500, 50) for h in (1, 11, 31, 300)]
    assert bounds == pytest.approx([0.02784, 0.06704, 0.14544, 1.0])
    assert accuracy_bound(0, 2500, 50) == pytest.approx(1 / 50)
    for arguments, name in (((-1, 5, 5), "heads"), ((1, 0, 5), "head_size"), ((1, 5, 0), "width")):
        with pytest.raises(ValueError, match=f"`{name}`"):
            association_bound(*arguments)
    with pytest.raises(ValueError, match="`contexts` is 0"):
        accuracy_bound(1, 0, 5)
