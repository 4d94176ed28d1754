"""What is measured of sums, against loops."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from lit_credit.rules import BP
from lit_credit.studies.addition import Addition, AdditionTask, MicroAdder
from tests.support import quiet_trainer

DIGITS = 4


def batch_of(count=300, chains=20, seed=0):
    data = Addition(digits=DIGITS, val_size=count, val_chains=chains, seed=seed)
    return next(iter(data.val_dataloader()))


def answers_with_errors(batch, rate, generator):
    """Logits of the right answers, but for some."""
    tokens, _ = batch
    answers = tokens[:, AdditionTask(DIGITS).layout.answers].clone()
    wrong = torch.rand(answers.shape, generator=generator) < rate
    answers[wrong] = (answers[wrong] + 1) % 10
    noise = torch.rand(*answers.shape, 10, generator=generator)
    return torch.nn.functional.one_hot(answers, 10) * 2.0 + noise


def loop(batch, logits):
    """Shares by name, one digit at a time."""
    counts = {}

    def count(name, hit):
        hits, total = counts.get(name, (0, 0))
        counts[name] = hits + bool(hit), total + 1

    for sequence, forced, scores in zip(*(x.tolist() for x in (*batch, logits)), strict=True):
        x, y, answer = sequence[:4], sequence[5:9], sequence[10:]
        guesses = [row.index(max(row)) for row in scores]
        carry, run, longest = 0, 0, 0
        for i in range(DIGITS + 1):
            run = run + 1 if carry else 0
            longest = max(longest, run)
            if not forced:
                count(f"error/Z{i:02d}", guesses[i] != answer[i])
                count(f"error/carry{carry}", guesses[i] != answer[i])
            carry = int(i < DIGITS and x[i] + y[i] + carry > 9)
        count("chains" if forced else "exact", guesses == answer)
        count(f"run/R{longest:02d}", guesses == answer)
        if not forced:
            for guess, symbol in zip(guesses, answer, strict=True):
                count("token_accuracy", guess == symbol)
    return {name: hits / total for name, (hits, total) in counts.items()}


@pytest.mark.parametrize("everywhere", [True, False])
def test_metrics_and_loss_against_loops(everywhere):
    generator = torch.Generator().manual_seed(0)
    task = AdditionTask(DIGITS)
    metrics = task.metrics()
    batches = [batch_of(), batch_of(77, 3, seed=1)]
    logits = [answers_with_errors(batch, 0.1, generator) for batch in batches]
    for batch, rows in zip(batches, logits, strict=True):
        before = torch.randn(len(rows), 9, 10, generator=generator)
        output = torch.cat([before, rows], 1) if everywhere else rows
        for metric in metrics.values():
            metric.update(output, task.target(batch))
        expected = cross_entropy(rows.reshape(-1, 10), batch[0][:, 10:].reshape(-1))
        torch.testing.assert_close(task.loss(output, batch), expected)
    whole = tuple(torch.cat(parts) for parts in zip(*batches, strict=True))
    expected = loop(whole, torch.cat(logits))
    assert expected.keys() == metrics.keys()
    for name, metric in metrics.items():
        assert metric.compute().item() == pytest.approx(expected[name]), name
    assert 0 < expected["exact"] < expected["token_accuracy"] < 1


def test_counts_that_agree_on_the_first_batch_are_not_taken_for_the_same():
    generator = torch.Generator().manual_seed(0)
    rule = BP(MicroAdder(DIGITS), AdditionTask(DIGITS))
    right, other = batch_of(), batch_of(seed=1)
    rule.val_metrics.update(answers_with_errors(right, 0.0, generator), rule.task.target(right))
    logits = answers_with_errors(other, 0.0, generator)
    logits[:, 0] = -logits[:, 0]  # Z0 is wrong
    rule.val_metrics.update(logits, rule.task.target(other))
    found = {name: value.item() for name, value in rule.val_metrics.compute().items()}
    assert found["val/error/Z00"] == pytest.approx(0.5, abs=0.01)
    assert found["val/error/Z01"] == 0


def greedy(net, tokens, layout):
    """The answer that the net writes, one symbol after the other."""
    tokens = tokens.clone()
    tokens[:, layout.answers] = 0
    for place in range(layout.index("Z0"), layout.length):
        logits = net(tokens[:, :-1])
        row = place - 1 - layout.rows.start
        tokens[:, place] = logits[:, row].argmax(-1)
    return tokens


@pytest.mark.few(1)
@pytest.mark.parametrize("epochs", [0, 4])
def test_exact_match_is_that_of_greedy_decoding(epochs):
    torch.manual_seed(1)
    net = MicroAdder(DIGITS, norm="separate", output="full", hidden=16, ffn_bias=True)
    rule = BP(net, AdditionTask(DIGITS), lambda p: torch.optim.AdamW(p, lr=0.02))
    data = Addition(DIGITS, 256, 250, [[0, 1], [300, 2]], val_size=50, val_chains=5, seed=0)
    if epochs:
        quiet_trainer(max_epochs=epochs, limit_val_batches=0).fit(rule, datamodule=data)
    layout = rule.task.layout
    every = torch.arange(100)
    easy = layout.encode(every.repeat(100), every.repeat_interleave(100))
    batch = easy, torch.zeros(len(easy), dtype=torch.bool)
    metric = rule.task.metrics()["exact"]
    with torch.no_grad():
        metric.update(net(easy[:, :-1]), rule.task.target(batch))
        written = greedy(net, easy, layout)
    share = (written == easy).all(1).float().mean().item()
    assert metric.compute().item() == pytest.approx(share)
    # 0 without training; 0.10 to 0.25 over starts that differ by rounding.
    assert (share > 0.005) == (epochs > 0)


def test_sums_of_another_length_are_refused():
    batch = batch_of()
    message = (
        "`digits` of the task is 3, so that sums have 13 symbols and the net answers at 5 or 12"
    )
    with pytest.raises(ValueError, match=message):
        AdditionTask(3).loss(torch.zeros(len(batch[0]), 5, 10), batch)


def test_a_net_whose_logits_are_nan_does_not_answer_0():
    task = AdditionTask(digits=1)
    zero = torch.tensor([0, 0])
    target = task.target((task.layout.encode(zero, zero), zero.bool()))
    right = torch.nn.functional.one_hot(target.answers, 10).float()
    for share in (1, 0.5):
        metric = task.metrics()["exact"]
        metric.update(right, target)
        assert metric.compute() == share
        right[0, 0] = torch.nan
