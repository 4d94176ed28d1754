"""A net whose logits are NaN answers nothing, and not the first symbol."""

import torch

from lit_credit.studies.addition.layout import AdditionLayout
from lit_credit.studies.addition.task import ExactMatch, SumTarget
from lit_credit.studies.copying.task import CopyError, CopyTarget
from lit_credit.studies.ngram.task import ExpectedAccuracy, MemorizedContexts, NGramTarget


def computed(metric, logits, target):
    metric.update(logits, target)
    return metric.compute()


def test_of_contexts():
    first = NGramTarget(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.ones(2))
    logits = torch.tensor([[torch.nan, 0.0], [1.0, 0.0]])  # the first symbol is right
    assert computed(ExpectedAccuracy(), logits, first).isnan()
    assert computed(MemorizedContexts(), logits, first) == 1


def test_of_copies():
    target = CopyTarget(torch.zeros(1, 2).long(), torch.ones(1, 2).bool(), torch.tensor([False]))
    logits = torch.tensor([[[torch.nan, 0.0], [1.0, 0.0]]])
    assert computed(CopyError(ood=False), logits, target) == 0.5


def test_of_sums():
    layout = AdditionLayout(digits=1)
    tokens = layout.encode(torch.tensor([0, 0]), torch.tensor([0, 0]))
    target = SumTarget(tokens, torch.tensor([False, False]), layout)
    right = torch.nn.functional.one_hot(target.answers, 10).float()
    assert computed(ExactMatch(forced=False), right, target) == 1
    right[0, 0] = torch.nan
    assert computed(ExactMatch(forced=False), right, target) == 0.5
