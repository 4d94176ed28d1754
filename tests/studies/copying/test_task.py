"""The error of a copy against a loop."""

import math

import torch

from lit_credit.studies.copying import CopyError, CopyTarget, PatternCopying


def test_errors_are_taken_where_scored_in_and_out_of_distribution_apart():
    generator = torch.Generator().manual_seed(0)
    task = PatternCopying()
    metrics = task.metrics()
    wrong, count = {True: 0, False: 0}, {True: 0, False: 0}
    for samples in (5, 2):  # batches of unequal size
        x, y = torch.randint(4, (2, samples, 6), generator=generator)
        scored = torch.rand(samples, 6, generator=generator) < 0.5
        ood = torch.arange(samples) % 2 == 1
        logits = torch.randn(samples, 6, 4, generator=generator)
        batch = x, y, scored, ood
        for metric in metrics.values():
            metric.update(logits, task.target(batch))
        for n in range(samples):
            for t in range(6):
                if scored[n, t]:
                    count[bool(ood[n])] += 1
                    wrong[bool(ood[n])] += int(logits[n, t].argmax() != y[n, t])
    assert 0 < wrong[True] < count[True]
    assert math.isclose(metrics["ood_error"].compute(), wrong[True] / count[True], rel_tol=1e-6)
    assert math.isclose(metrics["id_error"].compute(), wrong[False] / count[False], rel_tol=1e-6)


def test_the_error_of_nothing_is_undefined():
    x = torch.zeros(1, 3, dtype=torch.long)
    batch = x, x, torch.ones(1, 3).bool(), torch.tensor([False])
    task = PatternCopying()
    metric = task.metrics()["ood_error"]
    metric.update(torch.zeros(1, 3, 4), task.target(batch))
    assert metric.compute().isnan()


def test_a_net_whose_logits_are_nan_does_not_answer_the_first_symbol():
    target = CopyTarget(torch.zeros(1, 2).long(), torch.ones(1, 2).bool(), torch.tensor([False]))
    metric = CopyError(ood=False)
    metric.update(torch.tensor([[[torch.nan, 0.0], [1.0, 0.0]]]), target)
    assert metric.compute() == 0.5
