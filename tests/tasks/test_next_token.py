"""Next-token loss and metrics against loops."""

import math

import pytest
import torch

from lit_credit.tasks import NextToken


def test_loss_and_metrics_are_means_over_all_positions_of_all_batches():
    generator = torch.Generator().manual_seed(0)
    task = NextToken()
    metrics = task.metrics()
    nats = []
    for samples in (3, 1):  # batches of unequal size
        x = torch.randint(5, (samples, 4), generator=generator)
        y = torch.randint(5, (samples, 4), generator=generator)
        logits = torch.randn(samples, 4, 5, generator=generator)
        own = [
            -logits[n, t].softmax(0)[y[n, t]].log().item() for n in range(samples) for t in range(4)
        ]
        assert math.isclose(task.loss(logits, (x, y)).item(), sum(own) / len(own), rel_tol=1e-5)
        assert task.inputs((x, y)) == (x,)
        for metric in metrics.values():
            metric.update(logits, task.target((x, y)))
        nats += own
    mean = sum(nats) / len(nats)
    assert math.isclose(metrics["perplexity"].compute(), math.exp(mean), rel_tol=1e-5)
    assert math.isclose(metrics["bits_per_character"].compute(), mean / math.log(2), rel_tol=1e-5)


def test_logits_of_another_shape_are_refused():
    batch = torch.zeros(2, 4, dtype=torch.long), torch.zeros(2, 4, dtype=torch.long)
    with pytest.raises(ValueError, match=r"\(2, 5\).*\(2, 4\)"):
        NextToken().loss(torch.zeros(2, 5), batch)
