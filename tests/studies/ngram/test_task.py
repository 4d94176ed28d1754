"""Losses and metrics of n-gram prediction against loops."""

import math

import pytest
import torch

from lit_credit.studies.ngram import NGramPrediction, NGramTarget


def batch(count=7, symbols=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.rand(count, symbols, generator=generator)
    rows[rows < 0.2] = 0
    rows[0] = torch.eye(symbols)[2]
    rows /= rows.sum(1, keepdim=True)
    weight = torch.rand(count, generator=generator)
    y = torch.multinomial(rows, 1, generator=generator).squeeze(1)
    logits = torch.randn(count, symbols, generator=generator)
    return logits, (torch.zeros(count, 2).long(), y, rows, weight)


def test_losses_against_a_loop():
    logits, (x, y, rows, weight) = batch()
    next_token = expected = divergence = 0.0
    for i in range(7):
        p = logits[i].exp() / logits[i].exp().sum()
        w = weight[i].item() / 7
        next_token -= w * math.log(p[y[i]])
        expected -= w * sum((rows[i, v] * p[v].log()).item() for v in range(5))
        live = [v for v in range(5) if rows[i, v] > 0]
        divergence += w * sum((rows[i, v] * (rows[i, v] / p[v]).log()).item() for v in live)
    sampled, exact = NGramPrediction("next_token"), NGramPrediction("divergence")
    data = x, y, rows, weight
    assert sampled.loss(logits, data).item() == pytest.approx(next_token, rel=1e-5)
    assert sampled.loss(logits, (x, rows, rows, weight)).item() == pytest.approx(expected, rel=1e-5)
    assert exact.loss(logits, data).item() == pytest.approx(divergence, rel=1e-5)
    assert not math.isclose(next_token, expected, rel_tol=0.01)


def test_metrics_against_a_loop():
    task, totals, memorized = NGramPrediction(), dict.fromkeys(("kl", "accuracy", "margin"), 0.0), 0
    metrics = task.metrics()
    whole = 0.0
    for seed, count in ((0, 7), (1, 3)):  # batches of unequal weight
        logits, data = batch(count, seed=seed)
        data[3][1] = 0.0  # no context
        for metric in metrics.values():
            metric.update(logits, task.target(data))
        for row, z, w in zip(data[2], logits, data[3].tolist(), strict=True):
            whole += w
            log_p = (z - z.logsumexp(0)).tolist()
            pairs = [(q, lp) for q, lp in zip(row.tolist(), log_p, strict=True) if q > 0]
            totals["kl"] += w * sum(q * (math.log(q) - lp) for q, lp in pairs)
            totals["accuracy"] += w * row[z.argmax()].item()
            right = int(row.argmax())
            others = [z[v].item() for v in range(5) if v != right]
            totals["margin"] += w * (z[right].item() - max(others))
            memorized += int(w > 0 and int(z.argmax()) == right)
    for name, total in totals.items():
        assert metrics[name].compute().item() == pytest.approx(total / whole, rel=1e-5), name
    assert metrics["memorized"].compute() == memorized
    assert 0 < memorized < 8
    assert next(iter(metrics)) == "kl"


def test_either_of_two_most_likely_symbols_is_memorized():
    target = NGramTarget(torch.tensor([[0.4, 0.4, 0.2]]).repeat(3, 1), torch.ones(3))
    metric = NGramPrediction().metrics()["memorized"]
    metric.update(torch.eye(3), target)
    assert metric.compute() == 2


def test_what_does_not_fit_is_named():
    logits, data = batch()
    with pytest.raises(ValueError, match=r"\(7, 4\), expected \(7, 5\), .*`vocab_size`"):
        NGramPrediction().loss(logits[:, :4], data)
    with pytest.raises(ValueError, match="`loss` is 'kl', expected 'next_token' or 'divergence'"):
        NGramPrediction("kl")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_metrics_of_another_precision(dtype):
    logits, (_, _, rows, weight) = batch()
    for name, metric in NGramPrediction().metrics().items():
        expected, found = metric, metric.clone()
        expected.update(logits, NGramTarget(rows, weight))
        found.update(logits.to(dtype), NGramTarget(rows.to(dtype), weight.to(dtype)))
        assert found.compute().item() == pytest.approx(expected.compute().item(), abs=0.03), name


def test_metrics_do_not_round_in_mixed_precision():
    logits, (_, _, rows, weight) = batch()
    for name, metric in NGramPrediction().metrics().items():
        found = metric.clone()
        metric.update(logits, NGramTarget(rows, weight))
        with torch.autocast("cpu", torch.bfloat16):
            found.update(logits, NGramTarget(rows, weight))
        assert found.compute().item() == pytest.approx(metric.compute().item(), rel=1e-6), name


def test_a_net_whose_logits_are_nan_does_not_answer_the_first_symbol():
    first = NGramTarget(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.ones(2))
    logits = torch.tensor([[torch.nan, 0.0], [1.0, 0.0]])
    metrics = NGramPrediction().metrics()
    for metric in metrics.values():
        metric.update(logits, first)
    assert metrics["accuracy"].compute().isnan()
    assert metrics["memorized"].compute() == 1
