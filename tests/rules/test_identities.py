"""What must hold between rules, in float64 (design identities)."""

import pytest
import torch

from lit_credit.models import MLP, ResidualMLP
from lit_credit.rules import BP, DFA, FA, BlockFA, FrozenUnits
from lit_credit.tasks import Classification
from tests.support import gradients, images, seeded

NETS = {
    "residual": lambda: ResidualMLP(20, width=12, num_classes=5, depth=3, w2_std=0.3).double(),
    "mlp": lambda: MLP(20, [16, 12], num_classes=5, activation="tanh").double(),
}


def batch():
    x, y = images()
    return x.double(), y


def rule(kind, net="residual", **kwargs):
    return kind(seeded(NETS[net]), Classification(5), **kwargs)


def assert_equal(found, expected, names=None):
    for name in names or expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("net", NETS)
def test_fa_with_the_weights_as_feedback_is_bp(net):
    fa = gradients(rule(FA, net, feedback="weight"), batch())
    assert_equal(fa, gradients(rule(BP, net), batch()))


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("kind", [FA, BlockFA, DFA])
def test_the_readout_learns_from_the_true_gradient(kind, net):
    found, exact = gradients(rule(kind, net), batch()), gradients(rule(BP, net), batch())
    # Under FA the norm before the last weight lies behind a feedback matrix already.
    parts = ("out_head", "head") if kind is FA else ("out_", "head")
    assert_equal(found, exact, [name for name in exact if name.startswith(parts)])
    first = next(iter(exact))
    assert not torch.allclose(found[first], exact[first], rtol=1e-2)


def test_dfa_with_one_hidden_layer_is_fa():
    def make(kind):
        return kind(
            seeded(lambda: MLP(20, [16], num_classes=5, activation="tanh").double()),
            Classification(5),
        )

    dfa, fa = make(DFA), make(FA)
    dfa.credit(batch())  # draws B (16, 5)
    fa.net.head.feedback.copy_(dfa.feedback.matrix.T)
    assert_equal(gradients(dfa, batch()), gradients(fa, batch()))


def linear_net():
    return MLP(20, [16, 12, 8], num_classes=5, activation="identity").double()


def test_dfa_with_the_product_of_later_weights_is_bp_on_a_linear_net():
    dfa = DFA(seeded(linear_net), Classification(5))
    dfa.credit(batch())
    product, blocks = dfa.net.head.weight.detach().T, []
    for layer in reversed(dfa.net.layers):
        blocks.append(product)
        product = layer[0].weight.detach().T @ product
    dfa.feedback.matrix = torch.cat(blocks[::-1])
    assert_equal(
        gradients(dfa, batch()), gradients(BP(seeded(linear_net), Classification(5)), batch())
    )


def test_block_fa_with_the_weights_as_feedback_is_bp_on_a_linear_net():
    rule_ = BlockFA(seeded(linear_net), Classification(5))
    rule_.credit(batch())
    for index in range(2):
        upper = rule_.net.layers[index + 1][0].weight.detach()
        setattr(rule_.feedback, f"unit_{index}", upper.T)
    assert_equal(
        gradients(rule_, batch()), gradients(BP(seeded(linear_net), Classification(5)), batch())
    )


@pytest.mark.parametrize("kind", [BlockFA, DFA])
@pytest.mark.parametrize("normalize", [False, True])
def test_recompute_gives_the_same_gradients(kind, normalize):
    plain = gradients(rule(kind, normalize_credit=normalize), batch())
    assert_equal(gradients(rule(kind, normalize_credit=normalize, recompute=True), batch()), plain)


@pytest.mark.parametrize("kind", [BP, FA, BlockFA, DFA])
def test_rules_share_initial_weights_and_credit_is_what_units_receive(kind):
    r = rule(kind)
    for name, value in seeded(NETS["residual"]).state_dict().items():
        torch.testing.assert_close(r.net.state_dict()[name], value, rtol=0, atol=0)
    credit = r.credit(batch())
    assert list(credit) == ["net.embed", "net.blocks.0", "net.blocks.1", "net.blocks.2"]
    # The bias of a unit's last layer receives the credit of its output, summed over samples.
    found = gradients(r, batch())
    for unit, bias in (("net.embed", "embed.bias"), ("net.blocks.1", "blocks.1.w2.bias")):
        torch.testing.assert_close(credit[unit].sum(0), found[bias])


def test_dfa_credit_is_the_error_times_each_matrix_normalised_per_sample():
    x, y = batch()
    r = rule(DFA, normalize_credit=True, shared_feedback={"embed": "blocks.0"})
    credit = r.credit((x, y))
    assert r.feedback.matrix.shape == (3 * 12, 5)
    for index in range(3):
        expected = torch.empty(len(x), 12, dtype=torch.float64)
        for n in range(len(x)):
            error = r.net(x[n : n + 1])[0].softmax(-1)
            error[y[n]] -= 1
            a = r.feedback.matrix[12 * index : 12 * (index + 1)].double() @ error
            expected[n] = a / (a.pow(2).mean().sqrt() + 1e-6) / len(x)
        torch.testing.assert_close(credit[f"net.blocks.{index}"], expected.detach())
    assert torch.equal(credit["net.embed"], credit["net.blocks.0"])


def test_frozen_units_do_not_move_and_the_rest_follows_bp():
    r = rule(FrozenUnits, frozen=["blocks.*"])
    trainable = [name for name, p in r.net.named_parameters() if p.requires_grad]
    assert trainable[0] == "embed.weight"
    assert not any(name.startswith("blocks") for name in trainable)
    _, scalar = r.surrogate(batch())
    found = torch.autograd.grad(scalar, [dict(r.net.named_parameters())[n] for n in trainable])
    exact = gradients(rule(BP), batch())
    assert_equal(dict(zip(trainable, found, strict=True)), exact, trainable)


def test_the_feedback_seed_is_apart_from_the_seed_of_the_run():
    one, same, other = (rule(DFA, feedback_seed=s) for s in (0, 0, 1))
    for r in (one, same, other):
        r.credit(batch())
    assert torch.equal(one.feedback.matrix, same.feedback.matrix)
    assert not torch.equal(one.feedback.matrix, other.feedback.matrix)
