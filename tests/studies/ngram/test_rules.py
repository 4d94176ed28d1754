"""Rules on the nets of the n-gram study."""

from functools import cache

import pytest
import torch

from lit_credit.rules import BP, DFA, FA, BlockFA, FrozenUnits
from lit_credit.studies.ngram import (
    AttentionOnly,
    ContextMLP,
    LastPosition,
    LowRank,
    NGram,
    NGramPrediction,
    PowerUnif,
)
from tests.support import quiet_trainer, seeded


def train(kind, net, distribution, steps=300, seed=0, lr=1e-2):
    def make():
        optimizer = lambda p: torch.optim.Adam(p, lr=lr, fused=True)  # noqa: E731
        return kind(net(), NGramPrediction(), optimizer=optimizer, updates_per_step=50)

    rule = seeded(make, seed=seed)
    data = NGram(distribution, mode="exact", steps_per_epoch=steps, seed=0)
    trainer = quiet_trainer(max_epochs=1, num_sanity_val_steps=0)
    trainer.fit(rule, datamodule=data)
    return rule, {name: value.item() for name, value in trainer.callback_metrics.items()}


def attention():
    return AttentionOnly(vocab_size=10, width=5, heads=20)


def separate():
    return AttentionOnly(vocab_size=10, width=5, heads=8, separate_heads=True, silent_heads=True)


def mlp():
    return ContextMLP(vocab_size=10, width=5, hidden=200)


@cache
def memorized(kind, net):
    """A rule after 300 steps from each of two seeds, and its metrics."""
    return [train(kind, net, PowerUnif(), seed=seed, lr=5e-3) for seed in (0, 1)]


def mean(runs, name):
    return sum(metrics[name] for _, metrics in runs) / len(runs)


@pytest.mark.few(5)
@pytest.mark.parametrize("kind", [BP, FA, DFA, BlockFA])
@pytest.mark.parametrize("net", [LowRank, attention, separate, mlp])
def test_every_rule_memorizes_more_of_a_lookup_table_than_its_readout_does_alone(kind, net):
    runs = memorized(kind, net)
    # The readout alone stays at 2.1 nats (2.3 is chance). The slowest, FA of separate heads, is at
    # 1.4; gradient ascent below the readout ends above 2.3.
    assert mean(runs, "val/kl") < 0.9 * mean(memorized(FrozenUnits, net), "val/kl")
    if kind is BP:
        assert mean(runs, "val/accuracy") > 0.9
    for seed, (rule, metrics) in enumerate(runs):
        assert metrics["val/memorized"] == pytest.approx(100 * metrics["val/accuracy"])
        # The entropy is zero.
        assert metrics["val/loss"] == pytest.approx(metrics["val/kl"], rel=1e-4, abs=1e-6)
        start = dict(seeded(net, seed=seed).named_parameters())
        for name, parameter in rule.net.named_parameters():
            assert not torch.equal(parameter, start[name]), name


def test_the_divergence_of_a_low_rank_net_is_that_of_the_study():
    _, metrics = train(BP, LowRank, LastPosition(), steps=1500)
    assert 0.018 < metrics["val/kl"] < 0.024
    assert metrics["val/accuracy"] == pytest.approx(0.95)


def test_each_parallel_head_has_a_feedback_of_its_own():
    rule = FA(attention(), NGramPrediction())
    for name in "qkvo":
        layer = rule.net.blocks[0].attention.get_submodule(name)
        assert layer.feedback.shape == layer.weight.shape
        rows = layer.feedback if name != "o" else layer.feedback.T
        heads = rows.reshape(20, 25)
        cosines = torch.corrcoef(heads) - torch.eye(20)
        assert cosines.abs().max() < 0.9


def test_on_free_vectors_fa_and_dfa_are_one_rule():
    """There is one unit, and its credit is the error times one matrix, drawn alike."""
    data = NGram(LastPosition(), batch_size=16, seed=0)
    batch, gradients = next(iter(data.train_dataloader())), []
    fa, dfa = (seeded(lambda k=k: k(LowRank(), NGramPrediction()), seed=0) for k in (FA, DFA))
    dfa.surrogate(batch)[1].backward()  # which draws its matrix
    dfa.zero_grad()
    (own,), (other,) = (rule.feedback_matrices().values() for rule in (fa, dfa))
    assert not torch.equal(own[0], other[0].T)
    other[0].copy_(own[0].T)
    for rule in (fa, dfa):
        rule.surrogate(batch)[1].backward()
        gradients.append([p.grad for p in rule.net.parameters()])
    torch.testing.assert_close(*gradients)
