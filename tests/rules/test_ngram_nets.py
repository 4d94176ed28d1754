"""Rules on the nets of the n-gram study."""

import pytest
import torch

from lit_credit.datamodules import LastPosition, NGram, PowerUnif
from lit_credit.models import AttentionOnly, ContextMLP, LowRank
from lit_credit.rules import BP, DFA, FA, BlockFA
from lit_credit.tasks import NGramPrediction
from tests.rules.helpers import quiet_trainer, seeded


def train(kind, net, distribution, steps=300):
    def make():
        optimizer = lambda p: torch.optim.Adam(p, lr=1e-2, fused=True)  # noqa: E731
        return kind(net(), NGramPrediction(), optimizer=optimizer, updates_per_step=50)

    rule = seeded(make, seed=0)
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


@pytest.mark.parametrize("kind", [BP, FA, DFA, BlockFA])
@pytest.mark.parametrize(
    ("net", "least"), [(LowRank, 0.85), (attention, 0.85), (separate, 0.5), (mlp, 0.6)]
)
def test_every_rule_memorizes_a_lookup_table(kind, net, least):
    start = dict(seeded(net, seed=0).named_parameters())
    rule, metrics = train(kind, net, PowerUnif())
    assert metrics["val/accuracy"] > least
    assert metrics["val/memorized"] == pytest.approx(100 * metrics["val/accuracy"])
    assert metrics["val/loss"] == pytest.approx(metrics["val/kl"], rel=1e-4)  # the entropy is zero
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
